//! What a server answers.

use bytes::Bytes;

use super::{
    Attributes, Errno, FileId, Metadata, Timestamp,
    wire::{Field, Frame, Malformed, byte_enum, fields},
};

/// A name of a directory in version 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: Bytes,
    /// The line that `ls -l` would print.
    pub line: Bytes,
    /// Its attributes.
    pub attributes: Attributes,
}

fields!(Name {
    name,
    line,
    attributes
});

/// A reply, without its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done, or failed.
    Status {
        /// A code of version 3, or one of ours: [`Errno::from_wire`].
        status: u32,
        /// A text for people.
        text: Bytes,
    },
    /// The handle of what was opened.
    Handle(Bytes),
    /// Content.
    Data(Bytes),
    /// Names.
    Names(Vec<Name>),
    /// Attributes.
    Attributes(Attributes),
    /// The answer of an extended request, whose form the request decides.
    Extended(Bytes),
}

impl Reply {
    /// The reply of success without content.
    #[must_use]
    pub fn ok() -> Self {
        Self::Status {
            status: 0,
            text: Bytes::from_static(b"ok"),
        }
    }

    /// A structure as the answer of an extended request.
    #[must_use]
    pub fn extended<T: Field>(value: &T) -> Self {
        let mut frame = Frame::new(0);
        value.put(&mut frame);
        Self::Extended(frame.payload().slice(1..))
    }

    /// The reply as a frame.
    #[must_use]
    pub fn encode(self, id: u32) -> Frame {
        let begin = |kind| {
            let mut frame = Frame::new(kind);
            id.put(&mut frame);
            frame
        };
        match self {
            Self::Status { status, text } => {
                let mut frame = begin(101);
                status.put(&mut frame);
                text.put(&mut frame);
                Bytes::new().put(&mut frame); // the language of the text: none
                frame
            }
            Self::Handle(handle) => {
                let mut frame = begin(102);
                handle.put(&mut frame);
                frame
            }
            Self::Data(data) => {
                let mut frame = begin(103);
                frame.put_last(data);
                frame
            }
            Self::Names(names) => {
                let mut frame = begin(104);
                names.put(&mut frame);
                frame
            }
            Self::Attributes(attributes) => {
                let mut frame = begin(105);
                attributes.put(&mut frame);
                frame
            }
            Self::Extended(body) => {
                let mut frame = begin(201);
                frame.put_raw(&body);
                frame
            }
        }
    }

    /// Reads id and reply from a frame without its length.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn decode(mut bytes: Bytes) -> Result<(u32, Self), Malformed> {
        let kind = u8::take(&mut bytes)?;
        let id = u32::take(&mut bytes)?;
        let bytes = &mut bytes;
        let reply = match kind {
            101 => Self::Status {
                status: u32::take(bytes)?,
                // Servers before version 3 sent no text, and some still do not.
                text: Bytes::take(bytes).unwrap_or_default(),
            },
            102 => Self::Handle(Bytes::take(bytes)?),
            103 => Self::Data(Bytes::take(bytes)?),
            104 => Self::Names(Vec::take(bytes)?),
            105 => Self::Attributes(Attributes::take(bytes)?),
            201 => Self::Extended(std::mem::take(bytes)),
            _ => return Err(Malformed),
        };
        Ok((id, reply))
    }

    /// The failure, if it is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Status { status, .. } => Errno::from_wire(*status),
            _ => None,
        }
    }
}

/// The answer of [`Request::OpenFile`](super::Request::OpenFile).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub handle: Bytes,
    /// What was opened.
    pub metadata: Metadata,
    /// The beginning of its content, as much as was asked for and is there.
    pub first: Bytes,
}

fields!(Opened {
    handle,
    metadata,
    first
});

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The last change of the content.
    pub modified: Timestamp,
    /// Bytes.
    pub size: u64,
}

fields!(Version { modified, size });

impl From<&Metadata> for Version {
    fn from(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified,
            size: metadata.size,
        }
    }
}

/// The answer of [`Request::WriteTell`](super::Request::WriteTell).
///
/// When `before` is not what the client knew, somebody else has written, as with the
/// `wcc_data` of NFS ([RFC 1813](https://www.rfc-editor.org/rfc/rfc1813#section-2.6)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Before the write.
    pub before: Version,
    /// After it.
    pub after: Metadata,
}

fields!(Written { before, after });

/// A name with metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Bytes,
    /// Where the listing goes on behind it, for any open handle of the directory.
    pub cookie: u64,
    /// Its metadata; `None` when it could not be read.
    pub metadata: Option<Metadata>,
}

