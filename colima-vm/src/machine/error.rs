use std::{io, path::PathBuf, time::Duration};

use super::{process::Pid, qmp, readiness::Evidence};

/// Why something about a machine could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "the module qualifies it: `machine::Error`"
)]
pub enum Error {
    /// The specification asks for something that no machine can be given.
    #[error("invalid machine: {field} {reason}")]
    InvalidSpec {
        /// Which part of the specification, in its own words.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A QEMU already runs for this directory.
    #[error("a machine already runs in {}", directory.display())]
    AlreadyRunning {
        /// The machine's directory.
        directory: PathBuf,
        /// Its process, where the record names it.
        pid: Option<Pid>,
    },
    /// No living QEMU belongs to this directory.
    #[error("no machine runs in {}", directory.display())]
    NotRunning {
        /// The machine's directory.
        directory: PathBuf,
    },
    /// A file or socket of the machine's directory could not be used.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried, as a verb.
        action: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `machine.json` is not a record that this program wrote.
    #[error("{} is not a machine record: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// QEMU could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said; `NotFound` means that QEMU is not installed.
        source: io::Error,
    },
    /// The program is no QEMU, or one that is too old.
    #[error("{} cannot be used: {reason}", program.display())]
    UnusableQemu {
        /// The program.
        program: PathBuf,
        /// What it printed instead, or its version.
        reason: String,
    },
    /// QEMU was started and did not come up: it refused an option, or it hangs.
    #[error("QEMU did not come up within {limit:?}: {evidence}")]
    Launch {
        /// How long it was waited for.
        limit: Duration,
        /// What QEMU printed.
        evidence: Box<Evidence>,
        /// What the control channel said.
        source: qmp::Error,
    },
    /// The machine did not become ready.
    #[error("{step}: {reason}{evidence}")]
    NotReady {
        /// What was waited for.
        step: String,
        /// Why the wait ended.
        reason: super::readiness::Reason,
        /// The last lines of console and QEMU.
        evidence: Box<Evidence>,
    },
    /// A command on the control channel failed.
    #[error("cannot {action}")]
    Control {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed; a timeout means that QEMU does not respond.
        source: qmp::Error,
    },
    /// The machine could not be suspended; it runs on.
    #[error("cannot save the machine: {reason}")]
    Save {
        /// Why, in QEMU's words where it had any.
        reason: String,
    },
    /// No machine is suspended in this directory.
    #[error("no machine is suspended in {}", directory.display())]
    NotSaved {
        /// The machine's directory.
        directory: PathBuf,
    },
    /// A saved state is of no use: it is damaged, or does not fit.
    #[error("{} cannot be loaded: {reason}", path.display())]
    Unloadable {
        /// The state's file.
        path: PathBuf,
        /// Why, in QEMU's words where it had any.
        reason: String,
    },
    /// There is no such stream port.
    #[error("stream port {port} does not exist: a machine has ports 0 to 15")]
    NoSuchPort {
        /// The number that was asked for.
        port: u8,
    },
    /// The process could not be watched or signalled.
    #[error("cannot {action} process {pid}")]
    Process {
        /// What was tried, as a verb.
        action: &'static str,
        /// The process.
        pid: Pid,
        /// What the system said.
        source: io::Error,
    },
    /// Every rung of a termination was tried and the process is still there.
    #[error("process {pid} did not end, not even when killed")]
    Unkillable {
        /// The process.
        pid: Pid,
    },
    /// No accelerator ran the kernel.
    #[error("no accelerator works: {trials}")]
    NoAccelerator {
        /// What happened under each candidate.
        trials: String,
    },
}

impl Error {
    /// Names what was done to a file of the machine's directory when `source` happened.
    pub(super) fn directory(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Directory {
            action,
            path,
            source,
        }
    }

    pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSpec {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// What the functions of [`crate::machine`] return.
pub type Result<T> = std::result::Result<T, Error>;
