//! The directory that is served, and the only way to anything in it.
//!
//! No path of a client reaches a system call but through here. A path is resolved in one `openat2`
//! beneath the descriptor of the root, without following any symbolic or magic link
//! ([openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html)), so that nothing that is
//! renamed or replaced meanwhile leads out. Where there is no `openat2` each component is opened
//! by itself with `O_NOFOLLOW`. What is found is held as an `O_PATH` descriptor, and everything else is
//! done to that, or to a name in a directory so held.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno as Raw,
};

use super::{ownership::OURS, path::Beneath};
use crate::sftp::{Errno, FileId, FileKind, Metadata, Timestamp};

/// How paths are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// By `openat2`, in the kernel; Linux 5.6.
    Openat2,
    /// Component by component.
    Components,
}

/// A directory to be served.
///
/// Dropping it closes its descriptor.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// `/proc/self/fd`: how to open again what is held.
    magic: OwnedFd,
    resolver: Resolver,
    device: u64,
}

/// Something beneath the root, held by an `O_PATH` descriptor.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
}

const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Root {
    /// Opens a directory of the host. Links in `path` are followed: it is the caller's word.
    ///
    /// # Errors
    ///
    /// It is no directory, or cannot be opened; or `/proc` is missing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let directory = rustix::fs::open(
            path.as_ref(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Self::from_fd(directory)
    }

    /// Serves a directory that is open already, such as one inherited by a confined process.
    ///
    /// # Errors
    ///
    /// It is no directory, or `/proc` is missing.
    pub fn from_fd(directory: OwnedFd) -> io::Result<Self> {
        let magic = rustix::fs::open(
            c"/proc/self/fd",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Anybody can make a directory of that name; only the kernel makes the file system.
        if rustix::fs::fstatfs(&magic)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "/proc is not mounted",
            ));
        }
        let resolver = match rustix::fs::openat2(
            &directory,
            c".",
            HOLD | OFlags::DIRECTORY,
            Mode::empty(),
            CONFINED,
        ) {
            Ok(_) => Resolver::Openat2,
            Err(Raw::NOSYS | Raw::PERM | Raw::INVAL) => Resolver::Components,
            Err(error) => return Err(error.into()),
        };
        let device = metadata(directory.as_fd())?.id.device;
        Ok(Self {
            directory,
            magic,
            resolver,
            device,
        })
    }

    /// Resolves paths in the given way from now on. A test of the second way; there is no other reason.
    #[must_use]
    pub fn resolved_by(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// What must stay open for it to work.
    #[cfg(target_os = "linux")]
    pub(super) fn descriptors(&self) -> [std::os::fd::RawFd; 2] {
        [self.directory.as_raw_fd(), self.magic.as_raw_fd()]
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.resolver {
            Resolver::Openat2 => self.resolve_at_once(path, flags),
            Resolver::Components => self.resolve_stepwise(path, flags),
        }
    }

    fn resolve_at_once(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // A rename somewhere during the walk gives EAGAIN; a storm of them is no reason to wait for ever.
        for _ in 0..128 {
            match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), CONFINED) {
                Err(Raw::AGAIN | Raw::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(fd) => return Ok(fd),
            }
        }
        Err(Errno::Again)
    }

    fn resolve_stepwise(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut components = path.split(|byte| *byte == b'/').peekable();
        let mut at: Option<OwnedFd> = None;
        while let Some(component) = components.next() {
            // The path was normalised; what would climb is refused here nevertheless.
            if component == b".." {
                return Err(Errno::AccessDenied);
            }
            let directory = at.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
            let step = if components.peek().is_some() {
                HOLD | OFlags::DIRECTORY
            } else {
                flags
            };
            let next = rustix::fs::openat(directory, component, step, Mode::empty());
            // ENOTDIR is what O_DIRECTORY says to a link; openat2 says ELOOP.
            let next = next.map_err(|error| match error {
                Raw::NOTDIR if is_symlink(directory, component) => Errno::Symlink,
                error => error.into(),
            })?;
            at = Some(next);
        }
        at.ok_or(Errno::NotFound)
    }

    /// Holds what a path names; a link itself.
    pub(crate) fn hold(&self, path: &Beneath) -> Result<Node, Errno> {
        let fd = self.resolve(&path.whole(), HOLD)?;
        Ok(Node { fd })
    }

    /// Holds the directory that a path lies in. What is done to the name there follows no link.
    pub(crate) fn hold_parent(&self, path: &Beneath) -> Result<OwnedFd, Errno> {
        self.resolve(path.parent(), HOLD | OFlags::DIRECTORY)
    }

    /// Opens what is held, whatever name it has by now. Only regular files and directories: to open
    /// another kind can block, rewind a tape or wake somebody.
    fn reopen(&self, node: &Node, found: &Metadata, flags: OFlags) -> Result<OwnedFd, Errno> {
        match found.kind() {
            FileKind::Regular | FileKind::Directory => {}
            FileKind::Symlink => return Err(Errno::Symlink),
            _ => return Err(Errno::NoDevice),
        }
        self.check_file_system(node, found)?;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let (directory, name) = self.magic(node.as_fd());
        Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
    }

    /// Opens a directory that is held, to read its names.
    pub(crate) fn open_directory(&self, node: &Node, found: &Metadata) -> Result<OwnedFd, Errno> {
        self.reopen(node, found, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The magic link of this process to what is held: what system calls without a form for `O_PATH`
    /// take.
    pub(super) fn magic(&self, fd: BorrowedFd<'_>) -> (BorrowedFd<'_>, String) {
        (self.magic.as_fd(), fd.as_raw_fd().to_string())
    }

    /// Whether the file system is one whose files are doors into the kernel.
    fn check_file_system(&self, node: &Node, found: &Metadata) -> Result<(), Errno> {
        if found.id.device == self.device {
            return Ok(());
        }
        // From linux/magic.h: proc, sysfs, debugfs, tracefs, securityfs, bpf, cgroup, cgroup2, fusectl.
        const DOORS: [u64; 9] = [
            0x9fa0,
            0x6265_6572,
            0x6462_6720,
            0x7472_6163,
            0x7363_6673,
            0xcafe_4a11,
            0x0027_e0eb,
            0x6367_7270,
            0x6573_5543,
        ];
        let kind = rustix::fs::fstatfs(&node.fd)?.f_type;
        #[expect(clippy::cast_sign_loss, reason = "a pattern of bits")]
        let kind = kind as u64 & 0xffff_ffff;
        if DOORS.contains(&kind) {
            return Err(Errno::NotPermitted);
        }
        Ok(())
    }
}

const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

fn is_symlink(directory: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
}

impl Node {
    pub(crate) fn metadata(&self) -> Result<Metadata, Errno> {
        metadata(self.fd.as_fd())
    }

    pub(crate) fn readlink(&self) -> Result<Vec<u8>, Errno> {
        let text = rustix::fs::readlinkat(&self.fd, c"", Vec::new());
        // To a file that is no link the kernel says ENOENT here, and EINVAL to readlink(2).
        let text = text.map_err(|error| {
            if error == Raw::NOENT {
                Raw::INVAL
            } else {
                error
            }
        })?;
        Ok(text.into_bytes())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What `statx` tells of an open file.
pub(crate) fn metadata(fd: BorrowedFd<'_>) -> Result<Metadata, Errno> {
    metadata_at(fd, b"", AtFlags::EMPTY_PATH)
}

/// What `statx` tells of a name in a directory; of a link itself.
pub(crate) fn metadata_of(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Metadata, Errno> {
    metadata_at(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn metadata_at(fd: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Metadata, Errno> {
    let stat = rustix::fs::statx(
        fd,
        name,
        flags | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    let time = |time: rustix::fs::StatxTimestamp| Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    };
    let birth = if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
        0
    } else {
        #[expect(clippy::cast_sign_loss, reason = "it only has to differ")]
        let seconds = stat.stx_btime.tv_sec as u64;
        seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(stat.stx_btime.tv_nsec.into())
    };
    Ok(Metadata {
        id: FileId {
            device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth,
        },
        mode: stat.stx_mode.into(),
        links: stat.stx_nlink,
        user: stat.stx_uid,
        group: stat.stx_gid,
        device_major: stat.stx_rdev_major,
        device_minor: stat.stx_rdev_minor,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        block_size: stat.stx_blksize,
        accessed: time(stat.stx_atime),
        modified: time(stat.stx_mtime),
        changed: time(stat.stx_ctime),
    })
}

mod changing;
mod keeping;

pub(crate) use changing::{Masking, Removal, Writable};

/// Names of extended attributes that clients may see and set: those of users, which the kernel gives
/// no meaning. The others carry privileges (`security.capability`), are the host's own, or are ours.
fn user_attribute(name: &[u8]) -> Result<&[u8], Errno> {
    if name.contains(&0) {
        return Err(Errno::Invalid);
    }
    if !name.starts_with(b"user.") || name.starts_with(OURS) {
        return Err(Errno::NotSupported);
    }
    Ok(name)
}

impl Root {
    /// The name in `/proc` of something held, for the calls on extended attributes and watches, which
    /// take no descriptor of this kind.
    pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    pub(crate) fn get_xattr(at: &str, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = user_attribute(name)?;
        // The kernel's limit of a value is 64 KiB.
        let mut value = Vec::with_capacity(64 * 1024);
        rustix::fs::getxattr(at, name, rustix::buffer::spare_capacity(&mut value))?;
        Ok(value)
    }

    pub(crate) fn list_xattr(at: &str) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::with_capacity(64 * 1024);
        rustix::fs::listxattr(at, rustix::buffer::spare_capacity(&mut names))?;
        let users = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| name.starts_with(b"user.") && !name.starts_with(OURS));
        Ok(users.flatten().copied().collect())
    }
}
