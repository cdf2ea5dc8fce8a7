//! From a specification to a running [`Machine`], and back to one that already runs.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
    time::Duration,
};

pub(super) use super::command_line::Beginning;
use super::{
    accelerator::Accelerator,
    command_line::{self, Firmware, HostFacts, SocketNumbers},
    console::Console,
    control::Control,
    directory::{Directory, Socket, Sockets},
    error::{Error, Result},
    handle::{Machine, OnDrop, Parts},
    lock::{self, MachineLock},
    process::{self, Identity, Pid, Process},
    qemu::QemuVersion,
    qmp::{self, Command},
    readiness::Evidence,
    record::MachineRecord,
    resume::{Remains, repair},
    spawn,
    spec::{Boot, MachineSpec, STREAM_PORTS},
};

/// Which QEMU runs machines, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program, such as `/usr/bin/qemu-system-x86_64`, for the guest's architecture. A bare name is
    /// looked up in `/usr/bin` and `/bin` only, because QEMU gets an empty environment.
    pub program: PathBuf,
    /// What the guest's processors run on; see [`super::accelerator::choose`].
    pub accelerator: Accelerator,
    /// The firmware of x86-64 machines.
    pub firmware: Firmware,
}

impl Qemu {
    /// `program` with the standard firmware.
    pub fn new(program: impl Into<PathBuf>, accelerator: Accelerator) -> Self {
        Self {
            program: program.into(),
            accelerator,
            firmware: Firmware::default(),
        }
    }
}

/// How long QEMU may take from its start to its first answers.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(30);

/// How long [`Machine::attach`] waits for QEMU before it goes on without.
const ATTACH_LIMIT: Duration = Duration::from_secs(2);

impl Machine {
    /// Starts a machine with its files in `directory`, which is created owner-only.
    ///
    /// Returns when QEMU has accepted the whole specification, is recorded, and the guest's processors
    /// run. What the guest makes of it is the business of [`Machine::wait_ready`]. Nothing the guest
    /// says from its first instruction on is missed.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSpec`] before anything is touched; [`Error::AlreadyRunning`] when the
    /// directory's lock is held; [`Error::Launch`] with QEMU's own words when it refuses an option or
    /// says nothing for [`LAUNCH_LIMIT`]. Nothing is left running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what was started.
    pub async fn launch(spec: &MachineSpec, qemu: &Qemu, directory: &Path) -> Result<Self> {
        let up = bring_up(spec, qemu, directory, Beginning::Boot).await?;
        let machine = up.into_machine(spec, qemu).await?;
        machine.execute(&Command::Cont, LAUNCH_LIMIT).await?;
        Ok(machine)
    }

    /// Finds the machine that runs in `directory`.
    ///
    /// It counts as running when the process that the record names lives, is the very same (start time
    /// and boot of the host), and holds the directory's lock. A QEMU that does not respond is found as
    /// well. The machine goes on when this handle is dropped, unless [`Machine::set_on_drop`] says
    /// otherwise.
    ///
    /// What a launcher or [`Machine::suspend`] was killed in the middle of is finished or taken back first.
    ///
    /// QEMU serves one client per socket: while another program is attached, this handle's console
    /// is silent and its [`Machine::status`] is `NotResponding`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] for everything from a missing directory to a reused process number, and for a machine
    /// whose suspending was only not finished;
    /// [`Error::Record`] when the record is there and cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn attach(directory: &Path) -> Result<Self> {
        let directory = Directory::existing(directory)?;
        let not_running = || Error::NotRunning {
            directory: directory.path().to_owned(),
        };
        let record = MachineRecord::read(&directory.record())?.ok_or_else(not_running)?;
        let process = Process::open(&record.process)
            .map_err(|source| Error::Process {
                action: "watch",
                pid: record.process.pid,
                source,
            })?
            .ok_or_else(not_running)?;
        if !lock::is_held(&directory.lock()).map_err(Error::directory("test", directory.lock()))? {
            return Err(not_running());
        }
        let console = follow_console(&directory)
            .await
            .map_err(Error::directory("connect to", directory.path()))?;
        let control = Arc::new(Control::new(directory.clone()));
        // Tried now so that events arrive from here on; every later command tries again.
        if let Ok(client) = control.client(ATTACH_LIMIT).await
            && let Ok(info) = client.query_status(ATTACH_LIMIT).await
            && repair(&directory, &process, &client, info.status).await? == Remains::Nothing
        {
            return Err(not_running());
        }
        Ok(Self::assemble(
            Parts {
                directory,
                record,
                process: Arc::new(process),
                control,
                console,
            },
            OnDrop::Detach,
        ))
    }
}

