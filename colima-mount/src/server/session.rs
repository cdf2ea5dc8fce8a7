//! One client: frames in, replies out, and what runs between.

use std::{collections::VecDeque, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    Limits, ServeError, Share,
    clients::Turn,
    handles::{Handles, Room},
    order::{Order, claims},
    requests,
    watches::Watches,
};
use crate::sftp::{
    CLIENT, ChangeSet, Code, Errno, Frame, Hello, MAX_FRAME, MAX_STOCK_FRAME, OURS, Reply, Request,
    Side, VERSION,
};

/// What the requests of one client share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) share: Arc<Share>,
    pub(crate) handles: Handles,
    pub(crate) watches: Watches,
    pub(crate) limits: Limits,
    pub(crate) dialect: Dialect,
    _turn: Option<Turn>,
}

/// What the client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Version 3 and the extensions of OpenSSH.
    Stock,
    /// Ours too.
    Ours,
}

impl Session {
    /// The status that tells a failure.
    pub(crate) fn failure(&self, errno: Errno) -> Reply {
        Reply::Status {
            status: match self.dialect {
                Dialect::Stock => errno.code() as u32,
                Dialect::Ours => errno.wire(),
            },
            text: Bytes::from_static(errno.text().as_bytes()),
        }
    }
}

/// A frame to be sent, and the memory it counts for until it is.
type Outgoing = (Frame, Option<OwnedSemaphorePermit>);

/// A request on its way.
#[derive(Debug)]
struct Job {
    id: u32,
    request: Request,
    memory: OwnedSemaphorePermit,
}

pub(crate) async fn run<R, W>(
    share: &Arc<Share>,
    limits: Limits,
    mut read: R,
    mut write: W,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    let Some(first) = frame(&mut read, &mut buffer, MAX_STOCK_FRAME).await? else {
        return Ok(());
    };
    let hello = Hello::decode(Side::Client, first).map_err(|_| ServeError::NoHello)?;
    let dialect = if hello.has_ours() {
        Dialect::Ours
    } else {
        Dialect::Stock
    };
    let (turn, superseded) = match hello.extension(CLIENT) {
        None => (None, None),
        Some(name) => {
            let (turn, superseded) = share.clients.enter(name.clone()).await;
            (turn, Some(superseded))
        }
    };
    let superseded = async {
        match superseded {
            None => std::future::pending().await,
            Some(superseded) => drop(superseded.await),
        }
    };
    let session = Arc::new(Session {
        share: Arc::clone(share),
        handles: Handles::new(limits.handles),
        watches: Watches::new(limits.watches),
        limits,
        dialect,
        _turn: turn,
    });
    let (replies, outgoing) = mpsc::unbounded_channel();
    let _ = replies.send((greeting().encode(Side::Server), None));
    let (asked, changes) = mpsc::channel::<(u32, Form)>(1);
    let reading = Reading {
        session: Arc::clone(&session),
        replies: replies.clone(),
        asked,
        order: Order::default(),
        busy: 0,
        parked: VecDeque::new(),
    };
    let telling = tell_changes(session, changes, replies);
    let work = async { tokio::join!(reading.run(&mut read, &mut buffer), telling).0 };
    let mut sending = pin!(send(&mut write, outgoing));
    tokio::select! {
        result = work => result?,
        result = &mut sending => return result,
        () = superseded => return Ok(()),
    }
    // The client asks nothing more, and gets the rest of its answers if it is still there.
    let _ = sending.await;
    Ok(())
}

fn greeting() -> Hello {
    let ours = (Bytes::from_static(OURS.0), Bytes::from_static(OURS.1));
    let stock = [
        ("posix-rename@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("limits@openssh.com", "1"),
    ];
    let stock = stock.map(|(name, data)| (name.into(), data.into()));
    Hello {
        version: VERSION,
        extensions: stock.into_iter().chain([ours]).collect(),
    }
}

/// The next frame without its length; `None` when the stream ended between two.
pub(crate) async fn frame<R: AsyncRead + Unpin>(
    read: &mut R,
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Option<Bytes>, ServeError> {
    loop {
        if let Some(length) = buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length);
            let whole = 4 + length as usize;
            // The shortest is an INIT: a type and a version.
            if length < 5 || length as usize > limit {
                return Err(ServeError::FrameLength { length });
            }
            if buffer.len() >= whole {
                let mut frame = buffer.split_to(whole).freeze();
                return Ok(Some(frame.split_off(4)));
            }
            buffer.reserve(whole - buffer.len());
        } else {
            buffer.reserve(64 * 1024);
        }
        match read.read_buf(buffer).await {
            Err(source) => return Err(ServeError::Stream { source }),
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(ServeError::Stream { source });
            }
            Ok(_) => {}
        }
    }
}