fields!(DirectoryEntry {
    name,
    cookie,
    metadata
});

/// The answer of [`Request::List`](super::Request::List).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names; none when there are no more.
    pub entries: Vec<DirectoryEntry>,
}

impl Listing {
    /// Bytes of a listing, at most: in memory it takes many times as much.
    pub const MAX: usize = 256 * 1024;
}

impl Field for Listing {
    fn put(&self, frame: &mut Frame) {
        self.entries.put(frame);
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        if bytes.len() > Self::MAX {
            return Err(Malformed);
        }
        let entries = Vec::take(bytes)?;
        Ok(Self { entries })
    }
}

/// A name in a watched directory has changed, or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The directory.
    pub directory: FileId,
    /// The name; empty for the directory itself.
    pub name: Bytes,
    /// What has the name now; `None` for nothing.
    pub now: Option<Metadata>,
}

fields!(Change {
    directory,
    name,
    now
});

/// The answer of [`Request::Changes`](super::Request::Changes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Directories that are no longer watched: what is known of them is void.
    pub lost: Vec<FileId>,
    /// Changes.
    pub changes: Vec<Change>,
}

fields!(ChangeSet { lost, changes });

/// What happened to a name in a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// It was made.
    Created,
    /// It was removed.
    Removed,
    /// It was given up for another name, with the same cookie.
    MovedFrom,
    /// It was given to what had another name, with the same cookie.
    MovedTo,
    /// Content was written, or cut.
    Modified,
    /// Attributes were set.
    Attributes,
    /// Names in the directory itself have come or gone.
    Entries,
}

byte_enum!(Happening {
    Created = 1,
    Removed = 2,
    MovedFrom = 3,
    MovedTo = 4,
    Modified = 5,
    Attributes = 6,
    Entries = 7
});

/// What it happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Child {
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

byte_enum!(Child { Directory = 0, Other = 1 });

/// Something that happened in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The directory.
    pub directory: FileId,
    /// The name; empty for the directory itself.
    pub name: Bytes,
    /// What happened.
    pub happening: Happening,
    /// To what.
    pub child: Child,
    /// Pairs the two names of a move; zero for anything else.
    pub cookie: u32,
    /// What has the name now, which may be later than the event; `None` for nothing.
    pub now: Option<Metadata>,
}

fields!(Event {
    directory,
    name,
    happening,
    child,
    cookie,
    now
});

/// How much an answer tells of what there was to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Everything until then.
    #[default]
    All,
    /// More is waiting already.
    Part,
    /// Some was lost, and with it every watch.
    Missed,
}

byte_enum!(Told {
    All = 0,
    Part = 1,
    Missed = 2
});

/// The answer of [`Request::Events`](super::Request::Events).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSet {
    /// Directories that are no longer watched: what is known of them is void.
    pub lost: Vec<FileId>,
    /// How much this is.
    pub told: Told,
    /// Events in their order; what only repeats the one before it is told once.
    pub events: Vec<Event>,
}

fields!(EventSet { lost, told, events });

impl From<EventSet> for ChangeSet {
    fn from(set: EventSet) -> Self {
        let mut seen = std::collections::HashSet::new();
        let changes = set.events.into_iter().filter_map(|event| {
            let change = Change {
                directory: event.directory,
                name: event.name,
                now: event.now,
            };
            seen.insert((change.directory, change.name.clone()))
                .then_some(change)
        });
        Self {
            changes: changes.collect(),
            lost: set.lost,
        }
    }
}

/// The answer of [`Request::Statvfs`](super::Request::Statvfs), in the order of OpenSSH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statvfs {
    /// Bytes of a block.
    pub block_size: u64,
    /// Bytes of a fragment, in which blocks are counted.
    pub fragment_size: u64,
    /// Blocks.
    pub blocks: u64,
    /// Free ones.
    pub blocks_free: u64,
    /// Free ones for everybody.
    pub blocks_available: u64,
    /// Inodes.
    pub files: u64,
    /// Free ones.
    pub files_free: u64,
    /// Free ones for everybody.
    pub files_available: u64,
    /// The file system.
    pub id: u64,
    /// Bit 0: read-only. Bit 1: no setuid.
    pub flags: u64,
    /// Bytes of the longest name.
    pub name_max: u64,
}

fields!(Statvfs {
    block_size,
    fragment_size,
    blocks,
    blocks_free,
    blocks_available,
    files,
    files_free,
    files_available,
    id,
    flags,
    name_max,
});
