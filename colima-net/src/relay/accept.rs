//! Accepting clients, and what to do when the system gives none.

use std::{io, time::Duration};

use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener};

use super::SocketFile;
use crate::LocalStream;

/// Where a relay's clients come from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A unix socket whose file is somebody else's business.
    Unix(UnixListener),
    /// A unix socket with its file.
    SocketFile(SocketFile),
    /// A TCP port.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<SocketFile> for Listener {
    fn from(socket: SocketFile) -> Self {
        Self::SocketFile(socket)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    /// Takes the next client out of the backlog; cancel safe.
    pub(super) async fn accept(&self) -> io::Result<LocalStream> {
        Ok(match self {
            Self::Unix(listener) => LocalStream::Unix(listener.accept().await?.0),
            Self::SocketFile(socket) => LocalStream::Unix(socket.listener().accept().await?.0),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A client that is gone already is found out by the first read.
                let _ = stream.set_nodelay(true);
                LocalStream::Tcp(stream)
            }
        })
    }
}

/// What a failed accept means for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Only this client is lost.
    ClientGone,
    /// The client stays in the backlog, so that trying again at once would spin.
    Pause,
    /// The listener will never give a client again.
    Broken,
}

/// Errors as accept(2) lists them.
pub(super) fn judge(error: &io::Error) -> Verdict {
    match Errno::from_io_error(error) {
        // Accept passes on network errors that happened before it: those are the client's.
        Some(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM,
        ) => Verdict::ClientGone,
        Some(Errno::BADF | Errno::NOTSOCK | Errno::INVAL | Errno::FAULT) => Verdict::Broken,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever the list does not name.
        _ => Verdict::Pause,
    }
}

/// Pauses that grow from 10 ms to 1 s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(10))
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Duration::from_secs(1));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let judge = |errno: Errno| judge(&errno.into());
        assert_eq!(judge(Errno::MFILE), Verdict::Pause);
        assert_eq!(judge(Errno::NFILE), Verdict::Pause);
        assert_eq!(judge(Errno::NOMEM), Verdict::Pause);
        assert_eq!(judge(Errno::CONNABORTED), Verdict::ClientGone);
        assert_eq!(judge(Errno::INVAL), Verdict::Broken);
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
