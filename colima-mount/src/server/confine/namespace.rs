//! A view of the file system with nothing in it but what is served.
//!
//! ```text
//! /                tmpfs, read-only
//! /share           the share, and what is mounted in it
//! /side            the directory of records, if there is one
//! /proc/self/fd    the descriptors of this process: how the server opens again what it holds
//! ```

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};

use super::{Directories, calls};
use crate::server::Access;

const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Moves the process there. When it fails the process sees what it saw.
pub(super) fn enter(directories: &mut Directories, access: Access) -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // Where a host lets its users have the first two and not the others, those are enough: the filter of
    // calls has no sockets either.
    let least = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let more = least | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    calls::unshare(more).or_else(|_| calls::unshare(least))?;
    // user_namespaces(7): without this a user may not map a group.
    std::fs::write("/proc/self/setgroups", "deny")?;
    let map = |file: &str, id: u32| std::fs::write(file, format!("{id} {id} 1"));
    map("/proc/self/uid_map", user.as_raw())?;
    map("/proc/self/gid_map", group.as_raw())?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;

    // Mounts of the namespace that was left cannot be copied: everything is opened again.
    let share = again(&directories.share)?;
    let side = directories.side.as_ref().map(again).transpose()?;
    let shared = copy(share.as_fd(), access)?;
    let kept = side
        .as_ref()
        .map(|side| copy(side.as_fd(), Access::ReadWrite))
        .transpose()?;
    let descriptors = rustix::fs::open(
        "/proc/self/fd",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let descriptors = calls::open_tree(descriptors.as_fd(), 0)?;

    // Any directory will do to mount on: nobody else sees it.
    let place = rustix::fs::readlink(link(&directories.share), Vec::new())?;
    rustix::mount::mount(
        c"tmpfs",
        &place,
        c"tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"size=64k,mode=755",
    )?;
    let top = rustix::fs::open(&place, DIRECTORY, Mode::empty())?;
    put(top.as_fd(), &[c"share"], &shared)?;
    if let Some(kept) = &kept {
        put(top.as_fd(), &[c"side"], kept)?;
    }
    put(
        top.as_fd(),
        &[c"proc", c"proc/self", c"proc/self/fd"],
        &descriptors,
    )?;
    calls::mount_setattr(top.as_fd(), 0, libc::MOUNT_ATTR_RDONLY, 0)?;

    // pivot_root(2), "pivot_root(".", ".")".
    rustix::process::fchdir(&top)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    directories.share = rustix::fs::open(c"/share", DIRECTORY, Mode::empty())?;
    if side.is_some() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directories.side = Some(rustix::fs::open(c"/side", flags, Mode::empty())?);
    }
    Ok(())
}

fn link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a directory by its path, if it is the same one there.
fn again(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let path = rustix::fs::readlink(link(directory), Vec::new())?;
    let found = rustix::fs::open(&path, DIRECTORY, Mode::empty())?;
    let id = |fd: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        Ok::<_, rustix::io::Errno>((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    // The root of the host cannot be mounted over, and nobody serves it.
    if id(found.as_fd())? != id(directory.as_fd())?
        || Path::new("/").as_os_str() == path.to_str().unwrap_or_default()
    {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(found)
}

/// A copy of a directory and all that is mounted in it, to be mounted elsewhere. What the host mounts in
/// it later appears there too, but not in a share that is read-only: it would not be.
fn copy(directory: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
    const AT_RECURSIVE: libc::c_int = 0x8000; // linux/fcntl.h

    let tree = calls::open_tree(directory, AT_RECURSIVE)?;
    let closed = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let (set, propagation) = match access {
        Access::ReadOnly => (closed | libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE),
        Access::ReadWrite => (closed, libc::MS_SLAVE),
    };
    calls::mount_setattr(tree.as_fd(), AT_RECURSIVE, set, propagation)?;
    Ok(tree)
}

/// Makes directories, and mounts a copy on the last.
fn put(top: BorrowedFd<'_>, directories: &[&CStr], tree: &OwnedFd) -> io::Result<()> {
    for directory in directories {
        rustix::fs::mkdirat(top, *directory, Mode::from_raw_mode(0o755))?;
    }
    let last = directories.last().copied().unwrap_or(c".");
    calls::move_mount(tree.as_fd(), top, last)
}
