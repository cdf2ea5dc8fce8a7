//! The protocol: SFTP version 3, the extensions of OpenSSH, and our own, as bytes and values.
//!
//! No I/O is done here. A packet is a length, a type, an id and fields
//! ([draft-ietf-secsh-filexfer-02](https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02));
//! the extensions of OpenSSH are in its file `PROTOCOL`, section 4. Names and paths are bytes.
//! Nothing is allocated for a length that the bytes at hand do not cover.
//!
//! # Our extensions
//!
//! A server that has them announces [`OURS`] in its `SSH_FXP_VERSION`, and uses them only with a client
//! that announced it in its `SSH_FXP_INIT`. To such a client
//!
//! * a status is [`Errno::wire`], which keeps the error number of the host,
//! * frames may have [`MAX_FRAME`] bytes, in both directions,
//! * the requests whose names end in `@colima-mount` are served: they carry [`Metadata`] with nanoseconds
//!   and an identity that outlives a rename, list names together with it, make special nodes, and
//!   tell of changes on the host ([`Request::Changes`] is answered when there is something to tell, as is
//!   [`Request::Events`], which also says what happened; who knows only one of them has no other).
//!
//! Everybody else sees an ordinary server of version 3.

mod attributes;
mod creation;
mod errno;
mod metadata;
mod reply;
mod request;
mod update;
mod wire;

pub use attributes::{Attributes, Seconds};
pub use creation::{Creation, NewNode, OpenFlags, Owner};
pub use errno::{Code, Errno};
pub use metadata::{FileId, FileKind, Metadata, Timestamp};
pub use reply::{
    Change, ChangeSet, Child, DirectoryEntry, Event, EventSet, Happening, Listing, Name, Opened,
    Reply, Statvfs, Told, Version, Written,
};
pub use request::{Request, Target};
pub use update::{NewTime, Rename, Update, XattrMode};
pub use wire::{Field, Frame, Malformed};

use bytes::Bytes;

/// The version of the protocol.
pub const VERSION: u32 = 3;
/// Bytes of a frame behind its length, as OpenSSH limits them.
pub const MAX_STOCK_FRAME: usize = 256 * 1024;
/// Bytes of a frame behind its length between two ends that have our extensions.
pub const MAX_FRAME: usize = MAX_PAYLOAD + 64 * 1024;
/// Bytes of file content in one read or write between two ends that have our extensions.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Bytes of file content in one read or write of anybody else.
pub const MAX_STOCK_PAYLOAD: usize = MAX_STOCK_FRAME - 1024;
/// The extension that stands for all of ours, and its version.
pub const OURS: (&[u8], &[u8]) = (b"colima@colima-mount", b"1");

/// The extension by which a client that reconnects is known to its server: it names what differs between
/// any two clients. What an earlier stream of the same client has begun is finished, or given up, before
/// a new one is answered.
pub const CLIENT: &[u8] = b"client@colima-mount";

/// The first packet of each side, the only ones without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the side speaks.
    pub version: u32,
    /// Names and data of extensions.
    pub extensions: Vec<(Bytes, Bytes)>,
}

/// Which of the two hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `SSH_FXP_INIT`.
    Client,
    /// `SSH_FXP_VERSION`.
    Server,
}

impl Hello {
    /// Whether the side has our extensions.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        (self.extensions.iter()).any(|(name, data)| (&name[..], &data[..]) == OURS)
    }

    /// The data of an extension.
    #[must_use]
    pub fn extension(&self, name: &[u8]) -> Option<&Bytes> {
        let mut extensions = self.extensions.iter();
        extensions.find_map(|(there, data)| (&there[..] == name).then_some(data))
    }

    /// The hello as a frame.
    #[must_use]
    pub fn encode(&self, side: Side) -> Frame {
        let mut frame = Frame::new(match side {
            Side::Client => 1,
            Side::Server => 2,
        });
        self.version.put(&mut frame);
        for (name, data) in &self.extensions {
            name.put(&mut frame);
            data.put(&mut frame);
        }
        frame
    }

    /// Reads the hello of `side` from a frame without its length.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn decode(side: Side, mut bytes: Bytes) -> Result<Self, Malformed> {
        let expected = match side {
            Side::Client => 1,
            Side::Server => 2,
        };
        if u8::take(&mut bytes)? != expected {
            return Err(Malformed);
        }
        let version = u32::take(&mut bytes)?;
        let mut extensions = Vec::new();
        while !bytes.is_empty() {
            extensions.push((Bytes::take(&mut bytes)?, Bytes::take(&mut bytes)?));
        }
        Ok(Self {
            version,
            extensions,
        })
    }
}
