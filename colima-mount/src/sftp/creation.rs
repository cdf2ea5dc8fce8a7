//! How files are opened, and what new ones are.

use bytes::Bytes;

use super::wire::{Field, Frame, Malformed, fields};

/// How a file is to be opened: the bits of `SSH_FXP_OPEN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(u32);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(1);
    /// For writing.
    pub const WRITE: Self = Self(2);
    /// Writes go to the end, whatever their offset.
    pub const APPEND: Self = Self(4);
    /// Made if it is not there.
    pub const CREATE: Self = Self(8);
    /// Emptied if it is there.
    pub const TRUNCATE: Self = Self(16);
    /// Refused if it is there.
    pub const EXCLUSIVE: Self = Self(32);

    /// Whether all of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What of it an open file keeps; the rest is done by the open.
    pub(crate) fn lasting(self) -> Self {
        Self(self.0 & (Self::READ.0 | Self::WRITE.0 | Self::APPEND.0))
    }

    /// Whether the open can change anything.
    #[must_use]
    pub fn changes(self) -> bool {
        self.0 & !Self::READ.0 != 0
    }
}

impl std::ops::BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Field for OpenFlags {
    fn put(&self, frame: &mut Frame) {
        self.0.put(frame);
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        match u32::take(bytes)? {
            bits @ 0..64 => Ok(Self(bits)),
            _ => Err(Malformed),
        }
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

fields!(Owner { user, group });

/// What a new file is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Permission bits, exactly: no mask of the server's process is applied.
    pub mode: u32,
    /// Its owner, where the server may give files away; silently the server's own user elsewhere.
    pub owner: Option<Owner>,
}

fields!(Creation { mode, owner });

/// A node that is not a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewNode {
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A socket that nobody listens on.
    Socket,
    /// A character device.
    CharacterDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A symbolic link; its target is stored as it is and never followed.
    Symlink {
        /// What it says.
        target: Bytes,
    },
    /// An empty regular file.
    Regular,
}

impl NewNode {
    /// Whether it is a pipe, a socket or a device.
    #[must_use]
    pub fn is_special(&self) -> bool {
        match self {
            Self::Fifo | Self::Socket | Self::CharacterDevice { .. } | Self::BlockDevice { .. } => {
                true
            }
            Self::Directory | Self::Symlink { .. } | Self::Regular => false,
        }
    }
}

impl Field for NewNode {
    fn put(&self, frame: &mut Frame) {
        match self {
            Self::Directory => 1u8.put(frame),
            Self::Fifo => 2u8.put(frame),
            Self::Socket => 3u8.put(frame),
            Self::CharacterDevice { major, minor } => {
                4u8.put(frame);
                major.put(frame);
                minor.put(frame);
            }
            Self::BlockDevice { major, minor } => {
                5u8.put(frame);
                major.put(frame);
                minor.put(frame);
            }
            Self::Symlink { target } => {
                6u8.put(frame);
                target.put(frame);
            }
            Self::Regular => 7u8.put(frame),
        }
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        Ok(match u8::take(bytes)? {
            1 => Self::Directory,
            2 => Self::Fifo,
            3 => Self::Socket,
            4 => Self::CharacterDevice {
                major: u32::take(bytes)?,
                minor: u32::take(bytes)?,
            },
            5 => Self::BlockDevice {
                major: u32::take(bytes)?,
                minor: u32::take(bytes)?,
            },
            6 => Self::Symlink {
                target: Bytes::take(bytes)?,
            },
            7 => Self::Regular,
            _ => return Err(Malformed),
        })
    }
}
