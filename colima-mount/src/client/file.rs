//! An open file: reads ahead of the reader, writes behind the writer.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::Notify, task::JoinHandle};

use super::Client;
use crate::sftp::{
    Errno, MAX_PAYLOAD, MAX_STOCK_PAYLOAD, Metadata, Opened, Reply, Request, Target, Update,
    Written,
};

/// Bytes that were written and are not yet at the server, at most.
const BEHIND: usize = 4 * MAX_PAYLOAD;
/// Writes on their way at the same time. What comes meanwhile is gathered to larger ones.
const WRITES: usize = 4;
/// Bytes of one read ahead.
const AHEAD: usize = 512 * 1024;
/// Reads ahead at the same time.
const AHEADS: usize = 3;
/// What was read ahead is forgotten after this long.
const FRESH: Duration = Duration::from_secs(1);

/// An open file.
///
/// [`File::write_at`] returns before the server has the data; an error of it is told by the next write,
/// [`File::flush`], [`File::sync`] or [`File::close`], once. Dropping the file sends what was written
/// and closes it, without waiting and without telling anybody of an error.
pub struct File {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    handle: Bytes,
    state: Mutex<State>,
    /// A write was answered.
    answered: Notify,
    told: Box<dyn Fn(&Written) + Send + Sync>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, BytesMut)>,
    queued: usize,
    sending: usize,
    error: Option<Errno>,
    ahead: VecDeque<Ahead>,
    /// Where a reader that goes on would read next.
    next: u64,
    /// Nobody holds it, and it waits by itself for what was written.
    left: bool,
}

struct Ahead {
    offset: u64,
    began: Instant,
    data: AheadData,
    after: After,
}

/// What comes after something that was read ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Nobody knows.
    Unknown,
    /// Nothing: the file ends there.
    End,
}

enum AheadData {
    Here(Bytes),
    Coming(JoinHandle<Result<Bytes, Errno>>),
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("handle", &self.inner.handle)
            .finish_non_exhaustive()
    }
}

impl File {
    /// `told` hears of each write.
    pub(crate) fn new(
        client: Client,
        opened: Opened,
        told: impl Fn(&Written) + Send + Sync + 'static,
    ) -> Self {
        let mut state = State::default();
        if !opened.first.is_empty() {
            // A whole small file: to ask what follows would cost as much as to read it.
            let whole = opened.metadata.size == opened.first.len() as u64;
            state.ahead.push_back(Ahead {
                offset: 0,
                began: Instant::now(),
                data: AheadData::Here(opened.first),
                after: if whole { After::End } else { After::Unknown },
            });
        }
        Self {
            inner: Arc::new(Inner {
                client,
                handle: opened.handle,
                state: Mutex::new(state),
                answered: Notify::new(),
                told: Box::new(told),
            }),
        }
    }

    /// The handle, for requests that have no method here.
    #[must_use]
    pub fn handle(&self) -> &Bytes {
        &self.inner.handle
    }

