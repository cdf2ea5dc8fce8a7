//! How a share may be used.

use std::os::fd::{AsFd, BorrowedFd};

use super::{
    Ownership, Share,
    ownership::{Beside, Place},
    root::{self, Writable},
};
use crate::sftp::{Errno, Metadata};

/// How clients may use a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look only. What changes anything is out of reach of the code that serves it.
    ReadOnly,
    /// Look and change.
    ReadWrite,
}

/// The proof that changes were asked for. Only [`Share::writable`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteAccess(());

impl Share {
    /// The root with what changes it.
    ///
    /// # Errors
    ///
    /// The share is read-only.
    pub(crate) fn writable(&self) -> Result<Writable<'_>, Errno> {
        match self.access {
            Access::ReadOnly => Err(Errno::ReadOnly),
            Access::ReadWrite => Ok(Writable::of(self, WriteAccess(()))),
        }
    }

    /// Who keeps what the host cannot hold.
    pub(super) fn beside(&self) -> Option<&Beside> {
        match &self.ownership {
            Ownership::Host => None,
            Ownership::Beside(beside) => Some(beside),
        }
    }

    fn over(&self, host: Metadata, place: Place<'_>) -> Metadata {
        self.beside()
            .map_or(host, |beside| beside.seen(host, place))
    }

    /// What clients see of an open file, or one that is held.
    pub(crate) fn see(&self, file: &impl AsFd) -> Result<Metadata, Errno> {
        let fd = file.as_fd();
        Ok(self.over(root::metadata(fd)?, Place::Fd(fd)))
    }

    /// What clients see of a name in a directory; of a link itself.
    pub(crate) fn see_name(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<Metadata, Errno> {
        let host = root::metadata_of(directory, name)?;
        Ok(self.over(host, Place::Name(directory, name)))
    }
}
