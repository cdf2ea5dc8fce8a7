//! The daemon of one profile: supervises the machine, carries the relays, serves the command line.
//!
//! ```text
//!                 start                       all steps done
//!      Idle ───────────────> Starting ───────────────────────> Running
//!       ^  ^                    │ abandoned or failed             │ │ stop
//!       │  └────────────────────┘ (undone, then Idle)             │ v
//!       └───────────────────────────────────────────────────── Stopping
//!            ^                the machine ended by itself         │
//!            └────────────────────────────────────────────────────┘
//! ```
//!
//! Idle is with or without a machine that is suspended: that is a file, and `instance/resume.rs` draws what a start makes of
//! it. From the moment its guest goes on such a start is not abandoned any more, and ends as Running.
//!
//! It is alive while the machine is, and leaves when it is idle and nobody asks. It can be killed at
//! any moment: the machine, in a session of its own, does not notice, and the next daemon finds it
//! by the lock that QEMU itself holds.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use colima_net::relay::SocketFile;
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::UnixStream,
    sync::{Mutex, broadcast, watch},
};

use crate::{
    command_error::{CommandError, ErrorKind},
    control::{self, Reply, Request, Stage, Started, StopManner, Stopped, WhenSuspended},
    instance::{BroughtUp, Found, Happening, Instance, InstanceSpec, Probe, Stranded},
    state_dir::ProfilePaths,
};

mod events;
mod job;
mod mounts;

use job::{Job, Progress};

/// How long a daemon that nobody has asked anything waits for its first request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// How long a client may take to say what it wants.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long a daemon waits for one that is leaving.
const PREDECESSOR_LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// Happenings that a slow listener may not have read yet; beyond that it misses the oldest.
const MOST_UNTOLD: usize = 64;

/// How long accepting pauses when the system lacks something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a daemon could not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Another daemon serves this profile.
    #[error("another daemon serves this profile already")]
    Taken,
    /// Its lock file could not be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its socket could not be bound.
    #[error("cannot listen")]
    Listen {
        /// The cause.
        #[source]
        source: colima_net::NetError,
    },
}

/// What the instance is doing.
#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Starting(Arc<Job>),
    Running(Arc<Instance>),
    /// A machine runs that cannot be used. It can be stopped.
    Stranded(Stranded),
    Stopping(Arc<Job>),
}

#[derive(Debug)]
struct Daemon {
    paths: ProfilePaths,
    /// Changed under the lock, watched without it.
    phase: watch::Sender<Phase>,
    change: Mutex<()>,
    happenings: broadcast::Sender<Happening>,
    clients: watch::Sender<usize>,
    retired: watch::Sender<bool>,
}

/// Serves the profile until there is nothing left to supervise, or until `terminate` resolves, in
/// which case the machine goes on without a daemon.
///
/// `listening` is called once clients can connect.
///
/// # Errors
///
/// See [`DaemonError`]; a machine that cannot be adopted is not an error: it can be stopped.
pub async fn serve(
    paths: ProfilePaths,
    listening: impl FnOnce(),
    terminate: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let _lock = take_lock(&paths.daemon_lock).await?;
    let socket =
        SocketFile::bind(&paths.control_socket).map_err(|source| DaemonError::Listen { source })?;
    let daemon = Arc::new(Daemon {
        phase: watch::Sender::new(Phase::Idle),
        change: Mutex::new(()),
        happenings: broadcast::Sender::new(MOST_UNTOLD),
        clients: watch::Sender::new(0),
        retired: watch::Sender::new(false),
        paths,
    });
    match Instance::find(&daemon.paths).await {
        Ok(Found::Nothing) => {}
        Ok(Found::Instance(instance)) => daemon.run(Arc::new(*instance)),
        Ok(Found::Stranded(stranded)) => daemon.strand(stranded),
        Err(error) => crate::log_line(&format!("cannot look for the machine: {error}")),
    }
    listening();
    let leave = daemon.nothing_left_to_do();
    tokio::pin!(terminate, leave);
    loop {
        tokio::select! {
            accepted = socket.listener().accept() => match accepted {
                Ok((stream, _)) => daemon.clone().serve_client(stream),
                Err(error) => {
                    crate::log_line(&format!("cannot accept a client: {error}"));
                    // Out of descriptors: a client that leaves makes room, and so may a relay's.
                    let _ = tokio::time::timeout(ACCEPT_PAUSE, daemon.a_client_left()).await;
                }
            },
            () = &mut leave => break,
            () = &mut terminate => break,
        }
    }
    daemon.let_go().await;
    Ok(())
}