/// A QEMU that answers, whose guest does not run, and that nobody has recorded. Killed when dropped.
pub(super) struct Up {
    started: Started,
    pub(super) directory: Directory,
    pub(super) process: Arc<Process>,
    pub(super) control: Arc<Control>,
    console: Console,
    pub(super) version: QemuVersion,
}

/// Starts QEMU and waits for its first answers.
pub(super) async fn bring_up(
    spec: &MachineSpec,
    qemu: &Qemu,
    directory: &Path,
    beginning: Beginning,
) -> Result<Up> {
    spec.validate()?;
    let blocking = {
        let (spec, qemu, directory) = (spec.clone(), qemu.clone(), directory.to_owned());
        move || start(&spec, &qemu, &directory, beginning)
    };
    let started = unblock(blocking).await?;
    let process = Process::open(&started.identity)
        .map_err(|source| Error::Process {
            action: "watch",
            pid: started.identity.pid,
            source,
        })?
        .map(Arc::new);
    let directory = started.directory.clone();
    let Some(process) = process else {
        return Err(launch_failed(None, &directory, closed()));
    };
    let connected = connect(&directory, LAUNCH_LIMIT).await;
    let (control, console, greeting) = match connected {
        Ok(connected) => connected,
        Err((console, source)) => {
            drop(started);
            // An error here only means less evidence.
            let _ = tokio::time::timeout(Duration::from_secs(5), process.ended()).await;
            return Err(launch_failed(console.as_ref(), &directory, source));
        }
    };
    let version = QemuVersion::from(greeting.version).check(&qemu.program)?;
    Ok(Up {
        started,
        directory,
        process,
        control,
        console,
        version,
    })
}

impl Up {
    /// Records the machine: from here on it can be found.
    pub(super) async fn into_machine(self, spec: &MachineSpec, qemu: &Qemu) -> Result<Machine> {
        let record = MachineRecord {
            version: MachineRecord::VERSION,
            process: self.started.identity.clone(),
            accelerator: qemu.accelerator,
            qemu_version: self.version.to_string(),
            arguments_digest: self.started.digest.clone(),
            spec: spec.clone(),
        };
        let (to_write, path) = (record.clone(), self.directory.record());
        unblock(move || to_write.write(&path)).await?;
        let machine = Machine::assemble(
            Parts {
                directory: self.directory,
                record,
                process: self.process,
                control: self.control,
                console: self.console,
            },
            OnDrop::Kill,
        );
        self.started.disarm();
        Ok(machine)
    }
}

/// Runs what blocks on a thread for that. Its result is dropped when nobody waits for it any more.
pub(super) async fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down: this future will not be asked again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A QEMU without a handle. Killed when dropped.
struct Started {
    child: Option<Child>,
    directory: Directory,
    identity: Identity,
    digest: String,
}

impl Started {
    /// Leaves the process to the handle that now exists.
    fn disarm(mut self) {
        self.child = None;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Our own child, not reaped yet, so the number is still its own.
            let _ = child.kill();
        }
    }
}

