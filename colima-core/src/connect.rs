//! What the libraries need of the far side.

use std::{future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Endpoint;

/// Opens byte streams to endpoints on some far side.
///
/// Implementations are cheap to share behind an `Arc`, and every call is independent: a broken
/// link fails the calls made over it and is healed by the implementation, not by its user.
pub trait Connect: Send + Sync {
    /// A full-duplex stream; `shutdown` ends one direction and leaves the other open.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a stream to `endpoint`.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` and `NotFound` mean what they mean for a local socket;
    /// `NotConnected` means that the link to the far side is down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt and leaks nothing.
    fn connect(&self, endpoint: &Endpoint)
    -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl<C: Connect> Connect for std::sync::Arc<C> {
    type Stream = C::Stream;

    fn connect(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        C::connect(self, endpoint)
    }
}

/// A far side that also runs commands.
pub trait Guest: Connect {
    /// Runs `command` to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// Fails when the command could not be started or the link broke; an unsuccessful exit is not
    /// an error here.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the command in the guest.
    fn run(&self, command: &Command) -> impl Future<Output = io::Result<Output>> + Send;
}

/// A command for [`Guest::run`]: an argument vector, never a shell line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Bytes for its standard input, which is closed after them.
    pub stdin: Vec<u8>,
}

impl Command {
    /// A command with empty standard input.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
        }
    }

    /// The same command with bytes for its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }
}

/// How a command ended and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 plus the signal number where a signal ended it, as in a shell.
    pub exit_code: i32,
    /// Bytes from its standard output.
    pub stdout: Vec<u8>,
    /// Bytes from its standard error.
    pub stderr: Vec<u8>,
}
