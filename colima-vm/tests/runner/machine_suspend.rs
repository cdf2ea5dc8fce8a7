//! Suspend, and go on from there once.

use std::{
    fs::{self, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use colima_vm::machine::{
    Accelerator, Error, Machine, OnDrop, Qemu, SavedState, Status, qmp::RunState,
};

use crate::guest_code::{PATIENCE, Running, Then, number, qemu, running};

/// The next number that the guest counts.
pub(crate) async fn counted(machine: &Machine) -> u32 {
    let newest = machine
        .console()
        .tail(9)
        .iter()
        .rev()
        .find_map(|line| number(line));
    let mut lines = machine.console().lines();
    let next = async {
        loop {
            let line = lines.next().await.expect("the guest goes on");
            if let Some(number) = number(&line).filter(|number| Some(*number) > newest) {
                return number;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

/// A guest that has begun to count.
pub(crate) async fn counting() -> Running {
    let running = running(Then::Count).await;
    while counted(&running.machine).await < 3 {}
    running
}

/// A guest that was suspended, and how far it had counted.
async fn suspended() -> (Running, u32) {
    let running = counting().await;
    let before = counted(&running.machine).await;
    running.machine.suspend(PATIENCE).await.unwrap();
    (running, before)
}

async fn load(directory: &Path) -> Result<colima_vm::machine::Loaded, Error> {
    Machine::load(&qemu(), directory, PATIENCE).await
}

fn state(running: &Running) -> std::path::PathBuf {
    running.directory().join("state.saved")
}

/// Nothing of a state is left, and nobody holds the lock.
fn nothing_runs(directory: &Path) {
    // One that is being killed is waited for.
    let lock = fs::File::open(directory.join("machine.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(lock);
    assert!(!Machine::is_running(directory).unwrap());
}

#[tokio::test]
async fn memory_survives() {
    let running = counting().await;
    let directory = running.directory();
    let spec = running.machine.spec().clone();
    let mut machine = running.machine;
    for _ in 0..3 {
        let before = counted(&machine).await;
        let suspended = machine.suspend(PATIENCE).await.unwrap();
        assert!(machine.exit().is_some(), "QEMU has ended");
        let state = directory.join("state.saved");
        let mode = fs::metadata(&state).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let saved = SavedState::find(&directory).unwrap().unwrap();
        assert_eq!((saved.size(), saved.spec()), (suspended.size, &spec));

        machine = load(&directory).await.unwrap().run().await.unwrap();
        assert!(!state.exists());
        assert_eq!(
            machine.status(PATIENCE).await,
            Status::Responding(RunState::Running)
        );
        assert!(counted(&machine).await > before, "it began anew");
    }
    assert!(matches!(
        load(&directory).await,
        Err(Error::AlreadyRunning { .. } | Error::NotSaved { .. })
    ));
    machine.kill().await.unwrap();
    assert!(SavedState::find(&directory).unwrap().is_none());
    assert!(matches!(
        load(&directory).await,
        Err(Error::NotSaved { .. })
    ));
}

/// What becomes of a state's bytes.
type Damage = fn(&mut Vec<u8>);

/// Both ends of the file are gone through: what we wrote, and what QEMU did.
#[tokio::test]
async fn what_cannot_be_loaded_is_named_and_leaves_nothing() {
    let (running, _) = suspended().await;
    let directory = running.directory();
    let whole = fs::read(state(&running)).unwrap();
    let damages: [(&str, Damage); 5] = [
        ("of this version", |state| state[..4].fill(b'x')),
        ("description is damaged", |state| state[30..40].fill(b'}')),
        ("bytes of", |state| state.truncate(state.len() / 2)),
        ("of this version", |state| state.truncate(10)),
        // QEMU's own first word.
        ("", |state| state[64 * 1024..64 * 1024 + 64].fill(0xa5)),
    ];
    for (expected, damage) in damages {
        let mut damaged = whole.clone();
        damage(&mut damaged);
        fs::write(state(&running), damaged).unwrap();
        let error = load(&directory).await.unwrap_err();
        let unloadable = matches!(&error, Error::Unloadable { reason, .. } if !reason.is_empty());
        assert!(unloadable, "{expected}: {error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        nothing_runs(&directory);
    }
    fs::write(state(&running), &whole).unwrap();
    drop(load(&directory).await.unwrap());
    nothing_runs(&directory);

    assert!(SavedState::discard(&directory).unwrap());
    assert!(!SavedState::discard(&directory).unwrap());
    assert!(SavedState::find(&directory).unwrap().is_none());
}

#[tokio::test]
async fn a_state_is_of_its_own_disks_and_accelerator() {
    let (running, before) = suspended().await;
    let directory = running.directory();
    let other = Qemu::new(qemu().program, Accelerator::Kvm);
    let error = Machine::load(&other, &directory, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unloadable { .. }), "{error:?}");

    // Loading is not using: the disk, and the state, are as they were.
    let disk = running.home.path().join("boot.raw");
    let changed = || fs::metadata(&disk).unwrap().modified().unwrap();
    let as_saved = changed();
    for _ in 0..2 {
        drop(load(&directory).await.unwrap());
        nothing_runs(&directory);
        assert_eq!(changed(), as_saved);
    }
    let machine = load(&directory).await.unwrap().run().await.unwrap();
    assert!(counted(&machine).await > before);
    machine.suspend(PATIENCE).await.unwrap();

    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"newer", 1 << 19).unwrap();
    let error = load(&directory).await.unwrap_err();
    assert!(
        error.to_string().contains("was changed after it"),
        "{error}"
    );
    nothing_runs(&directory);
}

/// A boot is a decision against the state.
#[tokio::test]
async fn a_boot_uses_the_state_up() {
    let (running, _) = suspended().await;
    let directory = running.directory();
    let machine = Machine::launch(running.machine.spec(), &qemu(), &directory)
        .await
        .unwrap();
    assert!(SavedState::find(&directory).unwrap().is_none());
    machine.kill().await.unwrap();
    assert!(SavedState::find(&directory).unwrap().is_none());
}

#[tokio::test]
async fn a_save_that_fails_leaves_the_guest_running() {
    let running = counting().await;
    let directory = running.directory();
    // Nothing can be written there: QEMU hears so in the middle of its work.
    let before = counted(&running.machine).await;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    let small = rustix::process::Rlimit {
        current: Some(256 * 1024),
        maximum: limit.maximum,
    };
    let pid = rustix::process::Pid::from_raw(running.machine.pid().get());
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, small).unwrap();
    let error = running.machine.suspend(PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error:?}");
    assert!(counted(&running.machine).await > before);
    assert!(SavedState::find(&directory).unwrap().is_none());
    assert!(!directory.join("state.saving").exists());

    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    running.machine.suspend(PATIENCE).await.unwrap();
    let machine = load(&directory).await.unwrap().run().await.unwrap();
    assert!(counted(&machine).await > before);
}

/// What a program that was killed leaves, file by file.
#[tokio::test]
async fn what_was_left_is_brought_to_an_end() {
    let (running, before) = suspended().await;
    let directory = running.directory();
    let let_go = |loaded: colima_vm::machine::Loaded| {
        loaded.machine().set_on_drop(OnDrop::Detach);
    };
    // Killed when it had loaded the state: whoever comes lets the guest run.
    let_go(load(&directory).await.unwrap());
    let machine = Machine::attach(&directory).await.unwrap();
    assert!(counted(&machine).await > before);
    assert!(!state(&running).exists());
    machine.suspend(PATIENCE).await.unwrap();

    // Killed when it had used the state up.
    let_go(load(&directory).await.unwrap());
    fs::rename(state(&running), directory.join("state.consumed")).unwrap();
    let machine = Machine::attach(&directory).await.unwrap();
    assert!(counted(&machine).await > before);
    assert!(!directory.join("state.consumed").exists());
    machine.suspend(PATIENCE).await.unwrap();

    // The same, and its QEMU too: the state is gone, for good.
    let_go(load(&directory).await.unwrap());
    fs::rename(state(&running), directory.join("state.consumed")).unwrap();
    let machine = Machine::attach(&directory).await.unwrap();
    machine.kill().await.unwrap();
    assert!(SavedState::find(&directory).unwrap().is_none());
    assert!(matches!(
        load(&directory).await,
        Err(Error::NotSaved { .. })
    ));

    // Half a file of a saver that is gone is nothing.
    let mut half = fs::File::create(directory.join("state.saving")).unwrap();
    half.seek(SeekFrom::Start(64 * 1024)).unwrap();
    half.write_all(b"QEVM").unwrap();
    assert!(SavedState::find(&directory).unwrap().is_none());
    let machine = Machine::launch(running.machine.spec(), &qemu(), &directory)
        .await
        .unwrap();
    assert!(!directory.join("state.saving").exists());
    machine.kill().await.unwrap();
}
