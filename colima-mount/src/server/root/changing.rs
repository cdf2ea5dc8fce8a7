//! Everything that changes what is beneath the root.
//!
//! All of it is methods of [`Writable`], and a share that is read-only has none: there is no flag to
//! forget.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawMode, RenameFlags, Timespec,
        Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
    },
    io::Errno as Raw,
};

use super::{CONFINED, Node, Resolver, Root, metadata, metadata_of};
use crate::{
    server::{Share, path::Beneath},
    sftp::{
        Creation, Errno, FileKind, Metadata, NewNode, NewTime, OpenFlags, Owner, Rename, Update,
        XattrMode,
    },
};

/// A root that may be changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writable<'a> {
    pub(super) share: &'a Share,
    pub(super) root: &'a Root,
}

/// Whether the mask of the server's process applies to the mode of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masking {
    /// As the system calls do.
    Process,
    /// The mode is the one asked for.
    Exact,
}

/// The bits of a mode that a client may set: a setuid program that belongs to the server's user is a way
/// into its account for anybody on the host.
pub(super) fn permitted(mode: u32) -> RawMode {
    mode & 0o1777
}

impl<'a> Writable<'a> {
    pub(crate) fn of(share: &'a Share, _: super::super::WriteAccess) -> Self {
        let root = &share.root;
        Self { share, root }
    }

