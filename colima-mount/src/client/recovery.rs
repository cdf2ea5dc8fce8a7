//! A client that outlives its stream: dials again, opens again what was open, and asks again what was
//! not answered.
//!
//! What is owed and held, and what becomes of it, is decided in [`table`] and [`doubt`]; here are the
//! streams, the clock and those who wait.

pub(crate) mod doubt;
mod handles;
mod table;

use std::{
    future::Future,
    hash::{BuildHasher as _, Hasher as _},
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use self::{
    doubt::Known,
    table::{Action, Silence, Table},
};
use super::{
    ClientError, Patience,
    connection::{Answer, Answered, handle_in, shake},
};
use crate::{
    server::session,
    sftp::{FileId, Frame, MAX_FRAME, Reply, Request},
};

/// The wait after a stream that was of no use; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// The longest of these.
const LAST_DELAY: Duration = Duration::from_millis(500);

/// Whoever remembers what a server has told.
pub(crate) trait Follow: std::fmt::Debug + Send + Sync {
    /// Changes are no longer told, and some may have been missed.
    fn lost(&self);

    /// Where a file is by now.
    fn path(&self, id: FileId) -> Option<Bytes>;
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    shared: Arc<Shared>,
    serving: watch::Receiver<bool>,
    /// The task ends when the last of these is gone.
    _alive: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Somebody begins to wait for a connection.
    waits: Notify,
    serving: watch::Sender<bool>,
    followers: Mutex<Vec<Weak<dyn Follow>>>,
    ours: bool,
}

#[derive(Debug)]
struct State {
    table: Table<Asker>,
    outgoing: Option<mpsc::UnboundedSender<(Frame, ())>>,
    /// Whether the stream was of use to anybody.
    useful: bool,
    /// When the server was heard last.
    heard: Instant,
}

#[derive(Debug)]
struct Asker {
    reply: oneshot::Sender<Answered>,
    answer: Answer,
}

/// A stream behind its hellos.
struct Stream<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    buffer: BytesMut,
}

/// How a drive ended.
enum End {
    Lost,
    /// Nobody needs the line any more.
    Unneeded,
}

