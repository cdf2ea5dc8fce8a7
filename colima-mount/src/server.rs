//! The server: one directory over any byte stream.
//!
//! ```text
//! stream ─ frames ─ requests ─ order ─┬─ blocking pool ─┬─ replies ─ stream
//!                     │               └─ blocking pool ─┘
//!                     └─ budget of bytes and handles: when it is used up, nothing more is read
//! ```
//!
//! Many requests of a client run at the same time, and are answered as they finish; those that touch
//! the same file keep their order ([`Server::serve`]).

mod access;
mod clients;
#[cfg(target_os = "linux")]
pub mod confine;
mod handles;
mod listing;
mod order;
mod ownership;
pub(crate) mod path;
mod protection;
mod requests;
mod root;
pub(crate) mod session;
mod watches;

use std::{io, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

pub use access::Access;
pub(crate) use access::WriteAccess;
pub use ownership::{Beside, Ownership};
pub use protection::{InvalidPath, Protection, Refusals};
pub use root::{Resolver, Root};

/// What one client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Files and directories open at the same time; fewer where the process may have fewer descriptors. An
    /// open beyond it waits until one is closed, for [`Limits::OPEN_PATIENCE`] at most.
    pub handles: usize,
    /// Requests that are being worked on or wait for one that is.
    pub requests: usize,
    /// Directories that are watched.
    pub watches: usize,
}

impl Limits {
    /// How long an open waits for a handle to be closed.
    pub const OPEN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
    /// Bytes of requests and replies in memory.
    pub const MEMORY: usize = 16 * 1024 * 1024;

    /// The limits of a process that may have so many descriptors: handles leave room for what requests
    /// open for a moment, so that a client waits and is not refused.
    fn within(mut self, descriptors: Option<u64>) -> Self {
        /// Each request may hold a few of them, and there are streams, watches and the runtime.
        const ELSE: u64 = 320;

        if let Some(descriptors) = descriptors {
            let most = descriptors.saturating_sub(ELSE).max(descriptors / 2);
            self.handles = self
                .handles
                .min(usize::try_from(most).unwrap_or(usize::MAX));
        }
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handles: 4096,
            requests: 64,
            watches: 8192,
        }
    }
}

/// A directory and how it may be used; serves any number of streams.
#[derive(Clone, Debug)]
pub struct Server {
    share: Arc<Share>,
    limits: Limits,
}

#[derive(Clone, Debug)]
pub(crate) struct Share {
    root: Arc<Root>,
    access: Access,
    ownership: Ownership,
    protection: Protection,
    clients: Arc<clients::Clients>,
}

/// Why a session ended that was not ended by its client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The stream failed.
    #[error("the stream failed")]
    Stream {
        /// What it said.
        source: io::Error,
    },
    /// The client's first packet was no `SSH_FXP_INIT`.
    #[error("the client did not begin with a hello")]
    NoHello,
    /// The client sent a frame that is longer than any may be, or has no room for a request.
    #[error("the client sent a frame of {length} bytes")]
    FrameLength {
        /// Bytes, by its own account.
        length: u32,
    },
}

impl Server {
    /// Makes a server.
    #[must_use]
    pub fn new(root: Root, access: Access) -> Self {
        Self {
            share: Arc::new(Share {
                root: Arc::new(root),
                access,
                ownership: Ownership::Host,
                protection: Protection::default(),
                clients: Arc::default(),
            }),
            limits: Limits::default(),
        }
    }

    /// Changes what one client may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Decides whose files clients see; the host's if this is not called.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        Arc::make_mut(&mut self.share).ownership = ownership;
        self
    }

    /// Protects and hides paths; none if this is not called.
    #[must_use]
    pub fn protection(mut self, protection: Protection) -> Self {
        Arc::make_mut(&mut self.share).protection = protection;
        self
    }

    /// Serves one client until its stream ends.
    ///
    /// Requests run on the blocking threads of the caller's runtime, so that a slow disk never holds
    /// up the runtime. A request waits for earlier ones that touch the same path, its parents, what
    /// lies in it, or the same handle, unless both only look. The runtime needs time, and I/O for
    /// watches.
    ///
    /// A client that reconnects is known by its name ([`sftp::CLIENT`](crate::sftp::CLIENT)): its new stream is
    /// answered when nothing of its earlier one is running any more.
    ///
    /// # Errors
    ///
    /// The stream failed, or the client does not speak SFTP. Handles are closed in any case.
    ///
    /// # Panics
    ///
    /// It is polled outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the session as a broken stream does: what is running finishes, its
    /// replies are lost.
    pub async fn serve<S>(&self, stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let (read, write) = tokio::io::split(stream);
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        session::run(&self.share, self.limits.within(descriptors), read, write).await
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn handles_leave_room_for_other_descriptors() {
        let handles = |descriptors| Limits::default().within(descriptors).handles;
        assert_eq!(handles(None), 4096);
        assert_eq!(handles(Some(1 << 20)), 4096);
        assert_eq!(handles(Some(1024)), 704);
        assert_eq!(handles(Some(256)), 128);
    }
}