    /// Opens a file, and makes it first if `creation` is given and it is not there.
    pub(crate) fn open(
        self,
        path: &Beneath,
        flags: OpenFlags,
        creation: Option<(Creation, Masking)>,
    ) -> Result<OwnedFd, Errno> {
        let mut open = match (flags.has(OpenFlags::READ), flags.has(OpenFlags::WRITE)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        if flags.has(OpenFlags::APPEND) {
            open |= OFlags::APPEND;
        }
        // Somebody may remove or make the file between the two steps, but not for ever.
        for _ in 0..64 {
            if let Some((creation, masking)) = creation {
                match self.create(path, open, creation, masking) {
                    Err(Errno::Exists) if !flags.has(OpenFlags::EXCLUSIVE) => {}
                    result => return result,
                }
            }
            let node = match self.root.hold(path) {
                Err(Errno::NotFound) if creation.is_some() => continue,
                result => result?,
            };
            let mut open = open;
            if flags.has(OpenFlags::TRUNCATE) {
                open |= OFlags::TRUNC;
            }
            return self.reopen(&node, open);
        }
        Err(Errno::Again)
    }

    pub(super) fn create(
        self,
        path: &Beneath,
        open: OFlags,
        creation: Creation,
        masking: Masking,
    ) -> Result<OwnedFd, Errno> {
        if path.is_root() {
            return Err(Errno::Exists);
        }
        let mode = Mode::from_raw_mode(permitted(creation.mode));
        let open = open | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let parent;
        let fd = if self.root.resolver == Resolver::Openat2 {
            // One walk: the parent is resolved as strictly as the rest.
            loop {
                match rustix::fs::openat2(&self.root.directory, path.whole(), open, mode, CONFINED)
                {
                    Err(Raw::AGAIN | Raw::INTR) => {}
                    // With O_EXCL a link in the last place exists, and that is all there is to it.
                    Err(Raw::LOOP) => {
                        parent = self.root.hold_parent(path)?;
                        break rustix::fs::openat(&parent, path.name(), open, mode)?;
                    }
                    result => break result?,
                }
            }
        } else {
            parent = self.root.hold_parent(path)?;
            rustix::fs::openat(&parent, path.name(), open, mode)?
        };
        if masking == Masking::Exact && self.share.beside().is_some() {
            self.keep_new(path, fd.as_fd(), &NewNode::Regular, creation)?;
        } else if masking == Masking::Exact {
            let found = metadata(fd.as_fd())?;
            if let Some(owner) = creation.owner {
                give(fd.as_fd(), b"", &found, owner)?;
            }
            if found.mode & 0o7777 != permitted(creation.mode) {
                rustix::fs::fchmod(&fd, mode)?;
            }
        }
        Ok(fd)
    }

    /// Makes a node.
    pub(crate) fn make(
        self,
        path: &Beneath,
        node: &NewNode,
        creation: Creation,
        masking: Masking,
    ) -> Result<(), Errno> {
        if path.is_root() {
            return Err(Errno::Exists);
        }
        if *node == NewNode::Regular {
            self.create(path, OFlags::WRONLY, creation, masking)?;
            return Ok(());
        }
        if self.share.beside().is_some() && node.is_special() {
            return self.make_special(path, node, creation);
        }
        let parent = self.root.hold_parent(path)?;
        let name = path.name();
        let mode = Mode::from_raw_mode(permitted(creation.mode));
        let special = |kind, device| rustix::fs::mknodat(&parent, name, kind, mode, device);
        let device = |major: u32, minor: u32| rustix::fs::makedev(major, minor);
        match node {
            NewNode::Directory => rustix::fs::mkdirat(&parent, name, mode)?,
            NewNode::Fifo => special(FileType::Fifo, 0)?,
            NewNode::Socket => special(FileType::Socket, 0)?,
            NewNode::CharacterDevice { major, minor } => {
                special(FileType::CharacterDevice, device(*major, *minor))?;
            }
            NewNode::BlockDevice { major, minor } => {
                special(FileType::BlockDevice, device(*major, *minor))?;
            }
            NewNode::Symlink { target } => {
                if target.contains(&0) {
                    return Err(Errno::Invalid);
                }
                rustix::fs::symlinkat(&target[..], &parent, name)?;
            }
            NewNode::Regular => {}
        }
        if masking == Masking::Exact {
            self.finish(path, parent.as_fd(), node, creation)?;
        }
        Ok(())
    }

    /// Gives a new node its owner and exact mode.
    fn finish(
        self,
        path: &Beneath,
        parent: BorrowedFd<'_>,
        node: &NewNode,
        creation: Creation,
    ) -> Result<(), Errno> {
        let fd = rustix::fs::openat(parent, path.name(), super::HOLD, Mode::empty())?;
        let made = Node { fd };
        let found = made.metadata()?;
        let kind = match node {
            NewNode::Directory => FileKind::Directory,
            NewNode::Fifo => FileKind::Fifo,
            NewNode::Socket => FileKind::Socket,
            NewNode::CharacterDevice { .. } => FileKind::CharacterDevice,
            NewNode::BlockDevice { .. } => FileKind::BlockDevice,
            NewNode::Symlink { .. } => FileKind::Symlink,
            NewNode::Regular => FileKind::Regular,
        };
        // Somebody on the host put another file in its place: that one is not ours to give away.
        let ours = found.kind() == kind
            && found.user == rustix::process::geteuid().as_raw()
            && (kind == FileKind::Directory || found.links == 1);
        if !ours {
            return Ok(());
        }
        if self.share.beside().is_some() {
            return self.keep_new(path, made.as_fd(), node, creation);
        }
        if let Some(owner) = creation.owner {
            give(made.as_fd(), b"", &found, owner)?;
        }
        // What the kernel adds in a setgid directory stays.
        let wanted = permitted(creation.mode) | found.mode & 0o2000;
        if kind != FileKind::Symlink && found.mode & 0o7777 != wanted {
            self.chmod(made.as_fd(), wanted)?;
        }
        Ok(())
    }

    pub(super) fn chmod(self, fd: BorrowedFd<'_>, mode: RawMode) -> Result<(), Errno> {
        let (directory, name) = self.root.magic(fd);
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::chmodat(
            directory,
            name,
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Sets attributes of what is held; of a link itself. When one cannot be set the others are, as
    /// OpenSSH does it.
    pub(crate) fn set(self, node: &Node, update: &Update) -> Result<(), Errno> {
        let size = update.size.map(|size| {
            let found = node.metadata()?;
            if found.kind() == FileKind::Directory {
                return Err(Errno::IsADirectory);
            }
            let file = self.reopen(node, OFlags::WRONLY)?;
            self.strip(file.as_fd())?;
            truncate(file.as_fd(), size)
        });
        if self.share.beside().is_some() {
            let kept = self.keep(node.as_fd(), update);
            let times = set_times(node.as_fd(), update);
            return last_error([size.unwrap_or(Ok(())), kept, times, Ok(())]);
        }
        let owner = set_owner(node.as_fd(), update);
        let mode = update
            .mode
            .map(|mode| self.chmod(node.as_fd(), self.kept_bits(node.as_fd(), mode)?));
        let times = set_times(node.as_fd(), update);
        last_error([size.unwrap_or(Ok(())), mode.unwrap_or(Ok(())), times, owner])
    }

    /// Sets attributes of an open file, which may have no name any more.
    pub(crate) fn set_open(self, fd: BorrowedFd<'_>, update: &Update) -> Result<(), Errno> {
        let size = update.size.map(|size| {
            self.strip(fd)?;
            truncate(fd, size)
        });
        if self.share.beside().is_some() {
            let kept = self.keep(fd, update);
            let times = set_times(fd, update);
            return last_error([size.unwrap_or(Ok(())), kept, times, Ok(())]);
        }
        let owner = set_owner(fd, update);
        let mode = update.mode.map(|mode| {
            let mode = Mode::from_raw_mode(self.kept_bits(fd, mode)?);
            Ok(rustix::fs::fchmod(fd, mode)?)
        });
        let times = set_times(fd, update);
        last_error([size.unwrap_or(Ok(())), mode.unwrap_or(Ok(())), times, owner])
    }

    /// The permitted bits of a mode. A setgid directory passes its group on and runs nothing, so that
    /// bit is left as the host has it.
    fn kept_bits(self, fd: BorrowedFd<'_>, mode: u32) -> Result<RawMode, Errno> {
        let found = metadata(fd)?;
        let directory = found.kind() == FileKind::Directory;
        let kept = if directory {
            found.mode & mode & 0o2000
        } else {
            0
        };
        Ok(permitted(mode) | kept)
    }

    pub(crate) fn remove(self, path: &Beneath, kind: Removal) -> Result<(), Errno> {
        if path.is_root() {
            return Err(Errno::Busy);
        }
        let parent = self.root.hold_parent(path)?;
        let flags = match kind {
            Removal::Directory => AtFlags::REMOVEDIR,
            Removal::Other => AtFlags::empty(),
        };
        let gone = self.remembered(parent.as_fd(), path.name());
        rustix::fs::unlinkat(&parent, path.name(), flags)?;
        self.forget(gone);
        Ok(())
    }

    pub(crate) fn rename(self, from: &Beneath, to: &Beneath, how: Rename) -> Result<(), Errno> {
        if from.is_root() || to.is_root() {
            return Err(Errno::Busy);
        }
        let (old, new) = (self.root.hold_parent(from)?, self.root.hold_parent(to)?);
        let flags = match how {
            Rename::Replace => RenameFlags::empty(),
            Rename::Keep => RenameFlags::NOREPLACE,
            Rename::Exchange => RenameFlags::EXCHANGE,
        };
        let gone = match how {
            Rename::Replace => self.remembered(new.as_fd(), to.name()),
            Rename::Keep | Rename::Exchange => None,
        };
        match rustix::fs::renameat_with(&old, from.name(), &new, to.name(), flags) {
            // A file system without the flag: look, then rename.
            Err(Raw::INVAL) if how == Rename::Keep => {
                match metadata_of(new.as_fd(), to.name()) {
                    Ok(_) => return Err(Errno::Exists),
                    Err(Errno::NotFound) => {}
                    Err(error) => return Err(error),
                }
                Ok(rustix::fs::renameat(&old, from.name(), &new, to.name())?)
            }
            result => {
                result?;
                self.forget(gone);
                Ok(())
            }
        }
    }

    /// Makes a second name of what a path names; of a link itself.
    pub(crate) fn link(self, from: &Beneath, to: &Beneath) -> Result<(), Errno> {
        let (old, new) = (self.root.hold_parent(from)?, self.root.hold_parent(to)?);
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(
            &old,
            from.name(),
            &new,
            to.name(),
            flags,
        )?)
    }

    /// Makes a second name of an open file.
    pub(crate) fn link_open(self, file: BorrowedFd<'_>, to: &Beneath) -> Result<(), Errno> {
        use std::os::fd::AsRawFd as _;

        let new = self.root.hold_parent(to)?;
        let name = file.as_raw_fd().to_string();
        let flags = AtFlags::SYMLINK_FOLLOW;
        Ok(rustix::fs::linkat(
            &self.root.magic,
            name,
            &new,
            to.name(),
            flags,
        )?)
    }

    pub(crate) fn set_xattr(
        self,
        at: &str,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let flags = match mode {
            XattrMode::Set => XattrFlags::empty(),
            XattrMode::Create => XattrFlags::CREATE,
            XattrMode::Replace => XattrFlags::REPLACE,
        };
        Ok(rustix::fs::setxattr(
            at,
            super::user_attribute(name)?,
            value,
            flags,
        )?)
    }

    pub(crate) fn remove_xattr(self, at: &str, name: &[u8]) -> Result<(), Errno> {
        Ok(rustix::fs::removexattr(at, super::user_attribute(name)?)?)
    }

    /// Writes, and gives what clients saw of the file before.
    pub(crate) fn write(
        self,
        fd: BorrowedFd<'_>,
        mut offset: u64,
        mut data: &[u8],
    ) -> Result<Metadata, Errno> {
        // What runs with the rights of its owner must not run what a client wrote. The kernel sees to
        // that unless this process is privileged.
        let before = match self.strip(fd)? {
            Some(before) => before,
            None => {
                let found = metadata(fd)?;
                if found.mode & 0o6000 != 0 {
                    rustix::fs::fchmod(fd, Mode::from_raw_mode(permitted(found.mode)))?;
                }
                found
            }
        };
        loop {
            match rustix::io::pwrite(fd, data, offset) {
                Err(Raw::INTR) => {}
                Err(error) => return Err(error.into()),
                // Nothing is written like anything else: whether that is allowed the kernel says.
                Ok(_) if data.is_empty() => return Ok(before),
                Ok(0) => return Err(Errno::NoSpace),
                Ok(written) => {
                    data = &data[written..];
                    offset += written as u64;
                    if data.is_empty() {
                        return Ok(before);
                    }
                }
            }
        }
    }

    pub(crate) fn allocate(
        self,
        fd: BorrowedFd<'_>,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::NotSupported)?;
        Ok(rustix::fs::fallocate(fd, mode, offset, length)?)
    }
}

/// What is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// An empty directory.
    Directory,
    /// Anything else.
    Other,
}

fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
    if i64::try_from(size).is_err() {
        return Err(Errno::Invalid);
    }
    Ok(rustix::fs::ftruncate(fd, size)?)
}

