//! What can go wrong between a client and an ssh server.

use std::{io, path::PathBuf, time::Duration};

use colima_core::Endpoint;

use super::Fingerprint;

/// Why there is no session, no stream or no output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The byte stream to the server could not be opened.
    #[error("cannot reach the ssh server")]
    Dial {
        /// What the dialer said.
        source: io::Error,
    },
    /// The system gave no socket pair or thread for a session.
    #[error("cannot start an ssh session")]
    Start {
        /// What the system said.
        source: io::Error,
    },
    /// The server did not come to the end of the handshake and the login.
    #[error("the ssh server did not finish the handshake within {after:?}")]
    HandshakeTimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// What answers is no ssh server, or none that shares an algorithm with us.
    #[error("the ssh handshake failed: {message}")]
    Handshake {
        /// What libssh2 said.
        message: String,
    },
    /// The server is not the one that was pinned: another machine, a new installation, or an attack.
    #[error("the ssh server has the key {seen}, and {pinned} is pinned")]
    HostKeyMismatch {
        /// The key that the server proved to have.
        seen: Fingerprint,
        /// The key of [`Login::host_key`](super::Login::host_key).
        pinned: Fingerprint,
    },
    /// The server does not let the user in.
    #[error("the ssh server does not let {user:?} in: {message}")]
    Authentication {
        /// The user.
        user: String,
        /// What libssh2 said.
        message: String,
    },
    /// The file of the private key cannot be read.
    #[error("cannot read the private key {path}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ssh agent does not work.
    #[error("the ssh agent at {path} does not answer as one: {message}")]
    Agent {
        /// Its socket.
        path: PathBuf,
        /// What libssh2 said.
        message: String,
    },
    /// No session came about before the deadline.
    #[error("no ssh session within {after:?}")]
    Down {
        /// How long was tried.
        after: Duration,
        /// Why the last attempt failed.
        source: Box<SshError>,
    },
    /// The session broke.
    #[error("the ssh session broke: {message}")]
    Session {
        /// What libssh2 said.
        message: String,
    },
    /// The server stopped answering.
    #[error("the ssh server has been silent for {after:?}")]
    PeerSilent {
        /// How long.
        after: Duration,
    },
    /// The server refused a stream.
    #[error("{target} was refused: {message}")]
    Refused {
        /// What was to be opened.
        target: String,
        /// The nearest kind of error of a local socket; ssh does not tell a missing socket from
        /// one that nobody listens on.
        kind: io::ErrorKind,
        /// The reason, in libssh2's words.
        message: String,
    },
    /// The server did not answer an open in time.
    #[error("{target} was not opened within {after:?}")]
    OpenTimedOut {
        /// What was to be opened.
        target: String,
        /// How long was waited.
        after: Duration,
    },
    /// As many streams are open as the configuration allows.
    #[error("{limit} streams are open already")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The endpoint has no form in ssh: a path that is no UTF-8, or a kind unknown to it.
    #[error("{endpoint} cannot be told to an ssh server")]
    Endpoint {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// The command has no form in ssh.
    #[error("the command cannot be told to an ssh server: {reason}")]
    Command {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server's user has no such program.
    #[error("{program:?} is no program that the user at the ssh server can run")]
    NoSuchProgram {
        /// The first word of the command.
        program: String,
    },
    /// The login shell of the server's user did not start the command.
    #[error("the login shell did not start the command, it said: {said:?}")]
    NotStarted {
        /// The beginning of its output.
        said: String,
    },
    /// The command printed more than [`LARGEST_OUTPUT`](super::LARGEST_OUTPUT), and was killed.
    #[error("the command printed more than {limit} bytes")]
    TooMuchOutput {
        /// The limit, per stream.
        limit: usize,
    },
}

impl SshError {
    /// The error kind that a local socket would have given.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Dial { source } | Self::Start { source } | Self::KeyFile { source, .. } => {
                source.kind()
            }
            Self::HandshakeTimedOut { .. } | Self::OpenTimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Handshake { .. } => io::ErrorKind::InvalidData,
            Self::HostKeyMismatch { .. } | Self::Authentication { .. } => {
                io::ErrorKind::PermissionDenied
            }
            Self::Agent { .. } | Self::Down { .. } => io::ErrorKind::NotConnected,
            Self::Session { .. } | Self::PeerSilent { .. } => io::ErrorKind::ConnectionReset,
            Self::Refused { kind, .. } => *kind,
            Self::TooManyStreams { .. } => io::ErrorKind::ResourceBusy,
            Self::Endpoint { .. } | Self::Command { .. } => io::ErrorKind::InvalidInput,
            Self::NoSuchProgram { .. } => io::ErrorKind::NotFound,
            Self::NotStarted { .. } | Self::TooMuchOutput { .. } => io::ErrorKind::Other,
        }
    }

    /// Trying again can help: the server may be starting, or the network may come back.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Dial { .. }
            | Self::Start { .. }
            | Self::HandshakeTimedOut { .. }
            | Self::Down { .. }
            | Self::Session { .. }
            | Self::PeerSilent { .. } => true,
            Self::Handshake { .. }
            | Self::HostKeyMismatch { .. }
            | Self::Authentication { .. }
            | Self::KeyFile { .. }
            | Self::Agent { .. }
            | Self::Refused { .. }
            | Self::OpenTimedOut { .. }
            | Self::TooManyStreams { .. }
            | Self::Endpoint { .. }
            | Self::Command { .. }
            | Self::NoSuchProgram { .. }
            | Self::NotStarted { .. }
            | Self::TooMuchOutput { .. } => false,
        }
    }
}

impl From<SshError> for io::Error {
    fn from(error: SshError) -> Self {
        Self::new(error.kind(), error)
    }
}
