//! What can go wrong, named after what failed.

use std::{io, path::PathBuf, time::Duration};

use colima_core::Endpoint;

/// Why a socket could not be made, a link does not work or a stream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The directory of a socket cannot be used.
    #[error("cannot use {path} as the directory of a socket")]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory of a socket is open to other users, who could replace the socket.
    #[error("{path} is not a directory that only its owner, user {user}, can enter (mode 0700)")]
    SocketDirectoryNotPrivate {
        /// The directory.
        path: PathBuf,
        /// The user that this process runs as.
        user: u32,
    },
    /// The path has no file name, or does not fit a socket address on this system.
    #[error("{path} cannot be the path of a socket: the limit is {limit} bytes")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Bytes of a path that a socket address holds.
        limit: usize,
    },
    /// Somebody answers at the socket that was to be made.
    #[error("{path} is in use: a running process accepts connections there")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a dead socket of ours is in the way; it is never removed.
    #[error("{path} exists and is not a socket of user {user}")]
    SocketOccupied {
        /// What is in the way.
        path: PathBuf,
        /// The user that this process runs as.
        user: u32,
    },
    /// The socket could not be made.
    #[error("cannot listen on {path}")]
    SocketBind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The byte stream below the multiplexer failed.
    #[error("the link failed")]
    Link {
        /// What the byte stream said.
        source: io::Error,
    },
    /// The byte stream below the multiplexer could not be opened.
    #[error("the link could not be opened")]
    Dial {
        /// What the dialer said.
        source: io::Error,
    },
    /// The byte stream below the multiplexer ended.
    #[error("the link was closed by the other side")]
    LinkEnded,
    /// The peer began a new session: it was restarted.
    #[error("the other side of the link was restarted")]
    PeerRestarted,
    /// Nothing that is alive answered on the link.
    #[error("nobody answered on the link within {after:?}")]
    NoAnswer {
        /// How long the handshake was tried.
        after: Duration,
    },
    /// The peer stopped answering pings.
    #[error("the other side of the link has been silent for {after:?}")]
    PeerSilent {
        /// How long.
        after: Duration,
    },
    /// The peer speaks no version of the protocol that this side speaks.
    #[error("the other side of the link speaks no common version of the protocol")]
    Version,
    /// The peer broke the rules of the protocol.
    #[error("the other side of the link broke the protocol: {violation}")]
    Violation {
        /// Which rule.
        violation: Violation,
    },
    /// The link was closed by this side.
    #[error("the link is closed")]
    Closed,
    /// The link was not up in time.
    #[error("no link to open {endpoint} over within {after:?}")]
    LinkDown {
        /// What was to be opened.
        endpoint: Endpoint,
        /// How long was waited.
        after: Duration,
    },
    /// The peer did not answer an open in time.
    #[error("{endpoint} was not opened within {after:?}")]
    OpenTimedOut {
        /// What was to be opened.
        endpoint: Endpoint,
        /// How long was waited.
        after: Duration,
    },
    /// The peer refused an open.
    #[error("{endpoint} was refused: {message}")]
    Refused {
        /// What was to be opened.
        endpoint: Endpoint,
        /// The kind of error that a local socket would have given.
        kind: io::ErrorKind,
        /// The peer's words, without control characters.
        message: String,
    },
    /// As many streams are open as the configuration allows.
    #[error("{limit} streams are open already")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The endpoint has no form on the wire: a name above 1,024 bytes, or a kind unknown to it.
    #[error("{endpoint} cannot be told to the other side of the link")]
    Endpoint {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// The system gave no random bytes.
    #[error("no random numbers for a handshake")]
    Random {
        /// What the system said.
        source: io::Error,
    },
}

/// A rule of the multiplexer's protocol that a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It sent bytes that are no frame.
    #[error("unintelligible frame")]
    Frame,
    /// It sent more on a stream than it had credit for.
    #[error("stream {stream} was sent more than its credit")]
    Credit {
        /// The stream.
        stream: u32,
    },
    /// It sent a frame that the state of the stream does not allow.
    #[error("frame out of place on stream {stream}")]
    OutOfPlace {
        /// The stream.
        stream: u32,
    },
    /// It opened streams although this side takes none, or far above the limit.
    #[error("unwanted opening of stream {stream}")]
    Open {
        /// The stream.
        stream: u32,
    },
}

impl NetError {
    /// The error kind that a local socket would have given.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::SocketDirectory { source, .. }
            | Self::SocketBind { source, .. }
            | Self::Link { source }
            | Self::Dial { source }
            | Self::Random { source } => source.kind(),
            Self::SocketDirectoryNotPrivate { .. } => io::ErrorKind::PermissionDenied,
            Self::SocketPath { .. } | Self::Endpoint { .. } => io::ErrorKind::InvalidInput,
            Self::SocketInUse { .. } => io::ErrorKind::AddrInUse,
            Self::SocketOccupied { .. } => io::ErrorKind::AlreadyExists,
            Self::LinkEnded | Self::PeerRestarted | Self::PeerSilent { .. } => {
                io::ErrorKind::ConnectionReset
            }
            Self::NoAnswer { .. } | Self::LinkDown { .. } | Self::Closed => {
                io::ErrorKind::NotConnected
            }
            Self::OpenTimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Version => io::ErrorKind::Unsupported,
            Self::Violation { .. } => io::ErrorKind::InvalidData,
            Self::Refused { kind, .. } => *kind,
            Self::TooManyStreams { .. } => io::ErrorKind::ResourceBusy,
        }
    }
}

impl From<NetError> for io::Error {
    fn from(error: NetError) -> Self {
        Self::new(error.kind(), error)
    }
}
