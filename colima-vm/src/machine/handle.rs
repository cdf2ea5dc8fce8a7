//! [`Machine`]: one QEMU, launched or found running.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{broadcast, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    console::Console,
    control::Control,
    directory::{Directory, Socket},
    error::{Error, Result},
    process::{ExitStatus, Pid, Process},
    qmp::{self, Command, Event, RunState, ShutdownReason},
    readiness::{Evidence, FirstByte, Readiness, Reason},
    record::MachineRecord,
    spec::{MachineSpec, STREAM_PORTS},
};

/// A running machine.
///
/// Methods take `&self`, so that an `Arc<Machine>` can be shared between tasks.
///
/// **Drop**: a machine that was launched is killed (a library must not leave processes behind), one
/// that was attached to goes on. [`Machine::set_on_drop`] changes either. Drop does not wait; a task
/// of the runtime reaps the process. **Close**: [`Machine::stop`]. **Detach**: [`Machine::detach`].
/// When the program itself is killed nothing runs that could end the machine: it lives on, and
/// [`Machine::attach`] finds it.
#[derive(Debug)]
pub struct Machine {
    pub(super) directory: Directory,
    pub(super) record: MachineRecord,
    pub(super) process: Arc<Process>,
    pub(super) control: Arc<Control>,
    pub(super) console: Console,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    watcher: AbortHandle,
    kill_on_drop: AtomicBool,
}

/// What becomes of QEMU when its [`Machine`] is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrop {
    /// QEMU is killed, as by [`Machine::kill`].
    Kill,
    /// QEMU goes on.
    Detach,
}

/// How QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What the system says.
    pub status: ExitStatus,
    /// What QEMU said before it ended; `None` when it was killed, or crashed.
    pub cause: Option<ShutdownReason>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Some(ShutdownReason::GuestShutdown) => f.write_str("the guest powered off"),
            Some(ShutdownReason::GuestReset) => f.write_str("the guest reset itself"),
            Some(ShutdownReason::GuestPanic) => f.write_str("the guest's kernel panicked"),
            Some(ShutdownReason::HostQuit) => f.write_str("QEMU was told to quit"),
            Some(ShutdownReason::HostSignal) => f.write_str("QEMU was ended by a signal"),
            Some(ShutdownReason::HostReset | ShutdownReason::HostError | ShutdownReason::Other)
            | None => write!(f, "QEMU ended with {}", self.status),
        }
    }
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// QEMU answers; this is what it says of the guest.
    Responding(RunState),
    /// The process lives and does not answer: it is stopped, hangs, or the host is overloaded.
    NotResponding,
    /// QEMU has ended.
    Exited(Exit),
}