    /// Metadata of the file, whatever name it has; everything written before is in it.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn metadata(&self) -> Result<Metadata, Errno> {
        self.settle().await;
        let target = Target::Handle(self.inner.handle.clone());
        self.inner.client.ask(&Request::Look { target }).await
    }

    /// Sets attributes, after everything written before.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn set(&self, update: Update) -> Result<Metadata, Errno> {
        self.settle().await;
        self.forget_ahead();
        let target = Target::Handle(self.inner.handle.clone());
        self.inner
            .client
            .ask(&Request::Set { target, update })
            .await
    }

    /// Reads at most `length` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Errno> {
        self.settle().await;
        let sequential = {
            let mut state = self.inner.state();
            let sequential = offset == state.next && offset > 0;
            state.next = offset.saturating_add(length as u64);
            state.ahead.retain(|ahead| ahead.began.elapsed() < FRESH);
            sequential
        };
        let mut data = BytesMut::new();
        while data.len() < length {
            let position = offset.saturating_add(data.len() as u64);
            let (piece, last) = match self.take_ahead(position, length - data.len()).await {
                Some((piece, after)) => (piece, after == After::End),
                None => {
                    let wanted = (length - data.len()).min(self.inner.payload());
                    let piece = self.inner.read(position, wanted).await?;
                    let last = piece.len() < wanted;
                    (piece, last)
                }
            };
            if data.is_empty() && (piece.len() == length || last) {
                if sequential && !last {
                    self.read_ahead(position.saturating_add(piece.len() as u64));
                }
                return Ok(piece);
            }
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(&piece);
            if last {
                break;
            }
        }
        if sequential && data.len() == length {
            self.read_ahead(offset.saturating_add(length as u64));
        }
        Ok(data.freeze())
    }

    /// What was read ahead at this offset, and what comes after it; `None` when nothing was.
    async fn take_ahead(&self, offset: u64, length: usize) -> Option<(Bytes, After)> {
        let mut ahead = {
            let mut state = self.inner.state();
            let at = state.ahead.iter().position(|ahead| ahead.covers(offset))?;
            // What lies before is behind a reader that goes on.
            state.ahead.drain(..at);
            state.ahead.pop_front()?
        };
        let data = match ahead.data {
            AheadData::Here(data) => data,
            AheadData::Coming(task) => match task.await {
                Ok(Ok(data)) => data,
                // Whatever it was, it is met again by a read of its own.
                _ => return None,
            },
        };
        let skip = usize::try_from(offset - ahead.offset).unwrap_or(usize::MAX);
        if skip >= data.len() {
            return None;
        }
        let piece = data.slice(skip..data.len().min(skip + length));
        if skip + piece.len() < data.len() {
            ahead.data = AheadData::Here(data);
            self.inner.state().ahead.push_front(ahead);
            return Some((piece, After::Unknown));
        }
        Some((piece, ahead.after))
    }

    fn read_ahead(&self, from: u64) {
        let mut state = self.inner.state();
        let mut offset = state.ahead.back().map_or(from, |last| last.end().max(from));
        while state.ahead.len() < AHEADS {
            let (inner, position) = (Arc::clone(&self.inner), offset);
            let length = AHEAD.min(self.inner.payload());
            let task = tokio::spawn(async move { inner.read(position, length).await });
            state.ahead.push_back(Ahead {
                offset,
                began: Instant::now(),
                data: AheadData::Coming(task),
                after: After::Unknown,
            });
            offset = offset.saturating_add(length as u64);
        }
    }

    /// Forgets what was read ahead: the file has changed.
    pub fn forget_ahead(&self) {
        self.inner.state().ahead.clear();
    }

    /// Has an error told as if a write had failed.
    #[cfg(all(feature = "fuse", target_os = "linux"))]
    pub(crate) fn fail(&self, errno: Errno) {
        self.inner.state().error.get_or_insert(errno);
    }

    /// Whether something that was written is not yet at the server.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let state = self.inner.state();
        state.sending > 0 || !state.queue.is_empty()
    }

    /// Takes data to be written, and returns when there is room for it.
    ///
    /// # Errors
    ///
    /// An earlier write failed; this one is not done then.
    ///
    /// # Cancel safety
    ///
    /// It is taken as a whole or not at all.
    pub async fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        loop {
            let answered = self.inner.answered.notified();
            {
                let mut state = self.inner.state();
                if let Some(error) = state.error.take() {
                    return Err(error);
                }
                if state.queued == 0 || state.queued + data.len() <= BEHIND {
                    state.ahead.clear();
                    self.inner.put(&mut state, offset, data);
                    self.inner.send(&mut state);
                    return Ok(());
                }
            }
            answered.await;
        }
    }

    /// Waits until the server has everything that was written. Its error stays to be told.
    pub(crate) async fn settle(&self) {
        loop {
            let answered = self.inner.answered.notified();
            if !self.is_behind() {
                return;
            }
            answered.await;
        }
    }

    /// Waits until the server has everything that was written.
    ///
    /// # Errors
    ///
    /// A write failed.
    pub async fn flush(&self) -> Result<(), Errno> {
        self.settle().await;
        self.inner.state().error.take().map_or(Ok(()), Err)
    }

    /// Waits until everything that was written is on the server's disk.
    ///
    /// # Errors
    ///
    /// A write failed, or the disk.
    pub async fn sync(&self) -> Result<(), Errno> {
        self.flush().await?;
        let handle = self.inner.handle.clone();
        self.inner.client.command(&Request::Fsync { handle }).await
    }

    /// Closes the file when the server has everything that was written.
    ///
    /// # Errors
    ///
    /// A write failed. The file is closed all the same.
    pub async fn close(self) -> Result<(), Errno> {
        self.flush().await
        // The close itself has nothing to tell: the drop sends it.
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let inner = Arc::clone(&self.inner);
        if !self.is_behind() {
            drop(inner.close());
            return;
        }
        // Once: a runtime that ends drops what it is given. Outside of one nobody can wait, and the end of
        // the connection closes the handle.
        if std::mem::replace(&mut self.inner.state().left, true) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let file = Self { inner };
            runtime.spawn(async move {
                file.settle().await;
            });
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn payload(&self) -> usize {
        if self.client.has_ours() {
            MAX_PAYLOAD
        } else {
            MAX_STOCK_PAYLOAD.min(32 * 1024)
        }
    }

    fn close(&self) -> impl Future<Output = Result<Reply, Errno>> + use<> {
        let handle = self.handle.clone();
        self.client.call(&Request::Close { handle })
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, Errno> {
        let request = Request::Read {
            handle: self.handle.clone(),
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        self.client.data(&request).await
    }

    /// Queues data, behind the last piece if it goes on there.
    fn put(&self, state: &mut State, offset: u64, data: &[u8]) {
        state.queued += data.len();
        let limit = self.payload();
        let (mut offset, mut data) = (offset, data);
        if let Some((start, last)) = state.queue.back_mut()
            && start.saturating_add(last.len() as u64) == offset
            && last.len() < limit
        {
            let (here, rest) = data.split_at(data.len().min(limit - last.len()));
            last.extend_from_slice(here);
            offset = offset.saturating_add(here.len() as u64);
            data = rest;
        }
        for piece in data.chunks(limit) {
            state.queue.push_back((offset, BytesMut::from(piece)));
            offset = offset.saturating_add(piece.len() as u64);
        }
    }

    /// Sends what is queued, as far as may be on its way at the same time.
    fn send(self: &Arc<Self>, state: &mut State) {
        while state.sending < WRITES {
            let Some((offset, data)) = state.queue.pop_front() else {
                return;
            };
            state.sending += 1;
            let (handle, data) = (self.handle.clone(), data.freeze());
            let length = data.len();
            let request = if self.client.has_ours() {
                Request::WriteTell {
                    handle,
                    offset,
                    data,
                }
            } else {
                Request::Write {
                    handle,
                    offset,
                    data,
                }
            };
            // Called here, so that writes reach the server in their order.
            let reply = self.client.call(&request);
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                let reply = reply.await;
                inner.written(reply, length);
            });
        }
    }

    fn written(self: &Arc<Self>, reply: Result<Reply, Errno>, length: usize) {
        let result = match reply {
            Ok(Reply::Extended(mut body)) => {
                use crate::sftp::Field as _;
                match Written::take(&mut body) {
                    Ok(written) => {
                        (self.told)(&written);
                        Ok(())
                    }
                    Err(_) => Err(Errno::BadMessage),
                }
            }
            Ok(Reply::Status { status: 0, .. }) => Ok(()),
            Ok(_) => Err(Errno::BadMessage),
            Err(error) => Err(error),
        };
        let mut state = self.state();
        state.sending -= 1;
        state.queued -= length;
        if let Err(error) = result {
            state.error.get_or_insert(error);
        }
        self.send(&mut state);
        drop(state);
        self.answered.notify_waiters();
    }
}

impl Ahead {
    fn end(&self) -> u64 {
        let length = match &self.data {
            AheadData::Here(data) => data.len(),
            AheadData::Coming(_) => AHEAD,
        };
        self.offset.saturating_add(length as u64)
    }

    fn covers(&self, offset: u64) -> bool {
        (self.offset..self.end()).contains(&offset)
    }
}
