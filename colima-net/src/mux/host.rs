//! The opening side of a link, which keeps itself up.

use std::{fmt, io, sync::Arc, time::Duration};

use colima_core::{Connect, Endpoint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    handshake::{Hello, VERSIONS, find_answer, fresh_nonce},
    link::{End, Heartbeat, Link},
    stream::{MuxStream, Session},
    table::{CannotAsk, Role, Table},
};
use crate::NetError;

/// Limits and deadlines of the opening side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuxConfig {
    /// Bytes that the peer may send on a stream before they are read; 256 KiB by default.
    pub window: u32,
    /// Most streams at once; 4,096 by default.
    pub max_streams: usize,
    /// How long an open waits for the link and for the peer's answer; 30 s by default.
    pub open_timeout: Duration,
    /// How long a handshake is tried before the link is opened anew; 60 s by default, which
    /// leaves a guest the time to boot.
    pub handshake_timeout: Duration,
    /// When the first hello is repeated; each following pause is twice as long. 1 s by default.
    pub hello_interval: Duration,
    /// A peer from which nothing came for this long is pinged; 5 s by default.
    pub ping_interval: Duration,
    /// A peer from which nothing came for this long is dead; 15 s by default.
    pub dead_after: Duration,
    /// The first pause before a broken link is opened anew, doubled for each failure in a row;
    /// 100 ms by default.
    pub first_retry: Duration,
    /// The longest such pause; 5 s by default.
    pub longest_retry: Duration,
}

impl Default for MuxConfig {
    fn default() -> Self {
        Self {
            window: 256 * 1024,
            max_streams: 4096,
            open_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(60),
            hello_interval: Duration::from_secs(1),
            ping_interval: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            first_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(5),
        }
    }
}

/// Whether streams can be opened now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// The first attempt has not come to an end yet.
    Connecting,
    /// The peer answered.
    Up {
        /// The version of the protocol that both sides speak.
        version: u16,
    },
    /// The link is broken, and is being opened anew.
    Down {
        /// What broke it, or why the last attempt failed.
        reason: Arc<NetError>,
    },
    /// The link is gone for good.
    Closed {
        /// [`NetError::Closed`] after [`Mux::close`]; what broke it for a link that cannot be
        /// opened anew.
        reason: Arc<NetError>,
    },
}

/// What the link's task tells its handles.
#[derive(Clone)]
enum Current {
    None,
    Session(Arc<Session>),
    Closed,
}

/// Opens streams through one link, and keeps the link up.
///
/// Clones share the link.
///
/// # Drop
///
/// Dropping the last clone closes the link at once; open streams fail with `ConnectionReset`. Use
/// [`close`](Self::close) to let what was written leave first. Streams do not keep the link.
#[derive(Clone)]
pub struct Mux {
    shared: Arc<Shared>,
}

struct Shared {
    config: MuxConfig,
    state: watch::Receiver<LinkState>,
    current: watch::Receiver<Current>,
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Mux {
    /// A multiplexer over links that `dial` opens, one at a time, whenever the last one broke.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time: a task is started on it.
    pub fn new<D, F, S>(dial: D, config: MuxConfig) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(config, |task| task.keep_up(dial))
    }

