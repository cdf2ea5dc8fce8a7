//! Liveness of a machine: a lock that QEMU inherits.
//!
//! `flock` belongs to the open file, not to a process (flock(2)). QEMU inherits the descriptor and
//! nobody else keeps it, so the lock is held for exactly as long as QEMU lives, whatever becomes of
//! the program that started it. The file's content is the pid of the process that inherited it,
//! written by that process itself between fork and exec; it proves nothing alone.

use std::{
    fs, io,
    io::Read as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::FlockOperation;

use super::process::Pid;

/// The held lock.
#[derive(Debug)]
pub(super) struct MachineLock(OwnedFd);

impl MachineLock {
    /// Takes the lock, or says `None` when somebody holds it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // The previous owner's pid must not be taken for the next one's.
                file.set_len(0)?;
                Ok(Some(Self(file.into())))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether somebody holds the lock at `path`.
///
/// Takes it for a moment when it is free, so ask only when there is reason to believe it is held.
pub(super) fn is_held(path: &Path) -> io::Result<bool> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The pid that the lock's last owner wrote.
pub(super) fn written_pid(path: &Path) -> io::Result<Option<Pid>> {
    let mut text = String::new();
    fs::File::open(path)?.take(32).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok().and_then(Pid::new))
}

fn open(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}
