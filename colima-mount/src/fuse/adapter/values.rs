//! What the kernel's requests carry and what is told to it, as values of this crate and back.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fuser::{FileAttr, FileType, FopenFlags, Generation, INodeNo, TimeOrNow};

use crate::{
    client::Sending,
    fuse::volume::Open,
    sftp::{Creation, Errno, FileKind, Metadata, NewTime, OpenFlags, Owner, Timestamp},
};

pub(super) fn bytes(name: &OsStr) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

pub(super) fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.number().into())
}

pub(super) fn time(time: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(time.nanoseconds.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    if time.seconds < 0 {
        UNIX_EPOCH - seconds + nanoseconds
    } else {
        UNIX_EPOCH + seconds + nanoseconds
    }
}

pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timestamp {
                    seconds,
                    nanoseconds: 0,
                },
                nanoseconds => Timestamp {
                    seconds: seconds - 1,
                    nanoseconds: 1_000_000_000 - nanoseconds,
                },
            }
        }
    }
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(timestamp(time)),
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A device number as the kernel's FUSE protocol has it: `new_encode_dev` of linux/kdev_t.h.
pub(super) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

pub(super) fn major_minor(device: u32) -> (u32, u32) {
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    )
}

pub(super) fn attributes(ino: u64, metadata: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: metadata.size,
        blocks: metadata.blocks,
        atime: time(metadata.accessed),
        mtime: time(metadata.modified),
        ctime: time(metadata.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(metadata.kind()),
        perm: u16::try_from(metadata.mode & 0o7777).unwrap_or(0),
        nlink: metadata.links,
        uid: metadata.user,
        gid: metadata.group,
        rdev: device(metadata.device_major, metadata.device_minor),
        blksize: metadata.block_size,
        flags: 0,
    }
}

pub(super) fn generation(metadata: &Metadata) -> Generation {
    Generation(metadata.id.birth)
}

pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let mut open = match flags & libc_flags::ACCMODE {
        libc_flags::WRONLY => OpenFlags::WRITE,
        libc_flags::RDWR => OpenFlags::READ | OpenFlags::WRITE,
        _ => OpenFlags::READ,
    };
    for (bit, flag) in [
        (libc_flags::APPEND, OpenFlags::APPEND),
        (libc_flags::TRUNC, OpenFlags::TRUNCATE),
        (libc_flags::EXCL, OpenFlags::EXCLUSIVE),
    ] {
        if flags & bit != 0 {
            open = open | flag;
        }
    }
    open
}

/// The numbers that the kernel's requests carry, from asm-generic/fcntl.h; they are the same on every
/// architecture that this runs on.
mod libc_flags {
    pub(super) const ACCMODE: i32 = 0o3;
    pub(super) const WRONLY: i32 = 0o1;
    pub(super) const RDWR: i32 = 0o2;
    pub(super) const EXCL: i32 = 0o200;
    pub(super) const TRUNC: i32 = 0o1000;
    pub(super) const APPEND: i32 = 0o2000;
}

pub(super) fn fopen(flags: OpenFlags, open: Open) -> FopenFlags {
    let mut fopen = FopenFlags::empty();
    if open.keep {
        fopen |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    // Nothing was written through it, so its close has nothing to say.
    if !flags.changes() {
        fopen |= FopenFlags::FOPEN_NOFLUSH;
    }
    fopen
}

/// Whether the kernel asks again what a process has read that is no more: `FUSE_UNIQUE_RESEND` of
/// linux/fuse.h.
pub(super) fn sending(request: &fuser::Request) -> Sending {
    if u64::from(request.unique()) >> 63 == 1 {
        Sending::Again
    } else {
        Sending::First
    }
}

pub(super) fn creation(request: &fuser::Request, mode: u32) -> Creation {
    Creation {
        mode: mode & 0o7777,
        owner: Some(Owner {
            user: request.uid(),
            group: request.gid(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_on_both_sides_of_1970() {
        for (seconds, nanoseconds) in [(0, 0), (5, 7), (-1, 999_999_999), (-5, 0), (-5, 1)] {
            let there = Timestamp {
                seconds,
                nanoseconds,
            };
            assert_eq!(timestamp(time(there)), there);
        }
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(1, 3), (259, 70_000), (4095, 0xf_ffff)] {
            assert_eq!(major_minor(device(major, minor)), (major, minor));
        }
    }
}