/// How long the last words of a QEMU that ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Machine {
    /// Puts a handle together. The runtime's tasks that watch the process start here.
    pub(super) fn assemble(parts: Parts, on_drop: OnDrop) -> Self {
        let Parts {
            directory,
            record,
            process,
            control,
            console,
        } = parts;
        let (ended, status) = watch::channel(None);
        let (exited, exit) = watch::channel(None);
        // Outlives the handle, so that a child of ours never stays a zombie.
        tokio::spawn(reap(Arc::clone(&process), ended));
        let watcher = tokio::spawn(watch_end(
            status,
            Arc::clone(&control),
            control.events(),
            console.clone(),
            exited,
        ));
        Self {
            directory,
            record,
            process,
            control,
            console,
            exit,
            watcher: watcher.abort_handle(),
            kill_on_drop: AtomicBool::new(on_drop == OnDrop::Kill),
        }
    }

    /// The machine's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What was started, as it is written beside the machine.
    #[must_use]
    pub fn record(&self) -> &MachineRecord {
        &self.record
    }

    /// What was asked for.
    #[must_use]
    pub fn spec(&self) -> &MachineSpec {
        &self.record.spec
    }

    /// QEMU's process number, for display. Never signal it: it may be another's by then.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The serial console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The file of the console's output; `NAME.1` is its predecessor.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.directory.console_log()
    }

    /// The file of QEMU's own output.
    #[must_use]
    pub fn qemu_log(&self) -> PathBuf {
        self.directory.qemu_log()
    }

    /// What QEMU reports from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.control.events()
    }

    /// The last lines of console and QEMU, for an error message.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence::gather(Some(&self.console), &self.directory.qemu_log())
    }

    /// How QEMU ended, or `None` while it lives.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until QEMU has ended.
    ///
    /// # Cancel safety
    ///
    /// An abandoned wait can be repeated.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        exited(self.exit.clone())
    }

    /// Sends a command to QEMU.
    ///
    /// # Errors
    ///
    /// [`Error::Control`]; a timeout means that QEMU does not respond.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the command sent or not.
    pub async fn execute(&self, command: &Command, limit: Duration) -> Result<Value> {
        let action = command.name();
        self.control
            .execute(command, limit)
            .await
            .map_err(|source| Error::Control { action, source })
    }

    /// Asks QEMU what the machine does; the answer comes within `limit`, whatever state QEMU is in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn status(&self, limit: Duration) -> Status {
        let ask = async {
            let client = self.control.client(limit).await?;
            client.query_status(limit).await
        };
        tokio::select! {
            exit = self.exited() => Status::Exited(exit),
            answer = timeout(limit, ask) => match answer {
                Ok(Ok(info)) => Status::Responding(info.status),
                Ok(Err(qmp::Error::Closed { .. } | qmp::Error::Connect { .. })) => {
                    // A closed channel is the herald of the end.
                    match timeout(LAST_WORDS * 2, self.exited()).await {
                        Ok(exit) => Status::Exited(exit),
                        Err(_) => Status::NotResponding,
                    }
                }
                Ok(Err(_)) | Err(_) => Status::NotResponding,
            },
        }
    }

    /// Connects to stream port `port`, counted from 0; the guest knows it as `colima.PORT`.
    ///
    /// A port serves one connection at a time. A second one is accepted by the system and hears
    /// nothing until the first is closed.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPort`], or [`Error::Directory`] when QEMU has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn port(&self, port: u8) -> Result<UnixStream> {
        if port >= STREAM_PORTS {
            return Err(Error::NoSuchPort { port });
        }
        self.directory
            .connect(Socket::Port(port))
            .await
            .map_err(Error::directory(
                "connect to a stream port in",
                self.directory.path(),
            ))
    }

    /// Waits until the machine is ready and says how long that took.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] as soon as QEMU ends, the guest's kernel panics, the condition can no longer
    /// come true, or `limit` has passed. It names the step and carries the last lines of console and
    /// QEMU.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait and leaves the machine as it is.
    pub async fn wait_ready(&self, readiness: Readiness, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let step = readiness.step();
        let outcome = tokio::select! {
            // In this order: a guest that was ready before it ended was ready, and a panic says
            // more than the end that follows it.
            biased;
            outcome = self.condition(readiness) => outcome,
            line = self.panicked() => Err(Reason::Panicked { line }),
            exit = self.exited() => Err(Reason::Exited(exit)),
            () = tokio::time::sleep(limit) => Err(Reason::TimedOut { limit }),
        };
        let reason = match outcome {
            Ok(()) => return Ok(start.elapsed()),
            // The connection closed because QEMU ended: say that instead.
            Err(Reason::Closed) => match timeout(LAST_WORDS * 2, self.exited()).await {
                Ok(exit) => Reason::Exited(exit),
                Err(_) => Reason::Closed,
            },
            Err(reason) => reason,
        };
        Err(Error::NotReady {
            step,
            reason,
            evidence: Box::new(self.evidence()),
        })
    }

    async fn condition(&self, readiness: Readiness) -> std::result::Result<(), Reason> {
        use tokio::io::AsyncReadExt as _;

        match readiness {
            Readiness::ConsoleLine(text) => {
                let printed = self.console.printed(&text).await;
                printed.then_some(()).ok_or(Reason::Closed)
            }
            Readiness::Port { port, expect } => {
                let mut stream = match self.port(port).await {
                    Ok(stream) => stream,
                    Err(error) => return Err(Reason::Custom(Box::new(error))),
                };
                match (stream.read_u8().await, expect) {
                    (Err(_), _) => Err(Reason::Closed),
                    (Ok(_), FirstByte::Any) => Ok(()),
                    (Ok(found), FirstByte::Exactly(byte)) if found == byte => Ok(()),
                    (Ok(found), FirstByte::Exactly(_)) => Err(Reason::WrongByte { found }),
                }
            }
            Readiness::Custom { future, .. } => future.await.map_err(Reason::Custom),
        }
    }

    /// Ends when the guest's kernel panics, never otherwise.
    async fn panicked(&self) -> Option<String> {
        let mut events = self.events();
        let event = async {
            loop {
                match events.recv().await {
                    Ok(Event::GuestPanicked) => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let mut lines = self.console.lines();
        let line = async {
            while let Some(line) = lines.next().await {
                // kernel/panic.c: "Kernel panic - not syncing: %s"
                if line.contains("Kernel panic - not syncing") {
                    return line;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            line = line => Some(line),
            () = event => None,
        }
    }

    /// Chooses what becomes of QEMU when this handle is dropped.
    pub fn set_on_drop(&self, on_drop: OnDrop) {
        self.kill_on_drop
            .store(on_drop == OnDrop::Kill, Ordering::Relaxed);
    }

    /// Lets go of QEMU, which runs on. [`Machine::attach`] finds it again.
    pub fn detach(self) {
        self.set_on_drop(OnDrop::Detach);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The connections close with it.
        self.watcher.abort();
        if self.kill_on_drop.load(Ordering::Relaxed) && self.exit().is_none() {
            // Nobody is left to tell of a failure; the lock tells whoever comes next.
            let _ = self.process.kill();
        }
    }
}

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) directory: Directory,
    pub(super) record: MachineRecord,
    pub(super) process: Arc<Process>,
    pub(super) control: Arc<Control>,
    pub(super) console: Console,
}

async fn exited(mut exit: watch::Receiver<Option<Exit>>) -> Exit {
    let seen = exit.wait_for(Option::is_some).await.map(|exit| *exit);
    match seen {
        Ok(Some(exit)) => exit,
        // The handle was dropped: nobody will ever know.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn reap(process: Arc<Process>, ended: watch::Sender<Option<ExitStatus>>) {
    // A process that cannot be watched counts as gone only when the watch itself fails.
    let status = process.ended().await.unwrap_or(ExitStatus::Unknown);
    ended.send_replace(Some(status));
}

async fn watch_end(
    mut status: watch::Receiver<Option<ExitStatus>>,
    control: Arc<Control>,
    mut events: broadcast::Receiver<Event>,
    console: Console,
    exited: watch::Sender<Option<Exit>>,
) {
    let mut cause = None;
    let mut note = |event| {
        if let Event::Shutdown { reason, .. } = event {
            cause = Some(reason);
        }
    };
    let status = loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => note(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // `control` holds a sender.
                Err(broadcast::error::RecvError::Closed) => return,
            },
            ended = status.wait_for(Option::is_some) => match ended.map(|ended| *ended) {
                Ok(Some(status)) => break status,
                Ok(None) | Err(_) => return,
            },
        }
    };
    let last_words = async {
        control.closed().await;
        console.closed().await;
    };
    // A child of QEMU's cannot hold the sockets open, but nothing may hang on that.
    let _ = timeout(LAST_WORDS, last_words).await;
    while let Ok(event) = events.try_recv() {
        note(event);
    }
    exited.send_replace(Some(Exit { status, cause }));
}
