//! A mount that outlives the process that serves it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::mount::UnmountFlags;

use super::{MountError, MountOptions, adapter, journal};

/// Holds a mount for processes that serve it, one after another.
///
/// It serves nothing by itself: give [`Keeper::device`] and [`Keeper::journal`] to a process that calls
/// [`resume`](super::resume), and to another one when that process has died. What the kernel asks meanwhile
/// waits.
///
/// Start the next process when the first thread of one has ended or been killed, and reap that one
/// afterwards: a thread that was just telling the kernel of a change may wait there for a lock of somebody
/// whom only the next process answers. `waitpid` does not return before that; a pidfd of the thread
/// (`PIDFD_THREAD`, Linux 6.9) is told at once.
/// When the keeper's process dies while no other has the device, the mount is dead; it has to be
/// unmounted and mounted anew then.
///
/// * Dropping it takes the mount away at once.
/// * [`Keeper::close`] unmounts in order, and does nothing while somebody uses it.
/// * [`Keeper::detach`] gives the descriptors away and leaves the mount to them.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    kept: Option<(OwnedFd, OwnedFd)>,
}

/// The file system is in use, or could not be unmounted for another reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot unmount {}", keeper.path.display())]
pub struct KeeperCloseError {
    /// The mount, which is still there.
    pub keeper: Keeper,
    /// What the system said.
    pub source: io::Error,
}

impl Keeper {
    /// Mounts, and agrees with the kernel on how it is to be served. Nothing can be asked of the mount
    /// until a process serves it.
    ///
    /// Blocks for a moment.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn mount(path: impl AsRef<Path>, options: &MountOptions) -> Result<Self, MountError> {
        let path = path.as_ref().to_owned();
        let mount = || {
            let journal = journal::create()?;
            let device = adapter::mount_kept(&path, options)?;
            Ok((device, journal))
        };
        match mount() {
            Ok(kept) => Ok(Self {
                path,
                kept: Some(kept),
            }),
            Err(source) => Err(MountError::Mount { path, source }),
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's end of the mount, for a process that serves it.
    ///
    /// # Panics
    ///
    /// Never: it is there until the keeper is gone.
    #[must_use]
    pub fn device(&self) -> BorrowedFd<'_> {
        self.kept().0.as_fd()
    }

    /// What the kernel holds numbers of, for the same process.
    ///
    /// # Panics
    ///
    /// Never: it is there until the keeper is gone.
    #[must_use]
    pub fn journal(&self) -> BorrowedFd<'_> {
        self.kept().1.as_fd()
    }

    fn kept(&self) -> &(OwnedFd, OwnedFd) {
        self.kept
            .as_ref()
            .expect("taken only by what consumes the keeper")
    }

    /// Unmounts, when nobody uses it. Blocks until the kernel has let go, for which the mount has to be
    /// served.
    ///
    /// # Errors
    ///
    /// Somebody uses it (`EBUSY`), or the process may not unmount; the mount is there as before.
    pub fn close(mut self) -> Result<(), KeeperCloseError> {
        match rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW) {
            Ok(()) => {
                self.kept.take();
                Ok(())
            }
            Err(error) => Err(KeeperCloseError {
                keeper: self,
                source: error.into(),
            }),
        }
    }

    /// Leaves the mount to whoever holds device and journal, in this order.
    ///
    /// # Panics
    ///
    /// Never: they are there until the keeper is gone.
    #[must_use]
    pub fn detach(mut self) -> (OwnedFd, OwnedFd) {
        self.kept
            .take()
            .expect("taken only by what consumes the keeper")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.kept.is_some() {
            let lazily = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            let _ = rustix::mount::unmount(&self.path, lazily);
        }
    }
}
