//! Copies bytes between two streams, both ways, and ends as they end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one direction holds at first: a connection that only asks and answers costs little.
const SMALL_BUFFER: usize = 8 * 1024;

/// Bytes that one direction holds once a read has filled the small buffer.
const LARGE_BUFFER: usize = 64 * 1024;

/// A stream that can tell a peer that ended one direction from one that is gone.
///
/// A client that is killed and a client that has sent everything look the same to a reader. Only
/// the second still wants an answer, and a server that has nothing to say for an hour would keep
/// the connection of the first for that hour.
pub trait Hangup: AsyncRead + AsyncWrite + Send + Unpin {
    /// Completes when the peer can neither send nor receive any more; never where the kind of
    /// stream cannot tell.
    fn hung_up(&self) -> impl Future<Output = ()> + Send + 'static;

    /// Ends the stream so that the peer sees an error rather than an orderly end, where the kind of
    /// stream can say so.
    fn abort(self);
}

/// The bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the near to the far stream.
    pub sent: u64,
    /// Bytes from the far to the near stream.
    pub received: u64,
}

/// Copies both ways until both directions have ended, or either fails.
///
/// The end of one direction is passed on as a `shutdown`, after everything before it, while the
/// other direction goes on. When either side fails, or the near side hangs up, the near side is
/// aborted and the far side dropped. `traffic` counts as the bytes are passed on, and is right
/// whatever the outcome.
///
/// # Errors
///
/// The error of the side that failed first; `ConnectionAborted` when the near side hung up before
/// both directions had ended.
///
/// # Cancel safety
///
/// Dropping the future drops both streams.
pub async fn pump<N, F>(mut near: N, mut far: F, traffic: &mut Traffic) -> io::Result<()>
where
    N: Hangup,
    F: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut outward = Direction::default();
    let mut inward = Direction::default();
    let mut hung_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    let copied = poll_fn(|cx| {
        let out = outward.poll(cx, &mut near, &mut far, &mut traffic.sent)?;
        let back = inward.poll(cx, &mut far, &mut near, &mut traffic.received)?;
        if out.is_ready() && back.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // What a client sent before it went away must still arrive, so its own end comes first.
        if out.is_ready() {
            let hung_up = hung_up.get_or_insert_with(|| Box::pin(near.hung_up()));
            ready!(hung_up.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    })
    .await;
    if copied.is_err() {
        near.abort();
    }
    copied
}

/// One direction of a pump.
#[derive(Debug)]
struct Direction {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    needs_flush: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Copying,
    ShuttingDown,
    Done,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            buffer: vec![0; SMALL_BUFFER],
            start: 0,
            end: 0,
            needs_flush: false,
            stage: Stage::Copying,
        }
    }
}

impl Direction {
    /// Ready when the end has been passed on; pending otherwise.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.stage {
                Stage::Done => return Poll::Ready(Ok(())),
                Stage::ShuttingDown => {
                    match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                        // The reader of the other side went away first; the end is no news to it.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        result => result?,
                    }
                    self.stage = Stage::Done;
                }
                Stage::Copying if self.start < self.end => {
                    let bytes = &self.buffer[self.start..self.end];
                    let n = ready!(Pin::new(&mut *writer).poll_write(cx, bytes))?;
                    if n == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.start += n;
                    *count += n as u64;
                    self.needs_flush = true;
                }
                Stage::Copying => {
                    if self.end == self.buffer.len() {
                        self.buffer.resize(LARGE_BUFFER, 0);
                    }
                    let mut space = ReadBuf::new(&mut self.buffer);
                    match Pin::new(&mut *reader).poll_read(cx, &mut space) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => {
                            if self.needs_flush {
                                ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                                self.needs_flush = false;
                            }
                            return Poll::Pending;
                        }
                    }
                    (self.start, self.end) = (0, space.filled().len());
                    if self.end == 0 {
                        self.stage = Stage::ShuttingDown;
                    }
                }
            }
        }
    }
}
