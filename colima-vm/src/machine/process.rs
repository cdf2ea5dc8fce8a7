//! A process that can be watched and signalled without ever meeting another one of the same number.

#[cfg(target_os = "linux")]
#[path = "process/linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "process/macos.rs"]
mod system;

use std::{fmt, io, path::Path, process::Child, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use system::Handle;

/// Number of a process; larger than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Pid(i32);

impl Pid {
    /// `None` for numbers that name no single process.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        (raw > 0).then_some(Self(raw))
    }

    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().cast_signed())
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<i32> for Pid {
    type Error = &'static str;

    fn try_from(raw: i32) -> Result<Self, Self::Error> {
        Self::new(raw).ok_or("a process number is larger than 0")
    }
}

impl From<Pid> for i32 {
    fn from(pid: Pid) -> Self {
        pid.0
    }
}

/// Which process it is, beyond its number, which the system reuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its number.
    pub pid: Pid,
    /// When it started, in the system's own unit (Linux: clock ticks since boot).
    pub start_time: u64,
    /// Which boot of the host that was.
    pub boot_id: String,
}

impl Identity {
    /// The identity of the process that has this number now, or `None` when there is none.
    pub(super) fn of(pid: Pid) -> io::Result<Option<Self>> {
        let Some(start_time) = system::start_time(pid)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            pid,
            start_time,
            boot_id: system::boot_id()?,
        }))
    }
}

/// Which boot of the host this is.
///
/// # Errors
///
/// Fails where the system does not tell, for instance without `/proc`.
pub fn host_boot_id() -> io::Result<String> {
    system::boot_id()
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone; only its parent, which this process is not, can know more.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown status"),
        }
    }
}

/// A handle of one particular process.
///
/// Dropping it neither ends nor reaps the process.
#[derive(Debug)]
pub(super) struct Process {
    identity: Identity,
    handle: AsyncFd<Handle>,
}

impl Process {
    /// Takes hold of the process `identity`, or says `None` when it is gone.
    pub(super) fn open(identity: &Identity) -> io::Result<Option<Self>> {
        let Some(handle) = Handle::open(identity.pid)? else {
            return Ok(None);
        };
        // The number may have passed to another process before the handle was open, not after.
        if Identity::of(identity.pid)?.as_ref() != Some(identity) {
            return Ok(None);
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a `Handle` owns its descriptor and never changes it"
        )]
        let handle = AsyncFd::new(handle)?;
        Ok(Some(Self {
            identity: identity.clone(),
            handle,
        }))
    }

    pub(super) fn pid(&self) -> Pid {
        self.identity.pid
    }

    /// Sends `SIGKILL`. A process that is gone already is no error.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.handle.get_ref().kill(self.pid())
    }

    /// Waits until the process has ended; reaps it when it is our child.
    ///
    /// Cancel safe: an abandoned wait can be repeated.
    pub(super) async fn ended(&self) -> io::Result<ExitStatus> {
        // Readable for ever once the process has ended, and reaping needs no readiness.
        let _ready = self.handle.readable().await?;
        self.handle.get_ref().reap(self.pid())
    }
}

/// Kills the process `pid` and waits for its end, if it is the one that inherited the lock at `path`.
///
/// Says `false` and does nothing when it is not, or when it does not end.
pub(super) fn end_holder(pid: Pid, path: &Path) -> io::Result<bool> {
    const LIMIT: Duration = Duration::from_secs(5);

    let Some(handle) = Handle::open(pid)? else {
        return Ok(false);
    };
    // Asked after the handle was opened, so the answer is about the same process.
    if !system::has_open(pid, path)? {
        return Ok(false);
    }
    handle.kill(pid)?;
    handle.wait_blocking(LIMIT)
}
