//! The client: what a user of the module holds.

use std::{
    fmt, io,
    os::unix::net::UnixStream as StdUnixStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use colima_core::{Command, Connect, Endpoint, Guest, Output};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    Login, SshError, SshStream,
    command::{self, Run},
    flow::StreamTask,
    link::{self, LinkTask},
    pool::{Handle, Pool, Task},
    session::{self, Plan},
    stream::StreamState,
    target::Target,
    wire::Heartbeat,
};

/// Limits and deadlines of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshConfig {
    /// Most streams and commands at once; 256 by default. Each has a session of its own, which is a
    /// thread here and a process there.
    pub max_streams: usize,
    /// Sessions that are kept when nobody uses them; 4 by default.
    pub most_idle: usize,
    /// Sessions that are made ready before somebody needs them; 1 by default, 0 for none.
    pub ready: usize,
    /// Sessions that log in at the same time; 4 by default. OpenSSH refuses some of more than ten
    /// (MaxStartups).
    pub logins: usize,
    /// How long an open waits for a session and for the server's answer; 30 s by default.
    pub open_timeout: Duration,
    /// How long one attempt to reach the server and to log in may take; 15 s by default.
    pub handshake_timeout: Duration,
    /// A server from which nothing came for this long is asked whether it lives; 5 s by default.
    pub ping_interval: Duration,
    /// A server from which nothing came for this long is dead; 15 s by default.
    pub dead_after: Duration,
    /// The first pause before a failed attempt is repeated, doubled each time; 100 ms by default.
    pub first_retry: Duration,
    /// The longest such pause; 5 s by default.
    pub longest_retry: Duration,
}

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            max_streams: 256,
            most_idle: 4,
            ready: 1,
            logins: 4,
            open_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(15),
            ping_interval: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            first_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(5),
        }
    }
}

/// A far side that is an ssh server.
///
/// Clones share their sessions. Nothing is connected before the first call, and every call is
/// independent: a session that broke fails its own stream, and the next call gets another one.
///
/// # Drop
///
/// Dropping the last clone ends the idle sessions. Open streams and commands go on.
#[derive(Clone)]
pub struct Ssh {
    shared: Arc<Shared>,
}

struct Shared {
    dial: Box<Dial>,
    plan: Arc<Plan>,
    config: SshConfig,
    pool: Arc<Pool>,
    logins: Semaphore,
    streams: Arc<Semaphore>,
    preparing: AtomicBool,
}

type Dial = dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>> + Send + Sync;

/// What a dialed link is to a session.
type Socket = (StdUnixStream, LinkTask);

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh")
            .field("login", &self.shared.plan.login)
            .field("idle", &self.shared.pool.len())
            .finish_non_exhaustive()
    }
}

impl Ssh {
    /// A client whose sessions run over the byte streams that `dial` opens, one each.
    ///
    /// A TCP connection to port 22 is the usual one; a unix socket, the streams of a program or a
    /// stream of a `Mux` will do as well.
    pub fn new<D, F, S>(dial: D, login: Login, config: SshConfig) -> Self
    where
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let dial = move || {
            let dialed = dial();
            let linked = async move { link::carry(dialed.await?) };
            Box::pin(linked) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        let plan = Plan {
            login,
            heartbeat: Heartbeat {
                interval: config.ping_interval,
                dead_after: config.dead_after,
            },
            open_timeout: config.open_timeout,
        };
        Self {
            shared: Arc::new(Shared {
                dial: Box::new(dial),
                plan: Arc::new(plan),
                pool: Arc::new(Pool::new(config.most_idle)),
                logins: Semaphore::new(config.logins.clamp(1, Semaphore::MAX_PERMITS)),
                streams: Arc::new(Semaphore::new(
                    config.max_streams.min(Semaphore::MAX_PERMITS),
                )),
                preparing: AtomicBool::new(false),
                config,
            }),
        }
    }

    /// Sessions that are logged in and idle.
    #[must_use]
    pub fn idle_sessions(&self) -> usize {
        self.shared.pool.len()
    }

