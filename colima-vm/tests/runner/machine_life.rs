//! Launch, look, detach, find again, outlive the launcher.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use colima_vm::machine::{
    Error, ExitStatus, Machine, OnDrop, Readiness, Status, StopPlan, qmp::RunState,
};
use tokio::io::AsyncWriteExt as _;

use crate::guest_code::{PATIENCE, Then, launched, qemu, running, spec};

fn lock_is_free(directory: &Path) -> bool {
    let file = fs::File::open(directory.join("machine.lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[tokio::test]
async fn a_machine_lives_and_is_confined() {
    let running = running(Then::Hang).await;
    let (machine, directory) = (&running.machine, running.directory());
    assert_eq!(
        machine.status(PATIENCE).await,
        Status::Responding(RunState::Running)
    );
    assert!(!lock_is_free(&directory), "QEMU inherits the lock");
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    let mode = fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);

    let pid = machine.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    // proc_pid_stat(5): fields 5 and 6 are process group and session.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(
        fields[2..4],
        [pid.to_string(), pid.to_string()],
        "own session"
    );
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment, b"");

    let console = fs::read_to_string(machine.console_log()).unwrap();
    assert!(console.contains("the guest speaks\n"), "{console:?}");

    let mut port = machine.port(15).await.unwrap();
    port.write_all(b"nobody listens").await.unwrap();
    assert!(matches!(
        machine.port(16).await,
        Err(Error::NoSuchPort { port: 16 })
    ));

    let report = machine.kill().await.unwrap();
    assert_eq!(report.exit.status, ExitStatus::Signal(9));
    assert_eq!(machine.status(PATIENCE).await, Status::Exited(report.exit));
    assert!(lock_is_free(&directory), "the lock ends with QEMU");
}

#[tokio::test]
async fn found_again_after_detach() {
    let running = running(Then::Hang).await;
    let directory = running.directory();
    let pid = running.machine.pid();
    let second = Machine::launch(running.machine.spec(), &qemu(), &directory).await;
    assert!(
        matches!(&second, Err(Error::AlreadyRunning { pid: Some(found), .. }) if *found == pid),
        "{second:?}"
    );
    running.machine.detach();

    let again = Machine::attach(&directory).await.unwrap();
    assert_eq!(again.pid(), pid);
    assert_eq!(
        again.status(PATIENCE).await,
        Status::Responding(RunState::Running)
    );
    drop(again);
    let again = Machine::attach(&directory).await.unwrap();
    again.set_on_drop(OnDrop::Kill);
    let exited = again.exited();
    let killed = again.stop(StopPlan::forced()).await.unwrap();
    assert_eq!(exited.await, killed.exit);
    assert!(matches!(
        Machine::attach(&directory).await,
        Err(Error::NotRunning { .. })
    ));
}

#[tokio::test]
async fn a_dropped_machine_is_killed() {
    let running = running(Then::Hang).await;
    let observer = Machine::attach(&running.directory()).await.unwrap();
    drop(running.machine);
    let exit = tokio::time::timeout(PATIENCE, observer.exited())
        .await
        .unwrap();
    assert_eq!(exit.cause, None);
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "started by the_launcher_is_killed"]
async fn launcher() {
    let home = std::env::var("COLIMA_TEST_HOME").unwrap();
    let home = Path::new(&home);
    let spec = spec(&home.join("boot.raw"), "up\n", Then::Hang);
    let machine = Machine::launch(&spec, &qemu(), &home.join("machine"))
        .await
        .unwrap();
    println!("launched {}", machine.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_launcher_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("machine");
    let mut launcher = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "machine_life::launcher",
            "--ignored",
            "--nocapture",
        ])
        .env("COLIMA_TEST_HOME", home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(launcher.stdout.take().unwrap());
    let line = output
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("launched "))
        .expect("the launcher launches");
    launcher.kill().unwrap();
    launcher.wait().unwrap();

    assert!(!lock_is_free(&directory), "QEMU lives on");
    let machine = Machine::attach(&directory).await.unwrap();
    assert!(
        line.ends_with(&format!("launched {}", machine.pid())),
        "{line}"
    );
    assert_eq!(
        machine.status(PATIENCE).await,
        Status::Responding(RunState::Running)
    );
    machine.kill().await.unwrap();
    assert!(lock_is_free(&directory));
}