    /// A multiplexer over one byte stream; when that breaks, the multiplexer is closed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time: a task is started on it.
    pub fn over<S>(io: S, config: MuxConfig) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(config, |mut task| async move {
            let error = task.use_link(Link::new(io)).await;
            task.finish(error);
        })
    }

    fn start<F>(config: MuxConfig, run: impl FnOnce(Task) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (state_sender, state) = watch::channel(LinkState::Connecting);
        let (current_sender, current) = watch::channel(Current::None);
        let (close, closing) = watch::channel(false);
        let task = tokio::spawn(run(Task {
            config: config.clone(),
            state: state_sender,
            current: current_sender,
            closing,
            was_up: false,
        }));
        Self {
            shared: Arc::new(Shared {
                config,
                state,
                current,
                close,
                task,
            }),
        }
    }

    /// The state of the link, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state.clone()
    }

    /// Streams that this side remembers now; 0 when none is open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        match &*self.shared.current.borrow() {
            Current::Session(session) => session.with(|table| table.len()),
            Current::None | Current::Closed => 0,
        }
    }

    /// Opens a stream to `endpoint`, waiting for the link if need be.
    ///
    /// When the link breaks before the peer has answered, the open is tried again on the next one.
    ///
    /// # Errors
    ///
    /// [`NetError::Refused`] with the peer's reason; [`NetError::LinkDown`] or [`NetError::OpenTimedOut`]
    /// at the deadline of the configuration; [`NetError::Closed`], for which [`state`](Self::state)
    /// has the reason; [`NetError::TooManyStreams`]; [`NetError::Endpoint`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the open back.
    pub async fn open(&self, endpoint: &Endpoint) -> Result<MuxStream, NetError> {
        if !super::endpoint_bytes::fits(endpoint) {
            let endpoint = endpoint.clone();
            return Err(NetError::Endpoint { endpoint });
        }
        let after = self.shared.config.open_timeout;
        let deadline = Instant::now() + after;
        let mut current = self.shared.current.clone();
        loop {
            let found = timeout_at(deadline, session(&mut current)).await;
            let session = match found {
                Ok(session) => session?,
                Err(_) => {
                    let endpoint = endpoint.clone();
                    return Err(NetError::LinkDown { endpoint, after });
                }
            };
            let asked = session.with(|table| table.ask(endpoint.clone()));
            let stream = match asked {
                Ok(id) => MuxStream::new(session, id),
                Err(CannotAsk::Limit) => {
                    let limit = self.shared.config.max_streams;
                    return Err(NetError::TooManyStreams { limit });
                }
                Err(CannotAsk::Ended) => {
                    next(&mut current, deadline).await;
                    continue;
                }
            };
            let opened = std::future::poll_fn(|cx| {
                let id = stream.id();
                stream.session().with(|table| table.poll_opened(id, cx))
            });
            match timeout_at(deadline, opened).await {
                Ok(Ok(Ok(()))) => return Ok(stream),
                Ok(Ok(Err(refusal))) => {
                    return Err(NetError::Refused {
                        endpoint: endpoint.clone(),
                        kind: refusal.kind(),
                        message: refusal.to_string(),
                    });
                }
                // The session ended while we waited.
                Ok(Err(_)) => next(&mut current, deadline).await,
                Err(_) => {
                    let endpoint = endpoint.clone();
                    return Err(NetError::OpenTimedOut { endpoint, after });
                }
            }
        }
    }

    /// Closes the link for all clones: opens fail from now on, what was written leaves first, open
    /// streams fail with `ConnectionReset`. Takes at most a second.
    pub async fn close(&self) {
        self.shared.close.send_replace(true);
        let mut current = self.shared.current.clone();
        // An error means that the task is gone, which is what we wait for.
        let _ = current
            .wait_for(|current| matches!(current, Current::Closed))
            .await;
    }
}

impl Connect for Mux {
    type Stream = MuxStream;

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<MuxStream> {
        Ok(self.open(endpoint).await?)
    }
}

/// Waits for a session.
async fn session(current: &mut watch::Receiver<Current>) -> Result<Arc<Session>, NetError> {
    let found = current
        .wait_for(|current| !matches!(current, Current::None))
        .await;
    match found.as_deref() {
        Ok(Current::Session(session)) => Ok(Arc::clone(session)),
        Ok(Current::Closed | Current::None) | Err(_) => Err(NetError::Closed),
    }
}

/// Waits until the task has published something newer than the session that just ended.
async fn next(current: &mut watch::Receiver<Current>, deadline: Instant) {
    let _ = timeout_at(deadline, current.changed()).await;
}

/// The task behind a [`Mux`].
struct Task {
    config: MuxConfig,
    state: watch::Sender<LinkState>,
    current: watch::Sender<Current>,
    closing: watch::Receiver<bool>,
    /// The link was up since the last pause.
    was_up: bool,
}

impl Task {
    /// Opens link after link until the multiplexer is closed.
    async fn keep_up<D, F, S>(mut self, mut dial: D)
    where
        D: FnMut() -> F + Send,
        F: Future<Output = io::Result<S>> + Send,
        S: AsyncRead + AsyncWrite + Send,
    {
        let mut pause = self.config.first_retry;
        loop {
            let dialed = tokio::select! {
                dialed = dial() => dialed,
                () = closed(self.closing.clone()) => return self.finish(NetError::Closed),
            };
            self.was_up = false;
            let error = match dialed {
                Ok(io) => self.use_link(Link::new(io)).await,
                Err(source) => NetError::Dial { source },
            };
            if matches!(error, NetError::Closed) {
                return self.finish(error);
            }
            self.down(error);
            if self.was_up {
                pause = self.config.first_retry;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closed(self.closing.clone()) => return self.finish(NetError::Closed),
            }
            pause = (pause * 2).min(self.config.longest_retry);
        }
    }

