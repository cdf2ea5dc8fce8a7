//! A host disk that fills up: the guest waits, and no write of it is lost.

use std::{fs, io, os::unix::fs::FileExt as _, path::Path, process::Command as Program};

use colima_vm::machine::{
    Machine, Status,
    qmp::{Command, Event, Room, RunState},
};

use crate::guest_code::{FILLED_BY, FILLED_FROM, PATIENCE, Then, qemu, spec};

const DISK: usize = 24 << 20;

/// A file system in memory, taken away in the end.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, size: &str) -> io::Result<Self> {
        fs::create_dir(at)?;
        Self::call(at, &format!("size={size}"))?;
        Ok(Self(at))
    }

    fn grow(&self, size: &str) {
        Self::call(self.0, &format!("remount,size={size}")).unwrap();
    }

    fn call(at: &Path, options: &str) -> io::Result<()> {
        let mount = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let said = Program::new("mount").args(mount).arg(at).output()?;
        let why = || String::from_utf8_lossy(&said.stderr).into_owned();
        said.status
            .success()
            .then_some(())
            .ok_or_else(|| io::Error::other(why()))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg("--lazy").arg(self.0).status();
    }
}

async fn paused(machine: &Machine) {
    let stopped = async {
        // Its events may be over already.
        while machine.status(PATIENCE).await != Status::Responding(RunState::IoError) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.unwrap();
}

fn no_room(event: &Event) -> bool {
    matches!(event, Event::BlockIoError { node, operation, room: Room::None, .. }
        if node == "disk0" && operation == "write")
}

#[tokio::test]
async fn a_full_disk_pauses_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path().join("small");
    let small = match Small::mount(&at, "4M") {
        Ok(small) => small,
        Err(why) => {
            println!("skipped: a_full_disk_pauses_and_nothing_is_lost: no tmpfs here: {why}");
            return;
        }
    };
    let disk = at.join("boot.raw");
    let spec = spec(&disk, "the guest speaks\n", Then::Fill);
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.set_len(DISK as u64).unwrap();
    let machine = Machine::launch(&spec, &qemu(), &home.path().join("machine"))
        .await
        .unwrap();
    paused(&machine).await;

    // Some room, and too little: it goes on and says so again.
    let mut events = machine.events();
    small.grow("8M");
    machine.execute(&Command::Cont, PATIENCE).await.unwrap();
    let again = async {
        let mut told = Vec::new();
        // In any order: QEMU may hold an error back for a second after another one.
        while !told.contains(&Event::Stop) || !told.iter().any(no_room) {
            told.push(events.recv().await.unwrap());
        }
        told
    };
    let told = tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert_eq!(told.first(), Some(&Event::Resume), "{told:?}");
    paused(&machine).await;

    small.grow("64M");
    machine.execute(&Command::Cont, PATIENCE).await.unwrap();
    let end = machine.console().printed("!");
    assert!(tokio::time::timeout(PATIENCE, end).await.unwrap());
    let _ = machine.kill().await.unwrap();
    let file = fs::File::open(&disk).unwrap();
    for offset in (FILLED_FROM..DISK).step_by(FILLED_BY) {
        let mut first = [0];
        file.read_exact_at(&mut first, offset as u64).unwrap();
        assert_eq!(first, [1], "at {offset}");
    }
}