fn start(
    spec: &MachineSpec,
    qemu: &Qemu,
    directory: &Path,
    beginning: Beginning,
) -> Result<Started> {
    let directory = Directory::prepare(directory)?;
    let lock = take_lock(&directory)?;
    forget_record(&directory)?;
    let initrd = match &spec.boot {
        Boot::Kernel(kernel) => directory.join_initrd(kernel)?,
        Boot::Disk => None,
    };
    let sockets = directory.bind_sockets()?;
    let facts = HostFacts {
        accelerator: qemu.accelerator,
        firmware: qemu.firmware,
        initrd,
        sockets: numbers(&sockets),
        beginning,
    };
    let arguments = command_line::arguments(spec, &facts);
    let mut inherited = vec![
        lock.as_fd(),
        sockets.qmp.as_fd(),
        sockets.qmp_debug.as_fd(),
        sockets.console.as_fd(),
    ];
    inherited.extend(sockets.ports.iter().map(|port| port.as_fd()));
    let child = spawn::spawn(spawn::Launch {
        program: &qemu.program,
        arguments: &arguments,
        directory: directory.path(),
        log: directory.fresh_qemu_log()?,
        inherited: &inherited,
        lock: lock.as_fd(),
    })
    .map_err(|source| Error::Spawn {
        program: qemu.program.clone(),
        source,
    })?;
    let identity = identify(&child)?;
    Ok(Started {
        child: Some(child),
        directory,
        identity,
        digest: command_line::digest(&arguments),
    })
}

/// A child that has ended already still has its number until it is reaped, so it is found.
fn identify(child: &Child) -> Result<Identity> {
    let failed = |pid, source| Error::Process {
        action: "identify",
        pid,
        source,
    };
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let pid = Pid::of(child);
    Identity::of(pid)
        .map_err(|source| failed(pid, source))?
        .ok_or_else(|| failed(pid, gone()))
}

fn numbers(sockets: &Sockets) -> SocketNumbers {
    let mut ports = [0; STREAM_PORTS as usize];
    for (number, port) in ports.iter_mut().zip(&sockets.ports) {
        *number = port.as_raw_fd();
    }
    SocketNumbers {
        qmp: sockets.qmp.as_raw_fd(),
        qmp_debug: sockets.qmp_debug.as_raw_fd(),
        console: sockets.console.as_raw_fd(),
        ports,
    }
}

fn forget_record(directory: &Directory) -> Result<()> {
    match std::fs::remove_file(directory.record()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::directory("remove", directory.record())(error))
        }
        _ => Ok(()),
    }
}

/// Takes the lock, from an orphan if need be.
///
/// An orphan is a QEMU whose launcher was killed between starting it and recording it. It is paused,
/// because the record is written before the guest may run, so ending it loses nothing.
fn take_lock(directory: &Directory) -> Result<MachineLock> {
    let path = directory.lock();
    let failed = |error| Error::directory("lock", &path)(error);
    if let Some(lock) = MachineLock::take(&path).map_err(failed)? {
        return Ok(lock);
    }
    let already = |pid| Error::AlreadyRunning {
        directory: directory.path().to_owned(),
        pid,
    };
    match MachineRecord::read(&directory.record()) {
        Ok(None) => {}
        Ok(Some(record)) => return Err(already(Some(record.process.pid))),
        // Somebody's, even if it cannot be read.
        Err(_) => return Err(already(None)),
    }
    let Some(pid) = lock::written_pid(&path).map_err(failed)? else {
        // Its launcher is between taking the lock and starting QEMU.
        return Err(already(None));
    };
    if !process::end_holder(pid, &path).map_err(failed)? {
        return Err(already(None));
    }
    MachineLock::take(&path)
        .map_err(failed)?
        .ok_or_else(|| already(None))
}

type Connected = (Arc<Control>, Console, qmp::Greeting);

async fn connect(
    directory: &Directory,
    limit: Duration,
) -> std::result::Result<Connected, (Option<Console>, qmp::Error)> {
    let console = follow_console(directory).await.map_err(|source| {
        let source = Arc::new(source);
        (None, qmp::Error::Connect { source })
    })?;
    let control = Arc::new(Control::new(directory.clone()));
    match control.connect(limit).await {
        Ok(greeting) => Ok((control, console, greeting)),
        Err(error) => Err((Some(console), error)),
    }
}

async fn follow_console(directory: &Directory) -> io::Result<Console> {
    let stream = directory.connect(Socket::Console).await?;
    Ok(Console::follow(stream, &directory.console_log()))
}

fn launch_failed(console: Option<&Console>, directory: &Directory, source: qmp::Error) -> Error {
    Error::Launch {
        limit: LAUNCH_LIMIT,
        evidence: Box::new(Evidence::gather(console, &directory.qemu_log())),
        source,
    }
}

fn closed() -> qmp::Error {
    qmp::Error::Closed {
        command: "the greeting",
    }
}