    /// Opens a stream: to a unix socket or a TCP port at the server, or to the subsystem of a
    /// service's name.
    ///
    /// Where there is no session one is made; attempts that fail for a reason that may pass are
    /// repeated until the deadline.
    ///
    /// # Errors
    ///
    /// [`SshError::Refused`] by the server; [`SshError::HostKeyMismatch`], [`SshError::Handshake`] and
    /// [`SshError::Authentication`] at once; [`SshError::Down`] and [`SshError::OpenTimedOut`] at
    /// the deadline of the configuration; [`SshError::TooManyStreams`]; [`SshError::Endpoint`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt; a session that was busy with it is ended.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time: tasks are started on it.
    pub async fn open(&self, endpoint: &Endpoint) -> Result<SshStream, SshError> {
        let Some(target) = Target::new(endpoint) else {
            let endpoint = endpoint.clone();
            return Err(SshError::Endpoint { endpoint });
        };
        self.open_target(target).await
    }

    /// Starts a command and returns its standard input and output as one stream, such as a link for a
    /// `Mux`. Its standard error is dropped, and [`Command::stdin`] is not used.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open); a command that cannot be started is a stream that ends at once.
    ///
    /// # Cancel safety
    ///
    /// As for [`open`](Self::open). Dropping the stream closes the command's standard streams, which
    /// most commands end of.
    pub async fn open_command(&self, command: &Command) -> Result<SshStream, SshError> {
        let line = command::stream_line(&command.argv)?;
        self.open_target(Target::Command(line)).await
    }

    /// Runs a command to its end; see [`Guest::run`].
    ///
    /// The words of the command reach it as they are, through the user's login shell, which must be a
    /// POSIX one, and `/bin/sh`.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); [`SshError::NoSuchProgram`], [`SshError::NotStarted`],
    /// [`SshError::TooMuchOutput`]; [`SshError::Session`] and [`SshError::PeerSilent`] when the session
    /// broke, which leaves the command as it is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the command and its process group.
    pub async fn command(&self, command: &Command) -> Result<Output, SshError> {
        let line = command::line(&command.argv)?;
        let permit = self.permit()?;
        let deadline = Instant::now() + self.shared.config.open_timeout;
        loop {
            let (session, age) = self.session(deadline).await?;
            let (wanted, _unwanted) =
                StdUnixStream::pair().map_err(|source| SshError::Start { source })?;
            let (ended, end) = oneshot::channel();
            let run = Run {
                line: line.clone(),
                program: command.argv.first().cloned().unwrap_or_default(),
                stdin: command.stdin.clone(),
                wanted,
                ended,
            };
            // The session itself finds out when we are gone, and kills what runs.
            session
                .perform(Task::Run(run), &self.shared.pool, Arc::clone(&permit))
                .defuse();
            match end.await {
                Ok(result) => {
                    self.prepare();
                    return result;
                }
                // An idle session that died before it took the command.
                Err(_) if age == Age::Idle => {}
                Err(_) => return Err(gone()),
            }
        }
    }

    /// Proves that the server answers, has the pinned key and lets us in.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open); [`SshError::PeerSilent`] when the answer does not come in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the question.
    pub async fn check(&self) -> Result<(), SshError> {
        let permit = self.permit()?;
        let after = self.shared.config.open_timeout;
        let deadline = Instant::now() + after;
        loop {
            let (session, age) = self.session(deadline).await?;
            let (answered, answer) = oneshot::channel();
            let fuse = session.perform(
                Task::Ping { answered },
                &self.shared.pool,
                Arc::clone(&permit),
            );
            match timeout_at(deadline, answer).await {
                Ok(Ok(())) => {
                    fuse.defuse();
                    return Ok(());
                }
                Ok(Err(_)) if age == Age::Idle => {}
                Ok(Err(_)) => return Err(gone()),
                Err(_) => return Err(SshError::PeerSilent { after }),
            }
        }
    }

