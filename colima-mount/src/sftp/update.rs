//! What is changed about files that are there.

use bytes::Bytes;

use super::{
    Timestamp,
    wire::{Field, Frame, Malformed, byte_enum, fields},
};

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// The time of the host.
    Now,
    /// A given one.
    At(Timestamp),
}

impl Field for NewTime {
    fn put(&self, frame: &mut Frame) {
        match self {
            Self::Now => 0u8.put(frame),
            Self::At(time) => {
                1u8.put(frame);
                time.put(frame);
            }
        }
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        match u8::take(bytes)? {
            0 => Ok(Self::Now),
            1 => Timestamp::take(bytes).map(Self::At),
            _ => Err(Malformed),
        }
    }
}

/// Attributes to be set; those that are `None` stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Bytes.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// The user.
    pub user: Option<u32>,
    /// The group.
    pub group: Option<u32>,
    /// The last access.
    pub accessed: Option<NewTime>,
    /// The last change of the content.
    pub modified: Option<NewTime>,
}

fields!(Update {
    size,
    mode,
    user,
    group,
    accessed,
    modified
});

/// What becomes of a file that has the new name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// It is replaced.
    Replace,
    /// The rename is refused.
    Keep,
    /// It gets the old name.
    Exchange,
}

byte_enum!(Rename { Replace = 0, Keep = 1, Exchange = 2 });

/// What `setxattr` does about an attribute that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

byte_enum!(XattrMode { Set = 0, Create = 1, Replace = 2 });
