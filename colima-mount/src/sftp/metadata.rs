//! What our extensions tell of a file: all that `stat` does.

use super::wire::fields;

/// A moment, in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

fields!(Timestamp {
    seconds,
    nanoseconds
});

/// What a file is, whatever its names are and however often they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The device, as the host numbers them.
    pub device: u64,
    /// The number of the inode on it.
    pub inode: u64,
    /// Differs between two files that had the same number one after another; zero where the file
    /// system keeps no time of birth.
    pub birth: u64,
}

fields!(FileId {
    device,
    inode,
    birth
});

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// All that `stat` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// What the file is.
    pub id: FileId,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Names of it.
    pub links: u32,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Major and minor number of the device that it stands for.
    pub device_major: u32,
    /// The minor one.
    pub device_minor: u32,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes that it takes.
    pub blocks: u64,
    /// The size of reads and writes that suits it.
    pub block_size: u32,
    /// The last access.
    pub accessed: Timestamp,
    /// The last change of the content.
    pub modified: Timestamp,
    /// The last change of content or attributes.
    pub changed: Timestamp,
}

fields!(Metadata {
    id,
    mode,
    links,
    user,
    group,
    device_major,
    device_minor,
    size,
    blocks,
    block_size,
    accessed,
    modified,
    changed,
});

impl Metadata {
    /// The type of the file; a type that no system has counts as a regular file.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        match self.mode & 0o170_000 {
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            0o010_000 => FileKind::Fifo,
            0o140_000 => FileKind::Socket,
            0o020_000 => FileKind::CharacterDevice,
            0o060_000 => FileKind::BlockDevice,
            _ => FileKind::Regular,
        }
    }
}
