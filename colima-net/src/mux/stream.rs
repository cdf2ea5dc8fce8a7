//! The program's end of a stream.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::{frame::StreamId, table::Table};
use crate::Hangup;

/// One session, shared by its streams and its link.
#[derive(Debug)]
pub(super) struct Session {
    table: Mutex<Table>,
    /// Wakes the link's writer.
    pub(super) work: Notify,
}

impl Session {
    pub(super) fn new(table: Table) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::new(table),
            work: Notify::new(),
        })
    }

    /// Runs one step of the table and tells the writer if that made work for it.
    pub(super) fn with<T>(&self, step: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.lock();
        let result = step(&mut table);
        let work = table.take_work();
        drop(table);
        if work {
            self.work.notify_one();
        }
        result
    }

    /// Runs one step on behalf of the writer itself.
    pub(super) fn with_writer<T>(&self, step: impl FnOnce(&mut Table) -> T) -> T {
        step(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic inside a step is a bug that has been reported; the streams stay usable.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A full-duplex byte stream through a multiplexer.
///
/// `shutdown` ends the direction toward the peer and completes when everything written before it
/// has been handed to the link; the other direction stays open. `flush` does nothing: written
/// bytes leave as soon as the link takes them.
///
/// Reading after the link broke or the peer reset the stream gives what had arrived, and then
/// `ConnectionReset`.
///
/// # Drop
///
/// Dropping a stream resets it, unless both directions were ended: the peer's reads and writes
/// fail with `ConnectionReset`. Bytes that the link has not taken are discarded.
pub struct MuxStream {
    session: Arc<Session>,
    id: StreamId,
}

impl MuxStream {
    pub(super) fn new(session: Arc<Session>, id: StreamId) -> Self {
        Self { session, id }
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}

impl fmt::Debug for MuxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MuxStream").field(&self.id).finish()
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.session.with(|table| table.release(self.id));
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.session.with(|table| table.poll_read(self.id, cx, buf))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.session
            .with(|table| table.poll_write(self.id, cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.with(|table| table.poll_shutdown(self.id, cx))
    }
}

impl Hangup for MuxStream {
    /// Completes when the peer has reset the stream or the link broke.
    fn hung_up(&self) -> impl Future<Output = ()> + Send + 'static {
        let (session, id) = (Arc::clone(&self.session), self.id);
        std::future::poll_fn(move |cx| session.with(|table| table.poll_hung_up(id, cx)))
    }

    /// Dropping is resetting.
    fn abort(self) {}
}
