//! What a client asks.

use bytes::Bytes;

use super::{
    Attributes, Creation, NewNode, OpenFlags, Rename, Update, XattrMode,
    wire::{Field, Frame, Malformed},
};

/// A file that is named by its path, or held open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its path; a symbolic link itself, not what it points to.
    Path(Bytes),
    /// By the handle of an open file or directory.
    Handle(Bytes),
}

impl Field for Target {
    fn put(&self, frame: &mut Frame) {
        let (byte, bytes) = match self {
            Self::Path(path) => (1u8, path),
            Self::Handle(handle) => (2u8, handle),
        };
        byte.put(frame);
        bytes.put(frame);
    }

    fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
        match u8::take(bytes)? {
            1 => Bytes::take(bytes).map(Self::Path),
            2 => Bytes::take(bytes).map(Self::Handle),
            _ => Err(Malformed),
        }
    }
}

const EXTENDED: u8 = 200;

macro_rules! requests {
    (
        plain { $($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? })* }
        extended { $($(#[$xdoc:meta])* $xname:ident = $xkind:literal { $($(#[$xfdoc:meta])* $xfield:ident: $xtype:ty),* $(,)? })* }
    ) => {
        /// A request, without its id. Paths name a symbolic link itself unless it says otherwise.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[$doc])* $name { $($(#[$fdoc])* $field: $type),* },)*
            $($(#[$xdoc])* $xname { $($(#[$xfdoc])* $xfield: $xtype),* },)*
            /// Content to be written.
            Write {
                /// The open file.
                handle: Bytes,
                /// Where.
                offset: u64,
                /// The content.
                data: Bytes,
            },
            /// Content to be written, answered with [`Written`](super::Written).
            WriteTell {
                /// The open file.
                handle: Bytes,
                /// Where.
                offset: u64,
                /// The content.
                data: Bytes,
            },
            /// A request that this crate does not know.
            Unknown {
                /// The type of its packet.
                kind: u8,
            },
        }

        impl Request {
            /// The names of all extended requests that are known.
            pub const EXTENSIONS: &[&str] = &[$($xkind,)* WRITE_TELL];

            /// The request as a frame.
            #[must_use]
            pub fn encode(&self, id: u32) -> Frame {
                match self {
                    $(Self::$name { $($field),* } => {
                        let mut frame = Frame::new($kind);
                        id.put(&mut frame);
                        $($field.put(&mut frame);)*
                        frame
                    })*
                    $(Self::$xname { $($xfield),* } => {
                        #[allow(unused_mut, clippy::allow_attributes, reason = "one has no fields")]
                        let mut frame = extended(id, $xkind);
                        $($xfield.put(&mut frame);)*
                        frame
                    })*
                    Self::Write { handle, offset, data } => {
                        let mut frame = Frame::new(6);
                        id.put(&mut frame);
                        handle.put(&mut frame);
                        offset.put(&mut frame);
                        frame.put_last(data.clone());
                        frame
                    }
                    Self::WriteTell { handle, offset, data } => {
                        let mut frame = extended(id, WRITE_TELL);
                        handle.put(&mut frame);
                        offset.put(&mut frame);
                        frame.put_last(data.clone());
                        frame
                    }
                    Self::Unknown { kind } => {
                        let mut frame = Frame::new(*kind);
                        id.put(&mut frame);
                        frame
                    }
                }
            }

            /// Reads id and request from a frame without its length. Bytes behind the last field
            /// are ignored, as OpenSSH does.
            ///
            /// # Errors
            ///
            /// The id, if there is one, of a packet that makes no sense.
            pub fn decode(mut bytes: Bytes) -> Result<(u32, Self), (Option<u32>, Malformed)> {
                let kind = u8::take(&mut bytes).map_err(|error| (None, error))?;
                let id = u32::take(&mut bytes).map_err(|error| (None, error))?;
                match Self::decode_body(kind, &mut bytes) {
                    Ok(request) => Ok((id, request)),
                    Err(error) => Err((Some(id), error)),
                }
            }

            fn decode_body(kind: u8, bytes: &mut Bytes) -> Result<Self, Malformed> {
                Ok(match kind {
                    $($kind => Self::$name { $($field: Field::take(bytes)?),* },)*
                    6 => Self::Write {
                        handle: Field::take(bytes)?,
                        offset: Field::take(bytes)?,
                        data: Field::take(bytes)?,
                    },
                    EXTENDED => {
                        let name = Bytes::take(bytes)?;
                        match std::str::from_utf8(&name) {
                            $(Ok($xkind) => Self::$xname { $($xfield: Field::take(bytes)?),* },)*
                            Ok(WRITE_TELL) => Self::WriteTell {
                                handle: Field::take(bytes)?,
                                offset: Field::take(bytes)?,
                                data: Field::take(bytes)?,
                            },
                            _ => Self::Unknown { kind },
                        }
                    }
                    _ => Self::Unknown { kind },
                })
            }
        }
    };
}

const WRITE_TELL: &str = "write@colima-mount";

fn extended(id: u32, name: &str) -> Frame {
    let mut frame = Frame::new(EXTENDED);
    id.put(&mut frame);
    Bytes::copy_from_slice(name.as_bytes()).put(&mut frame);
    frame
}

requests! {
    plain {
        /// A file to be opened.
        Open = 3 {
            /// Its path; a symbolic link is refused.
            path: Bytes,
            /// How.
            flags: OpenFlags,
            /// Its mode, if it is made.
            attributes: Attributes,
        }
        /// A handle to be given back.
        Close = 4 {
            /// The handle.
            handle: Bytes,
        }
        /// Content wanted.
        Read = 5 {
            /// The open file.
            handle: Bytes,
            /// Where.
            offset: u64,
            /// Bytes at most.
            length: u32,
        }
        /// Attributes wanted, of a link itself.
        Lstat = 7 {
            /// The path.
            path: Bytes,
        }
        /// Attributes wanted, of an open file.
        Fstat = 8 {
            /// The open file.
            handle: Bytes,
        }
        /// Attributes to be set.
        Setstat = 9 {
            /// The path.
            path: Bytes,
            /// Which.
            attributes: Attributes,
        }
        /// Attributes to be set on an open file.
        Fsetstat = 10 {
            /// The open file.
            handle: Bytes,
            /// Which.
            attributes: Attributes,
        }
        /// A directory to be opened.
        Opendir = 11 {
            /// The path.
            path: Bytes,
        }
        /// The next names of a directory wanted.
        Readdir = 12 {
            /// The open directory.
            handle: Bytes,
        }
        /// A file to be removed.
        Remove = 13 {
            /// The path.
            path: Bytes,
        }
        /// A directory to be made.
        Mkdir = 14 {
            /// The path.
            path: Bytes,
            /// Its mode.
            attributes: Attributes,
        }
        /// An empty directory to be removed.
        Rmdir = 15 {
            /// The path.
            path: Bytes,
        }
        /// The absolute form of a path wanted.
        Realpath = 16 {
            /// The path.
            path: Bytes,
        }
        /// Attributes wanted.
        Stat = 17 {
            /// The path.
            path: Bytes,
        }
        /// A rename that never replaces.
        Rename = 18 {
            /// The old path.
            from: Bytes,
            /// The new path.
            to: Bytes,
        }
        /// The text of a symbolic link wanted.
        Readlink = 19 {
            /// The link.
            path: Bytes,
        }
        /// A symbolic link to be made; the order is OpenSSH's, not the draft's.
        Symlink = 20 {
            /// What it says.
            target: Bytes,
            /// The link.
            path: Bytes,
        }
    }
    extended {
        /// A rename that replaces.
        PosixRename = "posix-rename@openssh.com" {
            /// The old path.
            from: Bytes,
            /// The new path.
            to: Bytes,
        }
        /// Space and limits of a file system wanted.
        Statvfs = "statvfs@openssh.com" {
            /// A path on it.
            path: Bytes,
        }
        /// Space and limits of a file system wanted.
        Fstatvfs = "fstatvfs@openssh.com" {
            /// An open file on it.
            handle: Bytes,
        }
        /// A second name to be made.
        Hardlink = "hardlink@openssh.com" {
            /// The name there is.
            from: Bytes,
            /// The new one.
            to: Bytes,
        }
        /// Content to be made durable.
        Fsync = "fsync@openssh.com" {
            /// The open file.
            handle: Bytes,
        }
        /// Attributes to be set on a link itself.
        Lsetstat = "lsetstat@openssh.com" {
            /// The path.
            path: Bytes,
            /// Which.
            attributes: Attributes,
        }
        /// The limits of the server wanted.
        Limits = "limits@openssh.com" {}

        /// Metadata wanted.
        Look = "look@colima-mount" {
            /// Of what.
            target: Target,
        }
        /// A file to be opened, answered with handle and metadata.
        OpenFile = "open@colima-mount" {
            /// Its path.
            path: Bytes,
            /// How; whether it is made says the next field.
            flags: OpenFlags,
            /// What it is given if it is made.
            creation: Option<Creation>,
            /// Bytes of its beginning that are wanted with the answer.
            first: u32,
        }
        /// The next names of a directory wanted, with metadata.
        List = "list@colima-mount" {
            /// The open directory.
            handle: Bytes,
            /// The cookie to go on from, zero for the beginning; `None` for where it is.
            from: Option<u64>,
            /// Bytes of the answer, at most.
            budget: u32,
        }
        /// A node to be made, answered with its metadata.
        Make = "make@colima-mount" {
            /// Its path.
            path: Bytes,
            /// What it is.
            node: NewNode,
            /// What it is given.
            creation: Creation,
        }
        /// A second name to be made, answered with metadata.
        Link = "link@colima-mount" {
            /// The file.
            from: Target,
            /// The new name.
            to: Bytes,
        }
        /// Attributes to be set, answered with metadata.
        Set = "set@colima-mount" {
            /// Of what.
            target: Target,
            /// Which.
            update: Update,
        }
        /// A rename.
        Move = "move@colima-mount" {
            /// The old path.
            from: Bytes,
            /// The new path.
            to: Bytes,
            /// What becomes of a file that is there.
            rename: Rename,
        }
        /// An extended attribute wanted.
        GetXattr = "getxattr@colima-mount" {
            /// Of what.
            target: Target,
            /// Its name.
            name: Bytes,
        }
        /// The names of the extended attributes wanted, each with a zero behind it.
        ListXattr = "listxattr@colima-mount" {
            /// Of what.
            target: Target,
        }
        /// An extended attribute to be set.
        SetXattr = "setxattr@colima-mount" {
            /// Of what.
            target: Target,
            /// Its name.
            name: Bytes,
            /// Its value.
            value: Bytes,
            /// What about one that is there.
            mode: XattrMode,
        }
        /// An extended attribute to be removed.
        RemoveXattr = "removexattr@colima-mount" {
            /// Of what.
            target: Target,
            /// Its name.
            name: Bytes,
        }
        /// Changes in a directory are to be told from now on; answered with its metadata.
        Watch = "watch@colima-mount" {
            /// The directory.
            path: Bytes,
        }
        /// Changes wanted; answered when there are some.
        Changes = "changes@colima-mount" {}
        /// As before, with what happened, in order. One of the two is served at a time.
        Events = "events@colima-mount" {}
        /// Space of a range of a file to be reserved or given back, as `fallocate` does.
        Allocate = "allocate@colima-mount" {
            /// The open file.
            handle: Bytes,
            /// The mode of `fallocate` on Linux.
            mode: u32,
            /// Where.
            offset: u64,
            /// Bytes.
            length: u64,
        }
    }
}
