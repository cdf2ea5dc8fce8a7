//! What the host cannot hold is kept, where clients may have it so ([`Ownership::Beside`]).
//!
//! [`Ownership::Beside`]: crate::server::Ownership::Beside

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, UTIME_OMIT};

use super::{Masking, Node, Writable, metadata, metadata_of};
use crate::{
    server::{
        Share,
        ownership::{Beside, Place, Wanted, stripped},
        path::Beneath,
    },
    sftp::{Creation, Errno, FileKind, Metadata, NewNode, Owner, Update},
};

impl Share {
    /// Opens what is held for reading, if it is a file or a directory for clients too.
    pub(crate) fn open_to_read(&self, node: &Node) -> Result<OwnedFd, Errno> {
        match self.writable() {
            Ok(writable) => writable.reopen(node, OFlags::RDONLY),
            Err(_) => self.root.reopen(node, &self.see(node)?, OFlags::RDONLY),
        }
    }
}

impl Writable<'_> {
    /// Opens what is held. A file whose mode keeps the server's user out is opened all the same where
    /// modes are kept beside it: the mode was meant for others.
    pub(super) fn reopen(self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        let seen = self.share.see(node)?;
        let opened = match (self.root.reopen(node, &seen, flags), self.share.beside()) {
            (Err(Errno::AccessDenied), Some(beside)) => {
                let host = node.metadata()?;
                beside.lift(&host, node.as_fd(), |mode| self.chmod(node.as_fd(), mode))?;
                self.root.reopen(node, &seen, flags)
            }
            (opened, _) => opened,
        }?;
        if flags.contains(OFlags::TRUNC) {
            self.strip(opened.as_fd())?;
        }
        Ok(opened)
    }

    /// What is written to runs with nobody's rights. Gives what clients saw of it, if that is kept here.
    pub(super) fn strip(self, fd: BorrowedFd<'_>) -> Result<Option<Metadata>, Errno> {
        let Some(beside) = self.share.beside() else {
            return Ok(None);
        };
        let host = metadata(fd)?;
        let seen = beside.seen(host, Place::Fd(fd));
        if let Some(wanted) = Beside::written(&seen) {
            beside.make(&host, fd, &wanted, |mode| self.chmod(fd, mode))?;
        }
        Ok(Some(seen))
    }

    /// Sets owner and mode as clients see them.
    pub(super) fn keep(self, fd: BorrowedFd<'_>, update: &Update) -> Result<(), Errno> {
        let Some(beside) = self.share.beside() else {
            return Ok(());
        };
        if update.user.is_none() && update.group.is_none() && update.mode.is_none() {
            return Ok(());
        }
        // The highest number means "leave it" to the kernel, and no owner.
        if update.user == Some(u32::MAX) || update.group == Some(u32::MAX) {
            return Err(Errno::Invalid);
        }
        let host = metadata(fd)?;
        let seen = beside.seen(host, Place::Fd(fd));
        let mut wanted = Wanted::from(&seen);
        if update.user.is_some() || update.group.is_some() {
            wanted = Wanted::from(&stripped(&seen));
            wanted.user = update.user.unwrap_or(seen.user);
            wanted.group = update.group.unwrap_or(seen.group);
        }
        if let Some(mode) = update.mode {
            if seen.kind() == FileKind::Symlink {
                return Err(Errno::NotSupported);
            }
            wanted.mode = mode & 0o7777;
        }
        beside.make(&host, fd, &wanted, |mode| self.chmod(fd, mode))?;
        // What the host did not see changed all the same, and its time tells so.
        if metadata(fd)?.changed == host.changed {
            let same = Timestamps {
                last_access: Timespec {
                    tv_sec: host.accessed.seconds,
                    tv_nsec: host.accessed.nanoseconds.into(),
                },
                last_modification: Timespec {
                    tv_sec: 0,
                    tv_nsec: UTIME_OMIT,
                },
            };
            // Another's file has its own time.
            let _ = rustix::fs::utimensat(fd, c"", &same, AtFlags::EMPTY_PATH);
        }
        Ok(())
    }

    /// Gives a new file its owner and mode; in a setgid directory, as clients see it, the group of the
    /// directory, which their kernel leaves to the server.
    pub(super) fn keep_new(
        self,
        path: &Beneath,
        fd: BorrowedFd<'_>,
        node: &NewNode,
        creation: Creation,
    ) -> Result<(), Errno> {
        let Some(beside) = self.share.beside() else {
            return Ok(());
        };
        let host = metadata(fd)?;
        let seen = beside.seen(host, Place::Fd(fd));
        let mut owner = creation.owner.unwrap_or(Owner {
            user: seen.user,
            group: seen.group,
        });
        let mut mode = creation.mode;
        let parent = self.share.see(&self.root.hold_parent(path)?)?;
        if parent.mode & 0o2000 != 0 {
            owner.group = parent.group;
            if *node == NewNode::Directory {
                mode |= 0o2000;
            }
        }
        if let NewNode::Symlink { .. } = node {
            mode = host.mode;
        }
        let wanted = Wanted::new(owner, mode, node);
        match beside.make(&host, fd, &wanted, |mode| self.chmod(fd, mode)) {
            // Nobody keeps owners of links: it stays the server's own.
            Err(Errno::NotPermitted) if !node.is_special() => Ok(()),
            result => result,
        }
    }

    /// Makes a node that is an empty regular file on the host.
    pub(super) fn make_special(
        self,
        path: &Beneath,
        node: &NewNode,
        creation: Creation,
    ) -> Result<(), Errno> {
        let bare = Creation {
            mode: 0o600,
            owner: None,
        };
        let fd = self.create(path, OFlags::RDWR, bare, Masking::Process)?;
        let kept = self.keep_new(path, fd.as_fd(), node, creation);
        if kept.is_err() {
            // An empty file is not what was asked for.
            let parent = self.root.hold_parent(path)?;
            let there = metadata_of(parent.as_fd(), path.name()).map(|there| there.id);
            if there == metadata(fd.as_fd()).map(|made| made.id) {
                let _ = rustix::fs::unlinkat(&parent, path.name(), AtFlags::empty());
            }
        }
        kept
    }

    /// What has a name that is about to be lost, if somebody would remember it.
    pub(super) fn remembered(self, directory: BorrowedFd<'_>, name: &[u8]) -> Option<Metadata> {
        let beside = self.share.beside()?;
        if !beside.remembers() {
            return None;
        }
        metadata_of(directory, name).ok()
    }

    pub(super) fn forget(self, gone: Option<Metadata>) {
        if let (Some(beside), Some(gone)) = (self.share.beside(), gone) {
            beside.forget(&gone);
        }
    }
}