/// Sends frames, as many as there are with one write.
pub(crate) async fn send<W, P>(
    write: &mut W,
    mut outgoing: mpsc::UnboundedReceiver<(Frame, P)>,
) -> Result<(), ServeError>
where
    W: AsyncWrite + Unpin,
{
    /// From here on copying costs more than another write.
    const LARGE: usize = 16 * 1024;

    let failed = |source| ServeError::Stream { source };
    let mut batch = Vec::new();
    let mut permits = Vec::new();
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some((frame, permit)) = next.take() {
            let (head, tail) = frame.into_parts();
            batch.extend_from_slice(&head);
            permits.push(permit);
            if tail.len() < LARGE {
                batch.extend_from_slice(&tail);
            } else {
                write.write_all(&batch).await.map_err(failed)?;
                batch.clear();
                write.write_all(&tail).await.map_err(failed)?;
            }
            if batch.len() < 4 * LARGE {
                next = at_hand(&mut outgoing).await;
            }
        }
        write.write_all(&batch).await.map_err(failed)?;
        write.flush().await.map_err(failed)?;
        batch.clear();
        permits.clear();
    }
    Ok(())
}

/// What is in a queue already.
///
/// Not by `try_recv`: when a sender is in the middle of sending it parks the thread, and takes for itself what
/// would have woken the future that `block_on` polls on that thread (`Rx::try_recv` and `CachedParkThread` of
/// tokio). Nothing would be read any more.
async fn at_hand<T>(queue: &mut mpsc::UnboundedReceiver<T>) -> Option<T> {
    poll_fn(|context| match queue.poll_recv(context) {
        Poll::Ready(item) => Poll::Ready(item),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// How changes are told.
#[derive(Clone, Copy, Debug)]
enum Form {
    Changes,
    Events,
}

/// Answers requests for changes, one after another, as there are some.
async fn tell_changes(
    session: Arc<Session>,
    mut asked: mpsc::Receiver<(u32, Form)>,
    replies: mpsc::UnboundedSender<Outgoing>,
) {
    while let Some((id, form)) = asked.recv().await {
        let changed = tokio::select! {
            changed = session.watches.changed() => changed,
            // The client is gone, and nobody is left to be told.
            () = closed(&mut asked) => return,
        };
        let told = Arc::clone(&session);
        let reply = tokio::task::spawn_blocking(move || match changed {
            Ok(noted) => {
                let set = told.watches.describe(noted, &told.share);
                match form {
                    Form::Events => Reply::extended(&set),
                    Form::Changes => Reply::extended(&ChangeSet::from(set)),
                }
            }
            Err(errno) => told.failure(errno),
        });
        if let Ok(reply) = reply.await {
            let _ = replies.send((reply.encode(id), None));
        }
    }
}

/// Completes when nobody can ask any more. What is asked meanwhile is one too many and was refused.
async fn closed(asked: &mut mpsc::Receiver<(u32, Form)>) {
    while !asked.is_closed() || !asked.is_empty() {
        if asked.recv().await.is_none() {
            return;
        }
    }
}

struct Reading {
    session: Arc<Session>,
    replies: mpsc::UnboundedSender<Outgoing>,
    asked: mpsc::Sender<(u32, Form)>,
    order: Order<Job>,
    /// Requests that were read and not yet answered.
    busy: usize,
    /// Opens that wait for a handle to be closed, and until when.
    parked: VecDeque<(Instant, u64, Job)>,
}

impl Reading {
    async fn run<R: AsyncRead + Unpin>(
        mut self,
        read: &mut R,
        buffer: &mut BytesMut,
    ) -> Result<(), ServeError> {
        let (done, mut finished) = mpsc::unbounded_channel::<u64>();
        let memory = Arc::new(Semaphore::new(Limits::MEMORY / 1024));
        let limit = match self.session.dialect {
            Dialect::Stock => MAX_STOCK_FRAME,
            Dialect::Ours => MAX_FRAME,
        };
        let mut open = true;
        // A frame that was read and waits for memory.
        let mut next: Option<Bytes> = None;
        while open || self.busy > 0 {
            let patience = self.parked.front().map(|(until, _, _)| *until);
            let weight = next.as_ref().map_or(0, weight);
            tokio::select! {
                biased;
                Some(ticket) = finished.recv(), if self.busy > 0 => {
                    self.busy -= 1;
                    for (ticket, job) in self.order.done(ticket) {
                        self.start(ticket, job, &done);
                    }
                    self.unpark(&done);
                }
                () = until(patience), if patience.is_some() => self.give_up(&done),
                permit = Arc::clone(&memory).acquire_many_owned(weight), if next.is_some() => {
                    if let (Some(frame), Ok(permit)) = (next.take(), permit) {
                        self.admit(frame, permit, &done);
                    }
                }
                frame = frame(read, buffer, limit),
                    if open && next.is_none() && self.busy < self.session.limits.requests =>
                {
                    next = frame?;
                    open = next.is_some();
                }
            }
        }
        Ok(())
    }

    fn admit(
        &mut self,
        frame: Bytes,
        memory: OwnedSemaphorePermit,
        done: &mpsc::UnboundedSender<u64>,
    ) {
        let (id, request) = match Request::decode(frame) {
            Ok(decoded) => decoded,
            Err((id, _)) => {
                let reply = Reply::Status {
                    status: match self.session.dialect {
                        Dialect::Stock => Code::BadMessage as u32,
                        Dialect::Ours => Errno::BadMessage.wire(),
                    },
                    text: Bytes::from_static(b"bad message"),
                };
                return self.reply(id.unwrap_or(0), reply, memory);
            }
        };
        let form = match request {
            Request::Changes {} => Some(Form::Changes),
            Request::Events {} => Some(Form::Events),
            _ => None,
        };
        if let Some(form) = form
            && self.session.dialect == Dialect::Ours
        {
            if self.asked.try_send((id, form)).is_err() {
                let reply = self.session.failure(Errno::Busy);
                self.reply(id, reply, memory);
            }
            return;
        }
        let claims = claims(&request, |handle| self.session.handles.path(handle));
        let job = Job {
            id,
            request,
            memory,
        };
        self.busy += 1;
        if let Some((ticket, job)) = self.order.admit(claims, job) {
            self.start(ticket, job, done);
        }
    }

    fn reply(&self, id: u32, reply: Reply, memory: OwnedSemaphorePermit) {
        let _ = self.replies.send((reply.encode(id), Some(memory)));
    }

    fn start(&mut self, ticket: u64, job: Job, done: &mpsc::UnboundedSender<u64>) {
        let opens = matches!(
            job.request,
            Request::Open { .. } | Request::OpenFile { .. } | Request::Opendir { .. }
        );
        if !opens {
            return self.spawn(ticket, job, None, done);
        }
        if let Some(room) = self.session.handles.room() {
            return self.spawn(ticket, job, Some(room), done);
        }
        // Half of the requests may wait for a handle; the other half is for closing some.
        if self.parked.len() < self.session.limits.requests / 2 {
            let until = Instant::now() + Limits::OPEN_PATIENCE;
            self.parked.push_back((until, ticket, job));
        } else {
            self.refuse(ticket, job, done);
        }
    }

    fn refuse(&self, ticket: u64, job: Job, done: &mpsc::UnboundedSender<u64>) {
        self.reply(
            job.id,
            self.session.failure(Errno::TooManyFiles),
            job.memory,
        );
        let _ = done.send(ticket);
    }

    fn unpark(&mut self, done: &mpsc::UnboundedSender<u64>) {
        while !self.parked.is_empty() {
            let Some(room) = self.session.handles.room() else {
                return;
            };
            if let Some((_, ticket, job)) = self.parked.pop_front() {
                self.spawn(ticket, job, Some(room), done);
            }
        }
    }

    fn give_up(&mut self, done: &mpsc::UnboundedSender<u64>) {
        if let Some((_, ticket, job)) = self.parked.pop_front() {
            self.refuse(ticket, job, done);
        }
    }

    fn spawn(&self, ticket: u64, job: Job, room: Option<Room>, done: &mpsc::UnboundedSender<u64>) {
        let session = Arc::clone(&self.session);
        let replies = self.replies.clone();
        let done = done.clone();
        tokio::task::spawn_blocking(move || {
            let reply = requests::serve(&session, job.request, room);
            let _ = replies.send((reply.encode(job.id), Some(job.memory)));
            let _ = done.send(ticket);
        });
    }
}

async fn until(patience: Option<Instant>) {
    if let Some(patience) = patience {
        tokio::time::sleep_until(patience).await;
    }
}

/// KiB of memory that a request takes until its reply is sent.
fn weight(frame: &Bytes) -> u32 {
    // The length of a read is the last field of its packet, as is the budget of a listing.
    let asked = match frame.first() {
        Some(5 | 200) => frame
            .last_chunk::<4>()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        Some(12) => 64 * 1024,
        _ => 0,
    };
    let asked = (asked as usize).min(MAX_FRAME);
    u32::try_from((frame.len() + asked).div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many threads answer, a session is driven by `block_on`.
    #[test]
    fn a_wake_up_is_not_taken_by_a_look_into_the_queue() {
        const THREADS: u32 = 4;
        const ROUNDS: u32 = 3000;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (replies, outgoing) = mpsc::unbounded_channel();
            let (mut write, mut read) = tokio::io::duplex(1 << 20);
            let mut sending = pin!(send(&mut write, outgoing));
            for round in 0..ROUNDS {
                // Each tells that it is done after its reply, as a request does.
                let (done, mut finished) = mpsc::unbounded_channel();
                for id in 0..THREADS {
                    let (replies, done) = (replies.clone(), done.clone());
                    tokio::task::spawn_blocking(move || {
                        let _ = replies.send((Reply::ok().encode(id), ()));
                        let _ = done.send(());
                    });
                }
                drop(done);
                let answered = async {
                    while finished.recv().await.is_some() {}
                    let mut buffer = BytesMut::new();
                    for _ in 0..THREADS {
                        assert!(
                            frame(&mut read, &mut buffer, MAX_FRAME)
                                .await
                                .unwrap()
                                .is_some()
                        );
                    }
                };
                tokio::select! {
                    _ = &mut sending => unreachable!("the queue is open"),
                    () = answered => {}
                    () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {
                        unreachable!("round {round} does not end")
                    }
                }
            }
        });
    }
}
