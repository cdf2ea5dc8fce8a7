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
//! It is alive while the machine is, and leaves when it is idle and nobody asks. It can be killed at
//! any moment: the machine, in a session of its own, does not notice, and the next daemon finds it
//! by the lock that QEMU itself holds.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use colima_net::relay::SocketFile;
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::UnixStream,
    sync::{Mutex, watch},
};

use crate::{
    command_error::{CommandError, ErrorKind},
    control::{self, Reply, Request, Stage, Started, StopManner, Stopped},
    instance::{Instance, InstanceSpec, Probe},
    state_dir::ProfilePaths,
};

mod job;

use job::{Job, Progress};

/// How long a daemon that nobody has asked anything waits for its first request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(30);

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
    Stopping(Arc<Job>),
}

#[derive(Debug)]
struct Daemon {
    paths: ProfilePaths,
    /// Changed under the lock, watched without it.
    phase: watch::Sender<Phase>,
    change: Mutex<()>,
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
/// See [`DaemonError`]; a machine that cannot be adopted is not an error but a line in the log.
pub async fn serve(
    paths: ProfilePaths,
    listening: impl FnOnce(),
    terminate: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let _lock = take_lock(&paths.daemon_lock)?;
    let socket =
        SocketFile::bind(&paths.control_socket).map_err(|source| DaemonError::Listen { source })?;
    let daemon = Arc::new(Daemon {
        phase: watch::Sender::new(Phase::Idle),
        change: Mutex::new(()),
        clients: watch::Sender::new(0),
        retired: watch::Sender::new(false),
        paths,
    });
    match Instance::attach(&daemon.paths).await {
        Ok(Some(instance)) => daemon.run(Arc::new(instance)),
        Ok(None) => {}
        Err(error) => crate::log_line(&format!("cannot adopt the machine: {error}")),
    }
    listening();
    let leave = daemon.nothing_left_to_do();
    tokio::pin!(terminate, leave);
    loop {
        tokio::select! {
            accepted = socket.listener().accept() => match accepted {
                Ok((stream, _)) => daemon.clone().serve_client(stream),
                // Out of descriptors: a client that leaves makes room.
                Err(error) => {
                    crate::log_line(&format!("cannot accept a client: {error}"));
                    daemon.a_client_left().await;
                }
            },
            () = &mut leave => break,
            () = &mut terminate => break,
        }
    }
    daemon.detach().await;
    Ok(())
}

fn take_lock(path: &std::path::Path) -> Result<File, DaemonError> {
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
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(DaemonError::Taken),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
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
        let Some(request) = control::receive::<_, Request>(&mut stream).await? else {
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
            Request::Start { spec, boot } => self.start(&mut stream, *spec, *boot).await,
            Request::Stop { manner } => self.stop(&mut stream, manner).await,
        }
    }

    async fn probe(&self) -> Probe {
        let phase = self.phase.borrow().clone();
        match phase {
            Phase::Idle => Probe::Stopped,
            Phase::Starting(_) => Probe::Starting,
            Phase::Stopping(_) => Probe::Stopping,
            Phase::Running(instance) => instance.probe().await,
        }
    }

    async fn start(
        self: &Arc<Self>,
        client: &mut BufReader<UnixStream>,
        spec: InstanceSpec,
        boot: colima_core::boot::BootConfig,
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
                // Ours too: two starts of one profile give one machine.
                Phase::Starting(job) => job,
                Phase::Stopping(job) => {
                    drop(guard);
                    job.finished().await;
                    self.has_left_phase_of(&job).await;
                    continue;
                }
                Phase::Idle => {
                    let job = Arc::new(Job::new());
                    self.phase.send_replace(Phase::Starting(job.clone()));
                    tokio::spawn(self.clone().work_on_start(job.clone(), spec, boot));
                    job
                }
            };
            let follower = job.follow();
            drop(guard);
            return tell(client, follower).await;
        }
    }

    async fn work_on_start(
        self: Arc<Self>,
        job: Arc<Job>,
        spec: InstanceSpec,
        boot: colima_core::boot::BootConfig,
    ) {
        let began = std::time::Instant::now();
        let progress = |stage: Stage| job.tell(stage);
        let started = tokio::select! {
            started = Instance::start(&self.paths, spec, boot, &progress) => started,
            () = job.is_abandoned() => Err(CommandError::new(ErrorKind::Interrupted, "the start was interrupted")),
        };
        match started {
            Ok(instance) => {
                self.run(Arc::new(instance));
                job.finish(Ok(Reply::Started(Started::Now {
                    elapsed: began.elapsed(),
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
                    job.finished().await;
                    self.has_left_phase_of(&job).await;
                    continue;
                }
                Phase::Stopping(job) => job,
                Phase::Running(instance) => {
                    let job = Arc::new(Job::new());
                    self.phase.send_replace(Phase::Stopping(job.clone()));
                    tokio::spawn(self.clone().work_on_stop(job.clone(), instance, manner));
                    job
                }
            };
            let follower = job.follow();
            drop(guard);
            return tell(client, follower).await;
        }
    }

    async fn work_on_stop(
        self: Arc<Self>,
        job: Arc<Job>,
        instance: Arc<Instance>,
        manner: StopManner,
    ) {
        // A stop that was begun is finished, whoever still waits for it.
        let progress = |stage: Stage| job.tell(stage);
        let outcome = instance.stop(manner, &progress).await;
        match outcome {
            Ok(stopped) => {
                self.phase.send_replace(Phase::Idle);
                job.finish(Ok(Reply::Stopped(stopped)));
            }
            Err(failure) => {
                self.phase.send_replace(Phase::Running(instance.clone()));
                job.finish(Err(failure));
            }
        }
    }

    /// Waits until `job` is no longer what the daemon is busy with.
    async fn has_left_phase_of(&self, job: &Arc<Job>) {
        let mut phase = self.phase.subscribe();
        let busy = |phase: &Phase| match phase {
            Phase::Starting(current) | Phase::Stopping(current) => Arc::ptr_eq(current, job),
            Phase::Idle | Phase::Running(_) => false,
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

    /// Lets go of a running machine.
    async fn detach(&self) {
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
