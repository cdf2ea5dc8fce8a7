//! One stream of a session, as its user sees it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use super::SshError;
use crate::{Hangup, LocalStream};

/// What a stream and the thread that carries it tell each other besides bytes.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// The user has ended its direction; what was written before has to arrive.
    finished: AtomicBool,
    /// Why the stream broke.
    failure: OnceLock<Arc<SshError>>,
}

impl StreamState {
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Called before the thread lets go of its end.
    pub(super) fn fail(&self, error: SshError) {
        // Only the first failure says something.
        let _ = self.failure.set(Arc::new(error));
    }

    fn failure(&self) -> Option<io::Error> {
        let failure = self.failure.get()?;
        Some(io::Error::new(failure.kind(), Arc::clone(failure)))
    }
}

/// A byte stream over ssh.
///
/// `shutdown` ends one direction (`SSH_MSG_CHANNEL_EOF`) and leaves the other open. When the session
/// breaks, reads and writes fail with `ConnectionReset`, and the error's source is the [`SshError`].
///
/// # Drop
///
/// After a `shutdown`, what was written still arrives, for at most ten seconds. Without one the stream is
/// abandoned. Ssh has no word for that: the far side sees an end, where a local socket might have been
/// reset.
#[derive(Debug)]
pub struct SshStream {
    inner: LocalStream,
    state: Arc<StreamState>,
}

impl SshStream {
    pub(super) const fn new(inner: UnixStream, state: Arc<StreamState>) -> Self {
        Self {
            inner: LocalStream::Unix(inner),
            state,
        }
    }

    /// The reason that the thread left behind, where there is one.
    fn explain(&self, error: io::Error) -> io::Error {
        self.state.failure().unwrap_or(error)
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf));
        Poll::Ready(match read {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => {
                this.state.failure().map_or(Ok(()), Err)
            }
            // The thread let go while it had unread bytes of ours: the peer closed the channel, and
            // everything that it sent has been read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                this.state.failure().map_or(Ok(()), Err)
            }
            Err(error) => Err(this.explain(error)),
            Ok(()) => Ok(()),
        })
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(Pin::new(&mut this.inner).poll_write(cx, buf));
        Poll::Ready(wrote.map_err(|error| this.explain(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.state.finished.store(true, Ordering::Release);
        let ended = ready!(Pin::new(&mut this.inner).poll_shutdown(cx));
        Poll::Ready(ended.map_err(|error| this.explain(error)))
    }
}

impl Hangup for SshStream {
    /// Completes when the server has closed the channel or the session broke.
    fn hung_up(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inner.hung_up()
    }

    /// Dropping without a `shutdown` is all that ssh has to say.
    fn abort(self) {}
}
