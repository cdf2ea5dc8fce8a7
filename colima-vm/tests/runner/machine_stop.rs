//! The ladder, rung by rung, against guests that refuse each of them.

use std::time::Duration;

use colima_vm::machine::{Machine, Rung, RungOutcome, Status, StopPlan, qmp::ShutdownReason};
use rustix::process::{Pid, Signal, kill_process};

use crate::guest_code::{PATIENCE, Running, Then, running};

fn tried(report: &colima_vm::machine::StopReport) -> Vec<(Rung, RungOutcome)> {
    let rungs = report.rungs.iter();
    rungs
        .map(|rung| (rung.rung, rung.outcome.clone()))
        .collect()
}

fn signal(running: &Running, signal: Signal) {
    kill_process(Pid::from_raw(running.machine.pid().get()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_willing_guest_powers_off() {
    let running = running(Then::AwaitButton).await;
    let plan = StopPlan {
        power_button: Some(PATIENCE),
        ..StopPlan::default()
    };
    let report = running.machine.stop(plan).await.unwrap();
    assert_eq!(report.ended_by, Some(Rung::PowerButton));
    assert_eq!(report.exit.cause, Some(ShutdownReason::GuestShutdown));
    assert_eq!(tried(&report), [(Rung::PowerButton, RungOutcome::Ended)]);

    let again = running.machine.stop(StopPlan::default()).await.unwrap();
    assert_eq!((again.ended_by, again.rungs.len()), (None, 0));
}

#[tokio::test]
async fn a_deaf_guest_is_quit() {
    let running = running(Then::Hang).await;
    let plan = StopPlan {
        power_button: Some(Duration::from_millis(300)),
        quit: Some(PATIENCE),
        ..StopPlan::default()
    }
    .ask_guest(PATIENCE, Box::pin(async { Err("no agent".into()) }));
    let report = running.machine.stop(plan).await.unwrap();
    assert_eq!(report.exit.cause, Some(ShutdownReason::HostQuit));
    let no_agent = RungOutcome::Failed {
        reason: "no agent".to_owned(),
    };
    assert_eq!(
        tried(&report),
        [
            (Rung::AskGuest, no_agent),
            (Rung::PowerButton, RungOutcome::StillRunning),
            (Rung::Quit, RungOutcome::Ended),
        ]
    );
}

#[tokio::test]
async fn a_stopped_qemu_does_not_respond_and_is_killed() {
    let running = running(Then::Hang).await;
    signal(&running, Signal::STOP);
    assert_eq!(
        running.machine.status(Duration::from_millis(500)).await,
        Status::NotResponding
    );
    signal(&running, Signal::CONT);
    assert!(matches!(
        running.machine.status(PATIENCE).await,
        Status::Responding(_)
    ));
    signal(&running, Signal::STOP);
    let plan = StopPlan {
        quit: Some(Duration::from_millis(500)),
        ..StopPlan::forced()
    };
    let report = running.machine.stop(plan).await.unwrap();
    assert_eq!(report.ended_by, Some(Rung::Kill));
    assert_eq!(report.exit.cause, None);
    assert_ne!(tried(&report)[0].1, RungOutcome::Ended);
}

#[tokio::test]
async fn a_stopped_qemu_is_found_and_killed() {
    let running = running(Then::Hang).await;
    signal(&running, Signal::STOP);
    let directory = running.directory();
    running.machine.detach();
    let found = Machine::attach(&directory).await.unwrap();
    assert_eq!(
        found.status(Duration::from_millis(300)).await,
        Status::NotResponding
    );
    let report = found.kill().await.unwrap();
    assert_eq!(report.ended_by, Some(Rung::Kill));
}