    async fn open_target(&self, target: Target) -> Result<SshStream, SshError> {
        let permit = self.permit()?;
        let after = self.shared.config.open_timeout;
        let deadline = Instant::now() + after;
        loop {
            let (session, age) = self.session(deadline).await?;
            let start = |source| SshError::Start { source };
            let (user, theirs) = StdUnixStream::pair().map_err(start)?;
            user.set_nonblocking(true).map_err(start)?;
            let user = UnixStream::from_std(user).map_err(start)?;
            let state = Arc::new(StreamState::default());
            let (opened, open) = oneshot::channel();
            let task = Task::Stream(StreamTask {
                target: target.clone(),
                user: theirs,
                state: Arc::clone(&state),
                opened,
            });
            let fuse = session.perform(task, &self.shared.pool, Arc::clone(&permit));
            match timeout_at(deadline, open).await {
                Ok(Ok(Ok(()))) => {
                    fuse.defuse();
                    self.prepare();
                    return Ok(SshStream::new(user, state));
                }
                Ok(Ok(Err(error))) => {
                    if !error.may_pass() {
                        fuse.defuse();
                        return Err(error);
                    }
                    if age == Age::New {
                        return Err(error);
                    }
                }
                Ok(Err(_)) if age == Age::Idle => {}
                Ok(Err(_)) => return Err(gone()),
                Err(_) => {
                    let target = target.to_string();
                    return Err(SshError::OpenTimedOut { target, after });
                }
            }
        }
    }

    fn permit(&self) -> Result<Arc<OwnedSemaphorePermit>, SshError> {
        match Arc::clone(&self.shared.streams).try_acquire_owned() {
            Ok(permit) => Ok(Arc::new(permit)),
            Err(_) => Err(SshError::TooManyStreams {
                limit: self.shared.config.max_streams,
            }),
        }
    }

    /// An idle session, or a new one.
    async fn session(&self, deadline: Instant) -> Result<(Handle, Age), SshError> {
        let config = &self.shared.config;
        let mut pause = config.first_retry;
        let mut last = SshError::HandshakeTimedOut {
            after: config.open_timeout,
        };
        while Instant::now() < deadline {
            if let Some(session) = self.shared.pool.take() {
                return Ok((session, Age::Idle));
            }
            match timeout_at(deadline, self.shared.log_in()).await {
                Ok(Ok(session)) => return Ok((session, Age::New)),
                Ok(Err(error)) if error.may_pass() => last = error,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
            sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(config.longest_retry);
        }
        Err(SshError::Down {
            after: config.open_timeout,
            source: Box::new(last),
        })
    }

    /// Makes a session for the next one who needs it. A failure is left to be found by them.
    fn prepare(&self) {
        let shared = &self.shared;
        if shared.pool.len() >= shared.config.ready || shared.preparing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let shared = Arc::downgrade(shared);
        tokio::spawn(async move {
            if let Some(shared) = shared.upgrade() {
                if let Ok(session) = shared.log_in().await {
                    shared.pool.put(session);
                }
                shared.preparing.store(false, Ordering::Release);
            }
        });
    }
}

impl Shared {
    /// One attempt to make a session.
    async fn log_in(&self) -> Result<Handle, SshError> {
        // The semaphore is never closed.
        let _turn = self.logins.acquire().await;
        let after = self.config.handshake_timeout;
        let logged_in = async {
            let (socket, task) = (self.dial)()
                .await
                .map_err(|source| SshError::Dial { source })?;
            // Stops the link, and with it the thread, when we are dropped before it is done.
            let fuse = task.fuse();
            let (sender, ready) = oneshot::channel();
            session::start(socket, Arc::clone(&self.plan), sender, task)
                .map_err(|source| SshError::Start { source })?;
            let session = ready.await.unwrap_or_else(|_| Err(gone()))?;
            fuse.defuse();
            Ok(session)
        };
        timeout(after, logged_in)
            .await
            .unwrap_or(Err(SshError::HandshakeTimedOut { after }))
    }
}

/// Whether a session has waited for its task, and may have died meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Idle,
    New,
}

fn gone() -> SshError {
    SshError::Session {
        message: "its thread is gone".to_owned(),
    }
}

impl Connect for Ssh {
    type Stream = SshStream;

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<SshStream> {
        Ok(self.open(endpoint).await?)
    }
}

impl Guest for Ssh {
    async fn run(&self, command: &Command) -> io::Result<Output> {
        Ok(self.command(command).await?)
    }
}
