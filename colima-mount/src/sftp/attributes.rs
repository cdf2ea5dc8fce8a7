//! The attributes of version 3: a set of flags, and the fields that it names.

use bytes::Bytes;

use super::{
    Metadata,
    wire::{Field, Frame, Malformed, fields},
};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// Times of version 3: whole seconds since 1970, until 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds {
    /// Of the last access.
    pub accessed: u32,
    /// Of the last change of the content.
    pub modified: u32,
}

fields!(Seconds { accessed, modified });

/// What is known, or to be set, of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Type and permission bits, as in `st_mode`.
    pub mode: Option<u32>,
    /// Times.
    pub times: Option<Seconds>,
    /// Names and data of extensions; nobody sends them.
    pub extended: Vec<(Bytes, Bytes)>,
}

impl Field for Attributes {
    fn put(&self, frame: &mut Frame) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        let flags = flag(self.size.is_some(), SIZE)
            | flag(self.owner.is_some(), OWNER)
            | flag(self.mode.is_some(), PERMISSIONS)
            | flag(self.times.is_some(), TIMES)
            | flag(!self.extended.is_empty(), EXTENDED);
        flags.put(frame);
        if let Some(size) = self.size {
            size.put(frame);
        }
        if let Some((user, group)) = self.owner {
            user.put(frame);
            group.put(frame);
        }
        if let Some(mode) = self.mode {
            mode.put(frame);
        }
        if let Some(times) = self.times {
            times.put(frame);
        }
        if !self.extended.is_empty() {
            u32::try_from(self.extended.len())
                .unwrap_or(u32::MAX)
                .put(frame);
            for (name, data) in &self.extended {
                name.put(frame);
                data.put(frame);
            }
        }
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let flags = u32::take(bytes)?;
        if flags & !(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED) != 0 {
            return Err(Malformed);
        }
        let mut attributes = Self::default();
        if flags & SIZE != 0 {
            attributes.size = Some(u64::take(bytes)?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((u32::take(bytes)?, u32::take(bytes)?));
        }
        if flags & PERMISSIONS != 0 {
            attributes.mode = Some(u32::take(bytes)?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some(Seconds::take(bytes)?);
        }
        if flags & EXTENDED != 0 {
            // Each pair has eight bytes at least, so a count beyond them ends in an error soon.
            for _ in 0..u32::take(bytes)? {
                let pair = (Bytes::take(bytes)?, Bytes::take(bytes)?);
                attributes.extended.push(pair);
            }
        }
        Ok(attributes)
    }
}

impl From<&Metadata> for Attributes {
    fn from(metadata: &Metadata) -> Self {
        // Times before 1970 and after 2106 have no form in version 3; the nearest one is told.
        let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        Self {
            size: Some(metadata.size),
            owner: Some((metadata.user, metadata.group)),
            mode: Some(metadata.mode),
            times: Some(Seconds {
                accessed: seconds(metadata.accessed.seconds),
                modified: seconds(metadata.modified.seconds),
            }),
            extended: Vec::new(),
        }
    }
}
