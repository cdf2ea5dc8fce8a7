//! `kill -9` of the program at every step of a suspend, and of what lets a loaded guest run.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use colima_vm::machine::{Error, Machine, OnDrop, SavedState, Status, qmp::RunState};

use crate::{
    guest_code::{PATIENCE, qemu},
    machine_suspend::{counted, counting},
};

/// Not a test of its own: the process that is killed.
#[tokio::test]
#[ignore = "started by killed_at_every_step"]
async fn suspender() {
    let directory = std::env::var("COLIMA_TEST_HOME").unwrap();
    let machine = Machine::attach(Path::new(&directory)).await.unwrap();
    machine.suspend(PATIENCE).await.unwrap();
}

/// Not a test of its own: the process that is killed. What it finds is loaded and does not run.
#[tokio::test]
#[ignore = "started by killed_at_every_step"]
async fn finisher() {
    let directory = std::env::var("COLIMA_TEST_HOME").unwrap();
    let machine = Machine::attach(Path::new(&directory)).await.unwrap();
    assert_eq!(
        machine.status(PATIENCE).await,
        Status::Responding(RunState::Running)
    );
}

#[derive(PartialEq, Eq)]
enum Fate {
    Killed,
    Done,
}

/// Runs a process of the above that is killed at the `when`th call of `call`, if it comes so far.
async fn killed(process: &str, directory: &Path, call: &str, when: usize) -> Fate {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=SIGKILL:when={when}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored"])
        .arg(format!("machine_suspend_killed::{process}"))
        .env("COLIMA_TEST_HOME", directory)
        .stdout(Stdio::null());
    // Beside the runtime, which lets go of the control channel meanwhile.
    let status = tokio::task::spawn_blocking(move || strace.status());
    let status = status.await.unwrap().expect("this test needs strace");
    match status.success() {
        true => Fate::Done,
        false => Fate::Killed,
    }
}

/// Whoever comes next has the guest as it was: running, or saved and loadable. Never both.
async fn goes_on(directory: &Path, before: u32) -> u32 {
    let machine = match Machine::attach(directory).await {
        Ok(machine) => machine,
        Err(Error::NotRunning { .. }) => {
            let loaded = Machine::load(&qemu(), directory, PATIENCE).await.unwrap();
            loaded.run().await.unwrap()
        }
        Err(error) => panic!("{error:?}"),
    };
    assert!(SavedState::find(directory).unwrap().is_none());
    for file in ["state.saving", "state.saved", "state.consumed"] {
        assert!(!directory.join(file).exists(), "{file}");
    }
    let now = counted(&machine).await;
    assert!(now > before, "it began anew, or went back: {now} {before}");
    machine.detach();
    now
}

/// The calls that change what is there: QEMU is told something, or a file gets another name.
const CALLS: [&str; 5] = ["sendto", "sendmsg", "fsync", "rename", "unlink"];

/// More than any process of the above makes.
const MOST: usize = 40;

#[tokio::test]
async fn killed_at_every_step() {
    let running = counting().await;
    let directory = running.directory();
    let mut number = counted(&running.machine).await;
    running.machine.detach();
    let mut points = Vec::new();
    for call in CALLS {
        let mut when = 1;
        while killed("suspender", &directory, call, when).await == Fate::Killed {
            number = goes_on(&directory, number).await;
            points.push(format!("suspend {call} {when}"));
            when += 1;
            assert!(when < MOST, "it is killed for another reason");
        }
        number = goes_on(&directory, number).await;

        let mut when = 1;
        loop {
            let machine = Machine::attach(&directory).await.unwrap();
            machine.suspend(PATIENCE).await.unwrap();
            let loaded = Machine::load(&qemu(), &directory, PATIENCE).await.unwrap();
            loaded.machine().set_on_drop(OnDrop::Detach);
            drop(loaded);
            let fate = killed("finisher", &directory, call, when).await;
            number = goes_on(&directory, number).await;
            if fate == Fate::Done {
                break;
            }
            points.push(format!("resume {call} {when}"));
            when += 1;
            assert!(when < MOST, "it is killed for another reason");
        }
    }
    println!("{} points: {}", points.len(), points.join(", "));
    assert!(points.len() >= 12, "{points:?}");
    let machine = Machine::attach(&directory).await.unwrap();
    machine.kill().await.unwrap();
}
