//! How a share may be used.

use super::{Share, root::Writable};
use crate::sftp::Errno;

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
            Access::ReadWrite => Ok(Writable::of(&self.root, WriteAccess(()))),
        }
    }
}
