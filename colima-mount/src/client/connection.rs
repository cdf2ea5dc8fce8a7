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
        Errno, Field as _, Frame, Hello, MAX_FRAME, OURS, Opened, Reply, Request, Side, VERSION,
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
    reply: oneshot::Sender<Reply>,
    answer: Answer,
}

/// What a reply leaves behind at the server when nobody takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing.
    Plain,
    /// A handle.
    Opens,
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
        let stream_failed = |source| ClientError::Stream { source };
        let (mut read, mut write) = tokio::io::split(stream);
        let hello = Hello {
            version: VERSION,
            extensions: vec![(Bytes::from_static(OURS.0), Bytes::from_static(OURS.1))],
        };
        let (head, _) = hello.encode(Side::Client).into_parts();
        write.write_all(&head).await.map_err(stream_failed)?;
        write.flush().await.map_err(stream_failed)?;
        let mut buffer = BytesMut::new();
        let answer = session::frame(&mut read, &mut buffer, MAX_FRAME).await;
        let answer = answer.map_err(|error| match error {
            ServeError::Stream { source } => ClientError::Stream { source },
            _ => ClientError::NoHello,
        })?;
        let hello = Hello::decode(Side::Server, answer.unwrap_or_default())
            .map_err(|_| ClientError::NoHello)?;

        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU32::new(0),
            ours: hello.has_ours(),
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

    pub(crate) async fn closed(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub(crate) fn call(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Reply, Errno>> + Send + use<> {
        let answer = match request {
            Request::Open { .. } | Request::OpenFile { .. } | Request::Opendir { .. } => {
                Answer::Opens
            }
            _ => Answer::Plain,
        };
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
        async move {
            let reply = answered.await.map_err(|_| Errno::NotConnected)?;
            match &reply {
                Reply::Status { status: 0 | 1, .. } => Ok(reply),
                Reply::Status { .. } => Err(reply.errno().unwrap_or(Errno::Io)),
                _ => Ok(reply),
            }
        }
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
        let Err(abandoned) = waiting.reply.send(reply) else {
            continue;
        };
        let handle = match abandoned {
            _ if waiting.answer == Answer::Plain => continue,
            Reply::Handle(handle) => handle,
            Reply::Extended(mut body) => match Opened::take(&mut body) {
                Ok(opened) => opened.handle,
                Err(_) => continue,
            },
            _ => continue,
        };
        if let Some(outgoing) = closing.upgrade() {
            let id = shared.next.fetch_add(1, Ordering::Relaxed);
            let _ = outgoing.send((Request::Close { handle }.encode(id), ()));
        }
    }
}
