//! Requests out, replies in, matched by id.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf},
    sync::{mpsc, oneshot, watch},
};

use super::ClientError;
use crate::{
    server::{ServeError, session},
    sftp::{
        CLIENT, Errno, Field as _, Frame, Hello, MAX_FRAME, OURS, Opened, Reply, Request, Side,
        VERSION,
    },
};

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    outgoing: mpsc::UnboundedSender<(Frame, ())>,
    shared: Arc<Shared>,
    ended: watch::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    /// `None` when the stream has ended.
    waiting: Mutex<Option<HashMap<u32, Waiting>>>,
    next: AtomicU32,
    ours: bool,
}

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Answered>,
    answer: Answer,
}

/// What comes back of a request.
pub(crate) type Answered = Result<Reply, Errno>;

/// What a reply leaves behind at the server when nobody takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing.
    Plain,
    /// A handle.
    Opens,
}

impl Answer {
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Open { .. } | Request::OpenFile { .. } | Request::Opendir { .. } => {
                Self::Opens
            }
            _ => Self::Plain,
        }
    }
}

/// The handle that an answer leaves behind.
pub(crate) fn handle_in(reply: Reply, answer: Answer) -> Option<Bytes> {
    match reply {
        _ if answer == Answer::Plain => None,
        Reply::Handle(handle) => Some(handle),
        Reply::Extended(mut body) => Some(Opened::take(&mut body).ok()?.handle),
        _ => None,
    }
}

/// Exchanges the hellos. Gives whether the server has our extensions.
pub(crate) async fn shake<R, W>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    name: Option<&Bytes>,
) -> Result<bool, ClientError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let stream_failed = |source| ClientError::Stream { source };
    let ours = (Bytes::from_static(OURS.0), Bytes::from_static(OURS.1));
    let name = name.map(|name| (Bytes::from_static(CLIENT), name.clone()));
    let hello = Hello {
        version: VERSION,
        extensions: std::iter::once(ours).chain(name).collect(),
    };
    let (head, _) = hello.encode(Side::Client).into_parts();
    write.write_all(&head).await.map_err(stream_failed)?;
    write.flush().await.map_err(stream_failed)?;
    let answer = session::frame(read, buffer, MAX_FRAME).await;
    let answer = answer.map_err(|error| match error {
        ServeError::Stream { source } => ClientError::Stream { source },
        _ => ClientError::NoHello,
    })?;
    let Some(answer) = answer else {
        return Err(stream_failed(std::io::ErrorKind::UnexpectedEof.into()));
    };
    let hello = Hello::decode(Side::Server, answer).map_err(|_| ClientError::NoHello)?;
    Ok(hello.has_ours())
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(crate) async fn open<S>(stream: S) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut buffer = BytesMut::new();
        let ours = shake(&mut read, &mut write, &mut buffer, None).await?;

        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU32::new(0),
            ours,
        });
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(());
        // The task closes what nobody took by itself, but must not keep the connection alive.
        let closing = outgoing.downgrade();
        let receiving = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                _ = session::send(&mut write, queue) => {}
                () = receive(&mut read, buffer, &receiving, &closing) => {}
            }
            // Whoever waits is told by the loss of the other end of its channel.
            receiving.waiting().take();
            drop(end);
        });
        Ok(Self {
            outgoing,
            shared,
            ended,
        })
    }

    pub(crate) fn has_ours(&self) -> bool {
        self.shared.ours
    }

    pub(crate) fn is_open(&self) -> bool {
        self.shared.waiting().is_some()
    }

    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    pub(crate) fn call(&self, request: &Request) -> oneshot::Receiver<Answered> {
        let answer = Answer::of(request);
        let (reply, answered) = oneshot::channel();
        let mut id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if let Some(waiting) = self.shared.waiting().as_mut() {
            // After four billion requests an old one may still be waiting under the same number.
            while waiting.contains_key(&id) {
                id = self.shared.next.fetch_add(1, Ordering::Relaxed);
            }
            waiting.insert(id, Waiting { reply, answer });
            // Sent with the map locked, so that the order of numbers is the order of requests.
            let _ = self.outgoing.send((request.encode(id), ()));
        }
        answered
    }
}

/// Hands replies to those who wait, until the stream ends or makes no sense.
async fn receive<S: AsyncRead + AsyncWrite>(
    read: &mut ReadHalf<S>,
    mut buffer: BytesMut,
    shared: &Shared,
    closing: &mpsc::WeakUnboundedSender<(Frame, ())>,
) {
    while let Ok(Some(frame)) = session::frame(read, &mut buffer, MAX_FRAME).await {
        let Ok((id, reply)) = Reply::decode(frame) else {
            return;
        };
        let waiting = shared
            .waiting()
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        // The close of an abandoned handle is answered to nobody.
        let Some(waiting) = waiting else { continue };
        let Err(Ok(abandoned)) = waiting.reply.send(Ok(reply)) else {
            continue;
        };
        let Some(handle) = handle_in(abandoned, waiting.answer) else {
            continue;
        };
        if let Some(outgoing) = closing.upgrade() {
            let id = shared.next.fetch_add(1, Ordering::Relaxed);
            let _ = outgoing.send((Request::Close { handle }.encode(id), ()));
        }
    }
}