impl Line {
    pub(crate) async fn open<D, F, S>(dial: D, patience: Patience) -> Result<Self, ClientError>
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut dialing = Dialing {
            dial,
            patience,
            name: name(patience.client),
            delay: Duration::ZERO,
        };
        let (stream, ours) = loop {
            match dialing.next().await {
                Ok(found) => break found,
                Err(ClientError::NoHello) => return Err(ClientError::NoHello),
                Err(_) => {}
            }
        };
        let (serving, serves) = watch::channel(false);
        let (alive, unneeded) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                table: Table::new(patience.operations),
                outgoing: None,
                useful: false,
                heard: Instant::now(),
            }),
            waits: Notify::new(),
            serving,
            followers: Mutex::default(),
            ours,
        });
        let running = Arc::clone(&shared);
        tokio::spawn(async move { running.run(dialing, stream, unneeded).await });
        let line = Self {
            shared,
            serving: serves,
            _alive: alive,
        };
        line.serving().await;
        Ok(line)
    }

    pub(crate) fn has_ours(&self) -> bool {
        self.shared.ours
    }

    pub(crate) fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Completes when there is a connection; `false` when there will be none.
    pub(crate) fn serving(&self) -> impl Future<Output = bool> + Send + use<> {
        let mut serving = self.serving.clone();
        async move { serving.wait_for(|serving| *serving).await.is_ok() }
    }

    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.clone();
        async move { while serving.changed().await.is_ok() {} }
    }

    #[cfg(feature = "fuse")]
    pub(crate) fn follow(&self, follower: Weak<dyn Follow>) {
        self.shared.followers().push(follower);
    }

    pub(crate) fn call(&self, request: &Request, known: Known) -> oneshot::Receiver<Answered> {
        let (reply, answered) = oneshot::channel();
        let asker = Asker {
            reply,
            answer: Answer::of(request),
        };
        let serving = self.shared.with(|state| {
            state.table.call(now(), request.clone(), known, asker);
            state.table.is_serving()
        });
        if !serving {
            self.shared.waits.notify_one();
        }
        answered
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A name for the client, by which a server knows its earlier streams. No secret.
fn name(given: Option<u128>) -> Bytes {
    if let Some(given) = given {
        return Bytes::copy_from_slice(&given.to_be_bytes());
    }
    let random = || std::hash::RandomState::new().build_hasher().finish();
    [random().to_be_bytes(), random().to_be_bytes()]
        .concat()
        .into()
}

struct Dialing<D> {
    dial: D,
    patience: Patience,
    name: Bytes,
    delay: Duration,
}

impl<D> Dialing<D> {
    /// The next stream with a server behind it. The one that did not get there is waited for a
    /// little longer each time.
    async fn next<F, S>(&mut self) -> Result<(Stream<S>, bool), ClientError>
    where
        D: FnMut() -> F,
        F: Future<Output = io::Result<S>>,
        S: AsyncRead + AsyncWrite,
    {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LAST_DELAY);
        let stream_failed = |source| ClientError::Stream { source };
        let stream = (self.dial)().await.map_err(stream_failed)?;
        let (mut read, mut write) = tokio::io::split(stream);
        let mut buffer = BytesMut::new();
        let shaking = shake(&mut read, &mut write, &mut buffer, Some(&self.name));
        let ours = tokio::time::timeout(self.patience.handshake, shaking)
            .await
            .map_err(|_| stream_failed(io::ErrorKind::TimedOut.into()))??;
        let stream = Stream {
            read,
            write,
            buffer,
        };
        Ok((stream, ours))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Weak<dyn Follow>>> {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the table, and does what comes of it.
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = f(&mut state);
        state.perform();
        let serving = state.table.is_serving();
        self.serving.send_if_modified(|told| {
            let changed = *told != serving;
            *told = serving;
            changed
        });
        result
    }

    async fn run<D, F, S>(
        self: Arc<Self>,
        mut dialing: Dialing<D>,
        first: Stream<S>,
        mut unneeded: mpsc::Receiver<()>,
    ) where
        D: FnMut() -> F,
        F: Future<Output = io::Result<S>>,
        S: AsyncRead + AsyncWrite,
    {
        let reconnecting = async {
            let mut stream = first;
            loop {
                match self.drive(stream, dialing.patience, &mut unneeded).await {
                    End::Unneeded => return,
                    End::Lost => {}
                }
                let useful = self.lost();
                if useful {
                    dialing.delay = Duration::ZERO;
                }
                stream = loop {
                    tokio::select! {
                        biased;
                        _ = unneeded.recv() => return,
                        found = dialing.next() => match found {
                            // A server of another kind is not the one that has our files.
                            Ok((stream, ours)) if ours == self.ours => break stream,
                            _ => {}
                        },
                    }
                };
            }
        };
        tokio::select! {
            () = reconnecting => {}
            never = self.expire() => match never {},
        }
        self.with(|state| state.table.end());
    }

    /// Follows one stream until it ends.
    async fn drive<S: AsyncRead + AsyncWrite>(
        &self,
        stream: Stream<S>,
        patience: Patience,
        unneeded: &mut mpsc::Receiver<()>,
    ) -> End {
        let Stream {
            mut read,
            mut write,
            buffer,
        } = stream;
        let (outgoing, queue) = mpsc::unbounded_channel();
        self.connected(outgoing);
        let mut sending = pin!(session::send(&mut write, queue));
        let mut receiving = pin!(self.receive(&mut read, buffer));
        let serves = tokio::time::timeout(patience.handshake, self.served());
        let serves = async {
            if serves.await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = &mut sending => return End::Lost,
            () = &mut receiving => return End::Lost,
            () = serves => return End::Lost,
            () = self.silence(patience.silence) => return End::Lost,
            _ = unneeded.recv() => {}
        }
        // What was asked last, mostly to close something, is still sent.
        self.with(|state| state.outgoing.take());
        tokio::select! {
            _ = sending => {}
            () = receiving => {}
            () = tokio::time::sleep(patience.handshake) => {}
        }
        End::Unneeded
    }

    async fn served(&self) {
        let mut serving = self.serving.subscribe();
        // It cannot be gone: it is here.
        let _ = serving.wait_for(|serving| *serving).await;
    }

    /// Completes when the server of a stream that stands answers nothing.
    async fn silence(&self, patience: Duration) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep_until(since + patience).await;
            let heard = self.state().heard;
            if heard > since {
                since = heard;
                continue;
            }
            if self.with(|state| state.table.silent()) == Silence::Gone {
                return;
            }
            since = Instant::now();
        }
    }

    fn connected(&self, outgoing: mpsc::UnboundedSender<(Frame, ())>) {
        let held = {
            let mut state = self.state();
            state.useful = false;
            state.outgoing = Some(outgoing);
            state.table.held()
        };
        // Asked without a lock: followers have their own.
        let followers: Vec<_> = self.followers().iter().filter_map(Weak::upgrade).collect();
        let path = |id| followers.iter().find_map(|follower| follower.path(id));
        let paths = held.into_iter();
        let paths = paths.filter_map(|(number, id)| Some((number, path(id)?)));
        let paths = paths.collect();
        drop(followers);
        self.with(|state| state.table.connected(&paths));
    }

    /// Gives whether the stream was of use.
    fn lost(&self) -> bool {
        let useful = self.with(|state| {
            state.outgoing = None;
            state.table.lost(now());
            state.useful
        });
        let followers: Vec<_> = {
            let mut followers = self.followers();
            followers.retain(|follower| follower.strong_count() > 0);
            followers.iter().filter_map(Weak::upgrade).collect()
        };
        for follower in followers {
            follower.lost();
        }
        self.waits.notify_one();
        useful
    }

    async fn receive<S: AsyncRead + AsyncWrite>(
        &self,
        read: &mut ReadHalf<S>,
        mut buffer: BytesMut,
    ) {
        while let Ok(Some(frame)) = session::frame(read, &mut buffer, MAX_FRAME).await {
            let Ok((id, reply)) = Reply::decode(frame) else {
                return;
            };
            let known = self.with(|state| {
                state.heard = Instant::now();
                state.useful |= state.table.is_serving();
                state.table.reply(id, reply)
            });
            if known.is_err() {
                return;
            }
        }
    }

    /// Ends the patience of those who wait for a connection.
    async fn expire(&self) -> std::convert::Infallible {
        loop {
            let next = self.state().table.next_expiry();
            match next {
                None => self.waits.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = self.waits.notified() => {}
                    }
                }
            }
            self.with(|state| state.table.expire(now()));
        }
    }
}