/// A launcher killed between starting QEMU and recording it leaves a process that nobody names.
#[tokio::test]
async fn an_orphan_makes_way() {
    let running = running(Then::Hang).await;
    let directory = running.directory();
    let observer = Machine::attach(&directory).await.unwrap();
    let spec = running.machine.spec().clone();
    running.machine.detach();
    fs::remove_file(directory.join("machine.json")).unwrap();

    let next = Machine::launch(&spec, &qemu(), &directory).await.unwrap();
    assert_ne!(next.pid(), observer.pid());
    let exit = tokio::time::timeout(PATIENCE, observer.exited())
        .await
        .unwrap();
    assert_eq!(exit.cause, None);
    next.kill().await.unwrap();
}

#[tokio::test]
async fn a_reused_process_number_is_left_alone() {
    let running = running(Then::Hang).await;
    let directory = running.directory();
    let record = directory.join("machine.json");
    let text = fs::read_to_string(&record).unwrap();
    let pid = running.machine.pid();
    running.machine.kill().await.unwrap();

    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let forged = text.replace(
        &format!("\"pid\": {pid}"),
        &format!("\"pid\": {}", bystander.id()),
    );
    assert_ne!(forged, text);
    fs::write(&record, &forged).unwrap();
    fs::write(
        directory.join("machine.lock"),
        format!("{}\n", bystander.id()),
    )
    .unwrap();
    assert!(matches!(
        Machine::attach(&directory).await,
        Err(Error::NotRunning { .. })
    ));
    let next = Machine::launch(running.machine.spec(), &qemu(), &directory)
        .await
        .unwrap();
    next.kill().await.unwrap();
    assert_eq!(bystander.try_wait().unwrap(), None, "the bystander lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn paths_may_be_long_and_hostile() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("a directory, with=commas".repeat(5));
    fs::create_dir(&deep).unwrap();
    let disk = deep.join("disk,if=none,file=\"x\" \u{e9}%s.raw");
    let spec = spec(&disk, "from afar\n", Then::Hang);
    let machine = Machine::launch(&spec, &qemu(), &deep.join("machine"))
        .await
        .unwrap();
    machine
        .wait_ready(Readiness::ConsoleLine("from afar".to_owned()), PATIENCE)
        .await
        .unwrap();
    machine.port(0).await.unwrap();
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn an_abandoned_launch_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("machine");
    let spec = spec(&home.path().join("boot.raw"), "up\n", Then::Hang);
    let qemu = qemu();
    let launch = Machine::launch(&spec, &qemu, &directory);
    let given_up = tokio::time::timeout(Duration::from_millis(60), launch).await;
    drop(given_up);
    // Whatever was started lets go of the lock; the next launch works as soon as it has.
    let lock = directory.join("machine.lock");
    let freed = tokio::task::spawn_blocking(move || {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(lock)
            .unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
    });
    tokio::time::timeout(PATIENCE, freed)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_guest_ends_its_machine() {
    use colima_vm::machine::qmp::ShutdownReason;

    for (then, cause) in [
        (Then::PowerOff, ShutdownReason::GuestShutdown),
        (Then::Reset, ShutdownReason::GuestReset),
    ] {
        let launched = launched("bye\n", then).await;
        let exit = tokio::time::timeout(PATIENCE, launched.machine.exited())
            .await
            .unwrap();
        assert_eq!(
            (exit.cause, exit.status),
            (Some(cause), ExitStatus::Code(0))
        );
        // The firmware's last line has no end.
        assert!(launched.machine.console().tail(1)[0].ends_with("bye"));
    }
}
