//! Landlock: what a process may do to files, by the directory that they lie in.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{Directories, calls};
use crate::server::Access;

/// Rights of linux/landlock.h, all that a version of the interface knows.
fn known(abi: u32) -> u64 {
    (1 << match abi {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        // What later versions add is for them to be told of; a right that is not handled is not denied, and
        // none since has to do with files by path.
        _ => 16,
    }) - 1
}

const EXECUTE: u64 = 1;
const READ: u64 = 1 << 2 | 1 << 3;
const IOCTL_DEV: u64 = 1 << 15;

/// Renames and links between directories are refused by the first version, whatever the rules say.
const OLDEST: u32 = 2;

/// Restricts the process to its directories. Gives the version of the interface.
pub(super) fn restrict(directories: &Directories, access: Access) -> io::Result<u32> {
    let abi = calls::landlock_abi()?;
    if abi < OLDEST {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let files = known(abi);
    let ruleset = calls::landlock_create(&calls::Ruleset {
        files,
        // Binding and connecting of TCP.
        net: if abi >= 4 { 0b11 } else { 0 },
        // Abstract unix sockets, and signals to processes outside.
        scoped: if abi >= 6 { 0b11 } else { 0 },
    })?;
    let change = files & !(EXECUTE | IOCTL_DEV);
    let share = match access {
        Access::ReadOnly => READ,
        Access::ReadWrite => change,
    };
    let allow = |directory: &OwnedFd, rights| {
        calls::landlock_allow(ruleset.as_fd(), directory.as_fd(), rights)
    };
    allow(&directories.share, share)?;
    if let Some(side) = &directories.side {
        allow(side, change)?;
    }
    calls::landlock_restrict(ruleset.as_fd())?;
    Ok(abi)
}