impl State {
    fn perform(&mut self) {
        loop {
            let actions: Vec<_> = self.table.actions().collect();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Send(id, request) => {
                        if let Some(outgoing) = &self.outgoing {
                            // One whose end is gone is lost in a moment.
                            let _ = outgoing.send((request.encode(id), ()));
                        }
                    }
                    Action::Answer(asker, result) => {
                        let Err(Ok(abandoned)) = asker.reply.send(result) else {
                            continue;
                        };
                        let Some(handle) = handle_in(abandoned, asker.answer) else {
                            continue;
                        };
                        let nobody = Asker {
                            reply: oneshot::channel().0,
                            answer: Answer::Plain,
                        };
                        let close = Request::Close { handle };
                        self.table.call(now(), close, Known::default(), nobody);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::sftp::{Errno, Hello, Side, Target, VERSION};

    /// What a server does with all but whether it is there.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Server {
        /// It answers when it is told to.
        Slow,
        /// It answers nothing.
        Silent,
    }

    async fn serve(
        stream: tokio::io::DuplexStream,
        server: Server,
        mut told: watch::Receiver<bool>,
    ) {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut buffer = BytesMut::new();
        let hello = Hello {
            version: VERSION,
            extensions: Vec::new(),
        };
        let mut answer = Some(hello.encode(Side::Server));
        let mut waiting = Vec::new();
        loop {
            if let Some(answer) = answer.take() {
                let (head, tail) = answer.into_parts();
                write
                    .write_all(&[&head[..], &tail[..]].concat())
                    .await
                    .unwrap();
            }
            tokio::select! {
                frame = session::frame(&mut read, &mut buffer, MAX_FRAME) => {
                    let Ok(Some(frame)) = frame else { return };
                    match Request::decode(frame) {
                        Ok((id, Request::Limits {})) if server == Server::Slow => {
                            answer = Some(Reply::ok().encode(id));
                        }
                        // The hello.
                        Ok((_, Request::Unknown { .. })) | Err(_) => {}
                        Ok((id, _)) => waiting.push(id),
                    }
                }
                Ok(_) = told.wait_for(|told| *told), if !waiting.is_empty() => {
                    answer = waiting.pop().map(|id| Reply::ok().encode(id));
                }
            }
        }
    }

    /// Asks a server, which is told to answer after a while; gives the answer, and how many streams there were.
    async fn ask(server: Server, after: Duration) -> (Option<Errno>, usize) {
        let (tell, told) = watch::channel(false);
        let dials = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&dials);
        let dial = move || {
            *counted.lock().unwrap() += 1;
            let (here, there) = tokio::io::duplex(1 << 16);
            tokio::spawn(serve(there, server, told.clone()));
            std::future::ready(Ok(here))
        };
        let line = Line::open(dial, Patience::default()).await.unwrap();
        let target = Target::Path("f".into());
        let answer = line.call(&Request::Look { target }, Known::default());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = tell.send(true);
            std::future::pending::<()>().await;
        });
        let reply = tokio::time::timeout(after * 2, answer).await;
        let dials = *dials.lock().unwrap();
        (reply.unwrap().unwrap().err(), dials)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_is_not_given_up() {
        let minutes = Duration::from_secs(600);
        assert_eq!(ask(Server::Slow, minutes).await, (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up() {
        let hours = Duration::from_secs(36_000);
        let (error, dials) = ask(Server::Silent, hours).await;
        assert_eq!(error, Some(Errno::Io));
        assert!(dials > 1, "there was another stream");
    }
}