/// Gives a new file to its owner. A server that is not root cannot, and the file stays its own.
fn give(fd: BorrowedFd<'_>, name: &[u8], found: &Metadata, owner: Owner) -> Result<(), Errno> {
    if (found.user, found.group) == (owner.user, owner.group) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    match rustix::fs::chownat(fd, name, Some(user), Some(group), AtFlags::EMPTY_PATH) {
        Ok(()) | Err(Raw::PERM | Raw::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn last_error(results: [Result<(), Errno>; 4]) -> Result<(), Errno> {
    results
        .into_iter()
        .rev()
        .find(Result::is_err)
        .unwrap_or(Ok(()))
}

fn set_owner(fd: BorrowedFd<'_>, update: &Update) -> Result<(), Errno> {
    if update.user.is_none() && update.group.is_none() {
        return Ok(());
    }
    // The highest number means "leave it" to the kernel, and no owner.
    if update.user == Some(u32::MAX) || update.group == Some(u32::MAX) {
        return Err(Errno::Invalid);
    }
    let user = update.user.map(Uid::from_raw);
    let group = update.group.map(Gid::from_raw);
    Ok(rustix::fs::chownat(
        fd,
        c"",
        user,
        group,
        AtFlags::EMPTY_PATH,
    )?)
}

fn set_times(fd: BorrowedFd<'_>, update: &Update) -> Result<(), Errno> {
    if update.accessed.is_none() && update.modified.is_none() {
        return Ok(());
    }
    let time = |time: Option<NewTime>| match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(NewTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(NewTime::At(time)) => Timespec {
            tv_sec: time.seconds,
            // Beyond a second it would be one of the marks above.
            tv_nsec: time.nanoseconds.min(999_999_999).into(),
        },
    };
    let times = Timestamps {
        last_access: time(update.accessed),
        last_modification: time(update.modified),
    };
    Ok(rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)?)
}