    /// Runs sessions on one link until it breaks or the multiplexer is closed.
    async fn use_link<S: AsyncRead + AsyncWrite + Send>(&mut self, mut link: Link<S>) -> NetError {
        loop {
            let shaken = tokio::select! {
                shaken = shake_hands(&mut link, &self.config) => shaken,
                () = closed(self.closing.clone()) => Err(NetError::Closed),
            };
            let version = match shaken {
                Ok(version) => version,
                Err(error) => return error,
            };
            let error = self.run_session(&mut link, version).await;
            if !matches!(error, NetError::PeerRestarted) {
                return error;
            }
            self.down(error);
        }
    }

    async fn run_session<S>(&mut self, link: &mut Link<S>, version: u16) -> NetError
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let config = &self.config;
        let table = Table::new(Role::Opening, config.window, config.max_streams);
        let session = Session::new(table);
        let heartbeat = Heartbeat {
            interval: config.ping_interval,
            dead_after: config.dead_after,
        };
        self.was_up = true;
        self.current
            .send_replace(Current::Session(Arc::clone(&session)));
        self.state.send_replace(LinkState::Up { version });
        // Should this future be dropped, the streams fail with it.
        let _ended = EndOnDrop(&session);
        let end = tokio::select! {
            end = link.run(&session, Some(heartbeat), |_| {}) => end,
            () = closed(self.closing.clone()) => {
                let drained = link.output.drain(&session);
                let _ = tokio::time::timeout(DRAIN, drained).await;
                return NetError::Closed;
            }
        };
        match end {
            End::Eof => NetError::LinkEnded,
            End::Io(source) => NetError::Link { source },
            End::Restarted => NetError::PeerRestarted,
            End::Garbled => NetError::Violation {
                violation: crate::Violation::Frame,
            },
            End::Violation(violation) => NetError::Violation { violation },
            End::Silent(after) => NetError::PeerSilent { after },
        }
    }

    fn down(&self, error: NetError) {
        self.current.send_replace(Current::None);
        let reason = Arc::new(error);
        self.state.send_replace(LinkState::Down { reason });
    }

    fn finish(&self, error: NetError) {
        let reason = Arc::new(error);
        self.state.send_replace(LinkState::Closed { reason });
        self.current.send_replace(Current::Closed);
    }
}

/// How long a closing link may take to write what it was given.
const DRAIN: Duration = Duration::from_secs(1);

struct EndOnDrop<'a>(&'a Session);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.with(Table::end);
    }
}

async fn closed(mut closing: watch::Receiver<bool>) {
    // An error means that the handles are gone; the task is about to be aborted.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Sends hellos until the answer to the latest one arrives; returns the version.
///
/// Only the latest counts: the peer drops everything at each hello, so an answer to an earlier
/// one says nothing about what follows it.
async fn shake_hands<S>(link: &mut Link<S>, config: &MuxConfig) -> Result<u16, NetError>
where
    S: AsyncRead + AsyncWrite,
{
    let after = config.handshake_timeout;
    let deadline = Instant::now() + after;
    let mut patience = config.hello_interval;
    let Link { input, output } = link;
    loop {
        let nonce = fresh_nonce().map_err(|source| NetError::Random { source })?;
        let versions = VERSIONS;
        output.replace(|out| Hello { nonce, versions }.encode(out));
        let attempt = async {
            output.write_queued().await.map_err(End::Io)?;
            tokio::time::sleep(patience).await;
            Ok(())
        };
        let answer = tokio::select! {
            answer = input.scan(|bytes| find_answer(bytes, nonce)) => answer.map(Some),
            written = attempt => written.map(|()| None),
            () = tokio::time::sleep_until(deadline) => return Err(NetError::NoAnswer { after }),
        };
        match answer {
            Ok(Some(answer)) => return answer.version.ok_or(NetError::Version),
            Ok(None) => patience *= 2,
            Err(End::Io(source)) => return Err(NetError::Link { source }),
            Err(_) => return Err(NetError::LinkEnded),
        }
    }
}
