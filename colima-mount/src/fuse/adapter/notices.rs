//! What the kernel is told unasked.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use fuser::INodeNo;

use crate::fuse::inodes::Notice;

/// Tells the kernel of notices.
#[derive(Debug)]
pub(in crate::fuse) struct Notifier {
    session: fuser::Notifier,
    /// For what fuser does not know.
    device: OwnedFd,
}

impl Notifier {
    pub(super) fn of<F: fuser::Filesystem>(session: &fuser::Session<F>) -> io::Result<Self> {
        Ok(Self {
            session: session.notifier(),
            device: session.as_fd().try_clone_to_owned()?,
        })
    }

    pub(in crate::fuse) fn tell(&self, notice: &Notice) -> io::Result<()> {
        match notice {
            Notice::Name(parent, name) => {
                (self.session).inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
            }
            Notice::NameDoubted(parent, name) => self.expire_entry(*parent, name),
            Notice::Metadata(ino) => self.session.inval_inode(INodeNo(*ino), -1, 0),
            Notice::Replay(_) => Ok(()),
            Notice::Content(ino) => self.session.inval_inode(INodeNo(*ino), 0, 0),
        }
    }

    /// `struct fuse_notify_inval_entry_out` of linux/fuse.h. A kernel before 6.2 forgets the name.
    fn expire_entry(&self, parent: u64, name: &[u8]) -> io::Result<()> {
        const FUSE_NOTIFY_INVAL_ENTRY: u32 = 3;
        const FUSE_EXPIRE_ONLY: u32 = 1;
        let Ok(length) = u32::try_from(name.len()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut body = parent.to_ne_bytes().to_vec();
        body.extend(length.to_ne_bytes());
        body.extend(FUSE_EXPIRE_ONLY.to_ne_bytes());
        body.extend(name);
        body.push(0);
        self.write(FUSE_NOTIFY_INVAL_ENTRY, &body)
    }

    /// Has the kernel ask again what was read and not answered; since Linux 6.9.
    pub(in crate::fuse) fn ask_again(&self) -> io::Result<()> {
        const FUSE_NOTIFY_RESEND: u32 = 7;
        self.write(FUSE_NOTIFY_RESEND, &[])
    }

    /// A notice is a `struct fuse_out_header` without a request, and its code in place of an error.
    fn write(&self, code: u32, body: &[u8]) -> io::Result<()> {
        let length = 16 + body.len();
        let Ok(length) = u32::try_from(length) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(code.to_ne_bytes());
        message.extend(0u64.to_ne_bytes());
        message.extend(body);
        rustix::io::write(&self.device, &message)?;
        Ok(())
    }
}

/// Tells the kernel what to forget, until there is nobody left who would know.
///
/// On a thread of its own: the kernel may keep a notice waiting until requests are answered.
pub(in crate::fuse) fn notify(notifier: &Notifier, notices: &std::sync::mpsc::Receiver<Notice>) {
    while let Ok(notice) = notices.recv() {
        // That the kernel does not know what it is to forget is as good.
        let _ = notifier.tell(&notice);
    }
}
