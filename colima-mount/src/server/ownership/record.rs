//! What is kept of a file that its host cannot hold, as a value and as bytes.

use crate::sftp::{FileKind, Metadata};

/// What a file is for clients and is not on the host; what is `None` is as the host has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: Option<Mode>,
    pub(crate) special: Option<Special>,
}

/// Permission bits, and those that the host had when they were set: when it has others now, somebody
/// on the host has changed them since, and the host is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) seen: u16,
    pub(crate) host: u16,
}

/// A special node, which is an empty regular file on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Fifo,
    Socket,
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// The first byte. Another version is none of ours and counts as nothing.
const VERSION: u8 = 1;
/// An owner that no file has: as the host has it.
const NOBODY: u32 = u32::MAX;
/// Modes end at 0o7777.
const NO_MODE: u16 = u16::MAX;

impl Record {
    /// Bytes of a record.
    pub(crate) const LENGTH: usize = 22;

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn encode(&self) -> [u8; Self::LENGTH] {
        let (kind, major, minor) = match self.special {
            None => (0, 0, 0),
            Some(Special::Fifo) => (1, 0, 0),
            Some(Special::Socket) => (2, 0, 0),
            Some(Special::CharacterDevice { major, minor }) => (3, major, minor),
            Some(Special::BlockDevice { major, minor }) => (4, major, minor),
        };
        let mode = self.mode.unwrap_or(Mode {
            seen: NO_MODE,
            host: NO_MODE,
        });
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = VERSION;
        bytes[1] = kind;
        bytes[2..4].copy_from_slice(&mode.seen.to_be_bytes());
        bytes[4..6].copy_from_slice(&mode.host.to_be_bytes());
        for (place, number) in [
            (6, self.user.unwrap_or(NOBODY)),
            (10, self.group.unwrap_or(NOBODY)),
            (14, major),
            (18, minor),
        ] {
            bytes[place..place + 4].copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads a record. Anybody on the host can have written the bytes: what this crate would not have
    /// written is `None`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let owner = |at| Some(long(at)).filter(|owner| *owner != NOBODY);
        let (major, minor) = (long(14), long(18));
        let special = match bytes[1] {
            0 => None,
            1 => Some(Special::Fifo),
            2 => Some(Special::Socket),
            3 => Some(Special::CharacterDevice { major, minor }),
            4 => Some(Special::BlockDevice { major, minor }),
            _ => return None,
        };
        let mode = match (short(2), short(4)) {
            (NO_MODE, NO_MODE) => None,
            (seen @ 0..=0o7777, host @ 0..=0o7777) => Some(Mode { seen, host }),
            _ => return None,
        };
        let record = Self {
            user: owner(6),
            group: owner(10),
            mode,
            special,
        };
        // One value has one form: a version, or numbers where none belong, are not ours.
        (record.encode() == *bytes).then_some(record)
    }

    /// What a client sees of a file that the host has as `host`.
    pub(crate) fn over(&self, mut host: Metadata) -> Metadata {
        const TYPE: u32 = 0o170_000;

        if let Some(user) = self.user {
            host.user = user;
        }
        if let Some(group) = self.group {
            host.group = group;
        }
        let real = host.mode;
        if let Some(mode) = self.mode
            && u32::from(mode.host) == real & 0o7777
        {
            host.mode = real & TYPE | u32::from(mode.seen);
        }
        // A file that somebody has written to on the host is a file.
        if let Some(special) = self.special
            && host.kind() == FileKind::Regular
            && host.size == 0
        {
            let (kind, major, minor) = match special {
                Special::Fifo => (0o010_000, 0, 0),
                Special::Socket => (0o140_000, 0, 0),
                Special::CharacterDevice { major, minor } => (0o020_000, major, minor),
                Special::BlockDevice { major, minor } => (0o060_000, major, minor),
            };
            host.mode = host.mode & !TYPE | kind;
            (host.device_major, host.device_minor) = (major, minor);
        }
        host
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let special = prop_oneof![
            Just(None),
            Just(Some(Special::Fifo)),
            Just(Some(Special::Socket)),
            any::<(u32, u32)>()
                .prop_map(|(major, minor)| Some(Special::CharacterDevice { major, minor })),
            any::<(u32, u32)>()
                .prop_map(|(major, minor)| Some(Special::BlockDevice { major, minor })),
        ];
        let mode = proptest::option::of((0..=0o7777u16, 0..=0o7777u16));
        let owner = || proptest::option::of(0..u32::MAX);
        (owner(), owner(), mode, special).prop_map(|(user, group, mode, special)| Record {
            user,
            group,
            mode: mode.map(|(seen, host)| Mode { seen, host }),
            special,
        })
    }

    proptest! {
        #[test]
        fn a_record_survives(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn bytes_of_somebody_else_are_nothing_or_have_one_form(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            version in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = VERSION;
                bytes.resize(Record::LENGTH, 0);
            }
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(&record.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn the_host_is_right_about_what_it_has_changed_since() {
        let mode = Some(Mode {
            seen: 0o4711,
            host: 0o711,
        });
        let record = Record {
            mode,
            special: Some(Special::Fifo),
            ..Record::default()
        };
        let host = |mode, size| Metadata {
            mode,
            size,
            ..Metadata::default()
        };
        assert_eq!(record.over(host(0o100_711, 0)).mode, 0o014_711);
        assert_eq!(record.over(host(0o100_644, 0)).mode, 0o010_644, "a chmod");
        assert_eq!(record.over(host(0o100_711, 1)).mode, 0o104_711, "a write");
        assert_eq!(
            record.over(host(0o040_711, 0)).mode,
            0o044_711,
            "another file"
        );
    }
}
