//! Why a request failed: error numbers, and what becomes of them in version 3.

use std::io;

/// Status codes of version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// Nothing more to read.
    Eof = 1,
    /// No such file.
    NoSuchFile = 2,
    /// Not allowed.
    PermissionDenied = 3,
    /// Anything else.
    Failure = 4,
    /// The packet made no sense.
    BadMessage = 5,
    /// The request is not served here.
    OpUnsupported = 8,
}

/// Above this, a status of our extensions is an error number.
const OURS: u32 = 0x4000_0000;

macro_rules! errnos {
    ($($name:ident $number:literal $code:ident $text:literal, $($errno:ident)|+;)*) => {
        /// The error of a file operation.
        ///
        /// The numbers are those of Linux, on whatever host. What has no entry is
        /// [`Errno::Io`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Errno {
            $(#[doc = $text] $name,)*
        }

        impl Errno {
            /// Every error there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its number on Linux.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number),* }
            }

            /// What a client without our extensions is told.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code),* }
            }

            /// The text of the status: never a path, a name or a word of the host.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }

        impl From<rustix::io::Errno> for Errno {
            fn from(errno: rustix::io::Errno) -> Self {
                match errno {
                    $($(rustix::io::Errno::$errno)|+ => Self::$name,)*
                    _ => Self::Io,
                }
            }
        }

        impl From<Errno> for rustix::io::Errno {
            fn from(errno: Errno) -> Self {
                // The first of several names is the one to give back.
                match errno { $(Errno::$name => [$(rustix::io::Errno::$errno),+][0]),* }
            }
        }
    };
}

errnos! {
    NotPermitted 1 PermissionDenied "operation not permitted", PERM;
    NotFound 2 NoSuchFile "no such file or directory", NOENT;
    Interrupted 4 Failure "interrupted", INTR;
    Io 5 Failure "input/output error", IO;
    NoDevice 6 Failure "no such device or address", NXIO;
    TooBigArgument 7 Failure "argument too long", TOOBIG;
    BadHandle 9 NoSuchFile "bad file handle", BADF;
    Again 11 Failure "temporarily unavailable", AGAIN;
    NoMemory 12 Failure "out of memory", NOMEM;
    AccessDenied 13 PermissionDenied "permission denied", ACCESS;
    Fault 14 PermissionDenied "bad address", FAULT;
    Busy 16 Failure "busy", BUSY;
    Exists 17 Failure "file exists", EXIST;
    CrossDevice 18 Failure "cross-device link", XDEV;
    NotThisDevice 19 Failure "no such device", NODEV;
    NotADirectory 20 NoSuchFile "not a directory", NOTDIR;
    IsADirectory 21 Failure "is a directory", ISDIR;
    Invalid 22 BadMessage "invalid argument", INVAL;
    TooManyFilesOfSystem 23 Failure "too many open files in the system", NFILE;
    TooManyFiles 24 Failure "too many open files", MFILE;
    NotATty 25 Failure "inappropriate operation", NOTTY;
    TextBusy 26 Failure "text file busy", TXTBSY;
    TooBig 27 Failure "file too large", FBIG;
    NoSpace 28 Failure "no space left", NOSPC;
    IllegalSeek 29 Failure "illegal seek", SPIPE;
    ReadOnly 30 PermissionDenied "read-only share", ROFS;
    TooManyLinks 31 Failure "too many links", MLINK;
    BrokenPipe 32 Failure "broken pipe", PIPE;
    Range 34 Failure "result too large", RANGE;
    Deadlock 35 Failure "deadlock", DEADLK;
    NameTooLong 36 BadMessage "name too long", NAMETOOLONG;
    Unsupported 38 OpUnsupported "not supported", NOSYS;
    NotEmpty 39 Failure "directory not empty", NOTEMPTY;
    Symlink 40 NoSuchFile "a symbolic link is in the way", LOOP;
    NoData 61 Failure "no such attribute", NODATA;
    BadMessage 74 BadMessage "bad message", BADMSG;
    Overflow 75 Failure "value too large", OVERFLOW;
    NotSupported 95 Failure "operation not supported", OPNOTSUPP;
    NotConnected 107 Failure "the connection is gone", NOTCONN;
    TimedOut 110 Failure "timed out", TIMEDOUT;
    Stale 116 NoSuchFile "stale file", STALE;
    Quota 122 Failure "quota exceeded", DQUOT;
}

impl Errno {
    /// The status that keeps the number, for a client with our extensions.
    #[must_use]
    pub fn wire(self) -> u32 {
        OURS | u32::from(self.number())
    }

    /// The error that a status stands for; `None` when it stands for success.
    ///
    /// Codes of version 3 become the error that is least wrong.
    #[must_use]
    pub fn from_wire(status: u32) -> Option<Self> {
        if status & OURS != 0 {
            let number = status & !OURS;
            let same = |errno: &&Self| u32::from(errno.number()) == number;
            return Some(Self::ALL.iter().find(same).copied().unwrap_or(Self::Io));
        }
        match status {
            0 => None,
            2 => Some(Self::NotFound),
            3 => Some(Self::AccessDenied),
            5 => Some(Self::Invalid),
            6 | 7 => Some(Self::NotConnected),
            8 => Some(Self::Unsupported),
            _ => Some(Self::Io),
        }
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        rustix::io::Errno::from_io_error(&error).map_or(Self::Io, Self::from)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        rustix::io::Errno::from(errno).into()
    }
}
