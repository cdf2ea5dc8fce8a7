//! Docker's socket for a host that has the containers' ports: the answer to a container's start is held
//! until its ports are the host's, too, and the start itself until the guest has the addresses it needs.
//!
//! [`DockerAware`] is a [`Connect`] around another, so that the relay stays what it is: half-close, resets
//! and hang-ups pass as ever, and so does every byte but those of one answer, when a start has to fail
//! after all.

mod exchange;
mod framing;

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use colima_core::{Connect, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use exchange::Exchange;

/// What is read at once from a connection that is followed, in bytes.
const PIECE: usize = 16 << 10;

/// Whether a container that has started may be called started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Started,
    /// It was stopped again, and this is why.
    Failed(String),
}

/// The verdict on a container, in the making.
pub(crate) type Judging = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// Looks after containers, by id or name, before and after they start.
pub(crate) trait Judge: Send + Sync {
    /// The start has been asked for: what it needs is made ready before docker hears of it.
    fn prepare(&self, container: &str) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// It has started.
    fn judge(&self, container: &str) -> Judging;
}

/// Connects to docker, and asks a judge about every start that succeeds.
pub(crate) struct DockerAware<C> {
    connect: C,
    judge: Arc<dyn Judge>,
}

impl<C> DockerAware<C> {
    pub(crate) fn new(connect: C, judge: Arc<dyn Judge>) -> Self {
        Self { connect, judge }
    }
}

impl<C: Connect> Connect for DockerAware<C> {
    type Stream = DockerStream<C::Stream>;

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<Self::Stream> {
        let inner = self.connect.connect(endpoint).await?;
        Ok(DockerStream {
            inner,
            judge: Arc::clone(&self.judge),
            exchange: Exchange::new(),
            judging: None,
            preparing: None,
            cleared: 0,
            ready: Vec::new(),
            passed: 0,
            later: Vec::new(),
            piece: Vec::new(),
            end: End::Open,
        })
    }
}

/// One connection to docker.
pub(crate) struct DockerStream<S> {
    inner: S,
    judge: Arc<dyn Judge>,
    exchange: Exchange,
    judging: Option<Judging>,
    preparing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Of what the client sends next, so much was looked at and may pass.
    cleared: usize,
    /// For the client, of which the first `passed` bytes are gone.
    ready: Vec<u8>,
    passed: usize,
    /// Came behind an answer that is held, and has not been looked at.
    later: Vec<u8>,
    piece: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Ended,
}

impl<S> fmt::Debug for DockerStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerStream")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for DockerStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed < this.ready.len() {
                let bytes = &this.ready[this.passed..];
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                this.passed += count;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.passed = 0;
            if let Some(judging) = &mut this.judging {
                let verdict = ready!(judging.as_mut().poll(cx));
                this.judging = None;
                match verdict {
                    Verdict::Started => this.exchange.release(&mut this.ready),
                    Verdict::Failed(why) => this.exchange.replace(&failure(&why), &mut this.ready),
                }
            } else if !this.later.is_empty() {
                let bytes = std::mem::take(&mut this.later);
                this.look_at(&bytes);
            } else if this.end == End::Ended {
                return Poll::Ready(Ok(()));
            } else if this.exchange.is_opaque() {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            } else {
                let mut piece = std::mem::take(&mut this.piece);
                piece.resize(PIECE, 0);
                let mut space = ReadBuf::new(&mut piece);
                let read = Pin::new(&mut this.inner).poll_read(cx, &mut space);
                let count = space.filled().len();
                if read.is_ready() && count > 0 {
                    this.look_at(&piece[..count]);
                }
                this.piece = piece;
                ready!(read)?;
                if count == 0 {
                    // An answer that was cut off is passed on as it is.
                    this.end = End::Ended;
                    this.exchange.release(&mut this.ready);
                }
            }
        }
    }
}

impl<S> DockerStream<S> {
    fn look_at(&mut self, bytes: &[u8]) {
        let (taken, started) = self.exchange.received(bytes, &mut self.ready);
        self.later.extend_from_slice(&bytes[taken..]);
        if let Some(container) = started {
            self.judging = Some(self.judge.judge(&container));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DockerStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cleared == 0 {
            // The end of a start's head is looked at before it passes. Until then docker waits for it; and
            // whoever writes comes again with the same bytes, as the pump does.
            let (looked_at, start) = this.exchange.sent(bytes);
            this.cleared = looked_at;
            this.preparing = start.map(|container| this.judge.prepare(&container));
        }
        if let Some(preparing) = &mut this.preparing {
            ready!(preparing.as_mut().poll(cx));
            this.preparing = None;
        }
        let cleared = &bytes[..this.cleared.min(bytes.len())];
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, cleared))?;
        this.cleared -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// A failure as docker tells of one.
fn failure(why: &str) -> Vec<u8> {
    let body = serde_json::json!({ "message": why }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