/// Takes the lock, from a predecessor that is still leaving if need be.
async fn take_lock(path: &std::path::Path) -> Result<File, DaemonError> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |source| DaemonError::Lock {
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    match tokio::time::timeout(PREDECESSOR_LEAVES_WITHIN, waiting).await {
        Ok(Ok(locked)) => locked.map_err(failed),
        Ok(Err(error)) => Err(failed(io::Error::other(error))),
        Err(_) => Err(DaemonError::Taken),
    }
}

impl Daemon {
    fn serve_client(self: Arc<Self>, stream: UnixStream) {
        self.clients.send_modify(|clients| *clients += 1);
        tokio::spawn(async move {
            if let Err(error) = self.converse(stream).await {
                crate::log_line(&format!("a conversation broke off: {error}"));
            }
            self.clients.send_modify(|clients| *clients -= 1);
        });
    }

    async fn converse(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let asked = control::receive::<_, Request>(&mut stream);
        let request = match tokio::time::timeout(REQUEST_WITHIN, asked).await {
            Ok(request) => request?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let Some(request) = request else {
            return Ok(());
        };
        match request {
            Request::Hello => {
                let reply = Reply::Hello {
                    version: control::VERSION,
                    pid: std::process::id(),
                };
                control::send(&mut stream, &reply).await
            }
            Request::Status => {
                let reply = Reply::Status(Box::new(self.probe().await));
                control::send(&mut stream, &reply).await
            }
            Request::Retire => {
                self.retired.send_replace(true);
                control::send(&mut stream, &Reply::Retired).await
            }
            Request::Start {
                spec,
                boot,
                suspended,
            } => self.start(&mut stream, *spec, *boot, suspended).await,
            Request::Stop { manner } => self.stop(&mut stream, manner).await,
            Request::Mount { share } => {
                let reply = self.mount(share).await;
                control::send(&mut stream, &reply).await
            }
            Request::Unmount { path } => {
                let reply = self.unmount(&path).await;
                control::send(&mut stream, &reply).await
            }
            Request::Events => self.tell_events(&mut stream).await,
            Request::AwaitEnd => self.await_end(&mut stream).await,
            // It follows another request, and there was none.
            Request::Withdraw => Ok(()),
        }
    }

    async fn probe(&self) -> Probe {
        let phase = self.phase.borrow().clone();
        match phase {
            Phase::Idle => Probe::at_rest(&self.paths),
            Phase::Starting(_) => Probe::Starting,
            Phase::Stopping(_) => Probe::Stopping,
            Phase::Running(instance) => instance.probe().await,
            Phase::Stranded(Stranded { why, .. }) => Probe::Stranded { why },
        }
    }

    async fn start(
        self: &Arc<Self>,
        client: &mut BufReader<UnixStream>,
        spec: InstanceSpec,
        boot: colima_core::boot::BootConfig,
        suspended: WhenSuspended,
    ) -> io::Result<()> {
        loop {
            let guard = self.change.lock().await;
            let phase = self.phase.borrow().clone();
            let job = match phase {
                Phase::Running(instance) => {
                    let differing = instance.differing(&spec);
                    return control::send(client, &Reply::Started(Started::Before { differing }))
                        .await;
                }
                Phase::Stranded(Stranded { why, .. }) => {
                    return control::send(client, &Reply::Failed(why)).await;
                }
                // Ours too: two starts of one profile give one machine.
                Phase::Starting(job) if !job.was_abandoned() => job,
                Phase::Starting(job) | Phase::Stopping(job) => {
                    drop(guard);
                    if self.client_left_before(client, &job).await {
                        return Ok(());
                    }
                    continue;
                }
                Phase::Idle => {
                    let job = Arc::new(Job::new());
                    self.phase.send_replace(Phase::Starting(job.clone()));
                    let (spec, boot) = (spec.clone(), boot.clone());
                    tokio::spawn(
                        self.clone()
                            .work_on_start(job.clone(), spec, boot, suspended),
                    );
                    job
                }
            };
            // Given up between our look and now: once more.
            let Some(follower) = job.follow() else {
                continue;
            };
            drop(guard);
            return tell(client, follower).await;
        }
    }

    async fn work_on_start(
        self: Arc<Self>,
        job: Arc<Job>,
        spec: InstanceSpec,
        boot: colima_core::boot::BootConfig,
        suspended: WhenSuspended,
    ) {
        let began = std::time::Instant::now();
        let progress = |stage: Stage| job.tell(stage);
        let given_up = job.is_abandoned();
        match Instance::bring_up(&self.paths, spec, boot, suspended, &progress, given_up).await {
            Ok((instance, how)) => {
                self.run(Arc::new(instance));
                let elapsed = began.elapsed();
                job.finish(Ok(Reply::Started(match how {
                    BroughtUp::Booted => Started::Now { elapsed },
                    BroughtUp::Resumed => Started::Resumed { elapsed },
                })));
            }
            Err(failure) => {
                // Whatever the start had made ends with its values; only then is it undone.
                Instance::wait_gone(&self.paths).await;
                self.phase.send_replace(Phase::Idle);
                job.finish(Err(failure));
            }
        }
    }

    /// Supervises a running instance.
    fn run(self: &Arc<Self>, instance: Arc<Instance>) {
        self.phase.send_replace(Phase::Running(instance.clone()));
        let daemon = self.clone();
        tokio::spawn(async move {
            // Nobody needs to listen.
            let tell = |happening| drop(daemon.happenings.send(happening));
            instance.supervise(tell).await;
            let how = instance.ended().await;
            let _guard = daemon.change.lock().await;
            let still_ours = matches!(
                &*daemon.phase.borrow(),
                Phase::Running(current) if Arc::ptr_eq(current, &instance)
            );
            if still_ours {
                crate::log_line(&format!("the machine ended: {how}"));
                instance.clean_up().await;
                daemon.phase.send_replace(Phase::Idle);
            }
        });
    }

    async fn stop(
        self: &Arc<Self>,
        client: &mut BufReader<UnixStream>,
        manner: StopManner,
    ) -> io::Result<()> {
        loop {
            let guard = self.change.lock().await;
            let phase = self.phase.borrow().clone();
            let job = match phase {
                Phase::Idle => {
                    return control::send(client, &Reply::Stopped(Stopped::Before)).await;
                }
                Phase::Starting(job) => {
                    drop(guard);
                    job.abandon();
                    if self.client_left_before(client, &job).await {
                        return Ok(());
                    }
                    continue;
                }
                Phase::Stopping(job) => job,
                running @ (Phase::Running(_) | Phase::Stranded(_)) => {
                    let job = Arc::new(Job::new());
                    self.phase.send_replace(Phase::Stopping(job.clone()));
                    tokio::spawn(self.clone().work_on_stop(job.clone(), running, manner));
                    job
                }
            };
            // A stop that lost its audience is finished all the same, and can be waited for.
            let Some(follower) = job.follow() else {
                drop(guard);
                if self.client_left_before(client, &job).await {
                    return Ok(());
                }
                continue;
            };
            drop(guard);
            return tell(client, follower).await;
        }
    }

    async fn work_on_stop(self: Arc<Self>, job: Arc<Job>, running: Phase, manner: StopManner) {
        // A stop that was begun is finished, whoever still waits for it.
        let progress = |stage: Stage| job.tell(stage);
        let outcome = match &running {
            Phase::Running(instance) => instance.stop(manner, &progress).await,
            Phase::Stranded(stranded) => stranded.stop(manner).await,
            Phase::Idle | Phase::Starting(_) | Phase::Stopping(_) => Ok(Stopped::Before),
        };
        match outcome {
            Ok(stopped) => {
                self.phase.send_replace(Phase::Idle);
                job.finish(Ok(Reply::Stopped(stopped)));
            }
            Err(failure) => {
                // Its sockets are closed by now: found again, it gets new ones.
                self.phase.send_replace(running);
                self.retired.send_replace(true);
                job.finish(Err(failure));
            }
        }
    }

    /// Holds a machine that cannot be used until somebody stops it.
    fn strand(self: &Arc<Self>, stranded: Stranded) {
        crate::log_line(&format!("the machine cannot be used: {}", stranded.why));
        self.phase.send_replace(Phase::Stranded(stranded.clone()));
        let daemon = self.clone();
        tokio::spawn(async move {
            let how = stranded.ended().await;
            let _guard = daemon.change.lock().await;
            if matches!(&*daemon.phase.borrow(), Phase::Stranded(_)) {
                crate::log_line(&format!("the machine ended: {how}"));
                daemon.phase.send_replace(Phase::Idle);
            }
        });
    }

    /// Tells the client when nothing runs any more.
    async fn await_end(&self, client: &mut BufReader<UnixStream>) -> io::Result<()> {
        let mut phase = self.phase.subscribe();
        let mut nothing_more = [0];
        tokio::select! {
            _ = phase.wait_for(|phase| matches!(phase, Phase::Idle)) => {}
            // It has left.
            _ = client.read(&mut nothing_more) => return Ok(()),
        }
        control::send(client, &Reply::Stopped(Stopped::Before)).await
    }

    /// Waits until the daemon is done with `job`; says whether the client left before.
    async fn client_left_before(&self, client: &mut BufReader<UnixStream>, job: &Arc<Job>) -> bool {
        let mut nothing_more = [0];
        let done = async {
            job.finished().await;
            self.has_left_phase_of(job).await;
        };
        tokio::select! {
            () = done => false,
            _ = client.read(&mut nothing_more) => true,
        }
    }

    /// Waits until `job` is no longer what the daemon is busy with.
    async fn has_left_phase_of(&self, job: &Arc<Job>) {
        let mut phase = self.phase.subscribe();
        let busy = |phase: &Phase| match phase {
            Phase::Starting(current) | Phase::Stopping(current) => Arc::ptr_eq(current, job),
            Phase::Idle | Phase::Running(_) | Phase::Stranded(_) => false,
        };
        // The sender lives in `self`.
        let _ = phase.wait_for(|phase| !busy(phase)).await;
    }

    async fn a_client_left(&self) {
        let mut clients = self.clients.subscribe();
        let _ = clients.changed().await;
    }

    /// Resolves when the daemon serves no purpose any more.
    fn nothing_left_to_do(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let daemon = self.clone();
        async move {
            let mut phase = daemon.phase.subscribe();
            let mut clients = daemon.clients.subscribe();
            let mut retired = daemon.retired.subscribe();
            let mut first_request = daemon.clients.subscribe();
            let asked = first_request.changed();
            // Somebody started us in order to ask; nobody did if this runs out.
            let _ = tokio::time::timeout(FIRST_REQUEST_WITHIN, asked).await;
            loop {
                let idle = matches!(&*phase.borrow_and_update(), Phase::Idle);
                let alone = *clients.borrow_and_update() == 0;
                if alone && (idle || *retired.borrow_and_update()) {
                    return;
                }
                tokio::select! {
                    _ = phase.changed() => {}
                    _ = clients.changed() => {}
                    _ = retired.changed() => {}
                }
            }
        }
    }

    /// Undoes a start under way, finishes a stop under way, and lets go of a running machine.
    async fn let_go(&self) {
        let phase = self.phase.borrow().clone();
        if let Phase::Starting(job) = &phase {
            job.abandon();
        }
        if let Phase::Starting(job) | Phase::Stopping(job) = &phase {
            job.finished().await;
        }
        let _guard = self.change.lock().await;
        if let Phase::Running(instance) = self.phase.send_replace(Phase::Idle) {
            instance.detach();
        }
    }
}

/// The last word for a client that has withdrawn.
async fn withdrawn(job: &Job) -> Reply {
    if job.was_abandoned()
        && let Some(outcome) = job.finished().await
    {
        return outcome.unwrap_or_else(Reply::Failed);
    }
    let what = "interrupted; the command goes on for somebody else who waits for it";
    Reply::Failed(CommandError::new(ErrorKind::Interrupted, what))
}

/// Tells a client how a job goes, until it ends or the client leaves.
async fn tell(client: &mut BufReader<UnixStream>, mut follower: job::Follower) -> io::Result<()> {
    loop {
        let mut nothing_more = [0];
        let (news, progress) = tokio::select! {
            news = follower.next() => news,
            read = client.read(&mut nothing_more) => {
                let job = follower.leave();
                // Anything that is said here takes the request back; an end says that nobody listens.
                if matches!(read, Ok(1)) {
                    // Withdrawn, and waiting to hear that it is undone.
                    return control::send(client, &withdrawn(&job).await).await;
                }
                return Ok(());
            }
        };
        for reply in news {
            control::send(client, &reply).await?;
        }
        if progress == Progress::Finished {
            return Ok(());
        }
    }
}
