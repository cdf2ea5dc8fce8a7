//! Why a stream was refused, in words both sides share.

use std::{fmt, io};

/// Longest explanation on the wire, in bytes.
const MAX_MESSAGE: usize = 512;

/// The kinds of refusal that keep their meaning across the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Other,
    ConnectionRefused,
    NotFound,
    PermissionDenied,
    TimedOut,
    TooManyStreams,
    Unsupported,
}

impl Reason {
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::ConnectionRefused => 1,
            Self::NotFound => 2,
            Self::PermissionDenied => 3,
            Self::TimedOut => 4,
            Self::TooManyStreams => 5,
            Self::Unsupported => 6,
        }
    }

    /// A reason from a newer peer is still a refusal.
    pub(super) const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::ConnectionRefused,
            2 => Self::NotFound,
            3 => Self::PermissionDenied,
            4 => Self::TimedOut,
            5 => Self::TooManyStreams,
            6 => Self::Unsupported,
            _ => Self::Other,
        }
    }

    const fn kind(self) -> io::ErrorKind {
        match self {
            Self::Other => io::ErrorKind::Other,
            Self::ConnectionRefused => io::ErrorKind::ConnectionRefused,
            Self::NotFound => io::ErrorKind::NotFound,
            Self::PermissionDenied => io::ErrorKind::PermissionDenied,
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::TooManyStreams => io::ErrorKind::ResourceBusy,
            Self::Unsupported => io::ErrorKind::Unsupported,
        }
    }

    const fn from_kind(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ResourceBusy => Self::TooManyStreams,
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Other,
        }
    }
}

/// The peer's answer to an open that it does not grant.
///
/// The message comes from the other side of the link: it is at most 512 bytes and its control
/// characters are replaced, so that it may be shown on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    message: String,
}

impl Refusal {
    /// The refusal that tells of `error`.
    #[must_use]
    pub fn from_error(error: &io::Error) -> Self {
        Self::from_wire(
            Reason::from_kind(error.kind()),
            error.to_string().as_bytes(),
        )
    }

    pub(super) fn from_wire(reason: Reason, message: &[u8]) -> Self {
        let message = String::from_utf8_lossy(&message[..message.len().min(MAX_MESSAGE)]);
        let message = message.replace(char::is_control, "\u{fffd}");
        Self { reason, message }
    }

    pub(super) const fn reason(&self) -> Reason {
        self.reason
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The error kind that a local socket would have given.
    #[must_use]
    pub const fn kind(&self) -> io::ErrorKind {
        self.reason.kind()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.message.is_empty() {
            "no reason given"
        } else {
            &self.message
        })
    }
}
