//! What can go wrong in the guest.

use std::{io, path::PathBuf};

/// Why `init` or the agent could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The configuration that the host appended to the initramfs cannot be used.
    #[error("the boot configuration is not valid: {what}")]
    Config {
        /// What is wrong with it.
        what: String,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, directory or link could not be written.
    #[error("cannot write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not take a module.
    #[error("cannot load the kernel module {}", path.display())]
    LoadModule {
        /// The module's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file system could not be mounted or moved.
    #[error("cannot mount {what} at {}", target.display())]
    Mount {
        /// What was to be mounted.
        what: String,
        /// Where.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A device did not appear in time.
    #[error("no {device} appeared within {seconds} s")]
    DeviceMissing {
        /// The device, by what we look for.
        device: String,
        /// How long we waited.
        seconds: u64,
    },
    /// A program of the root file system could not be run.
    #[error("cannot run {program}")]
    RunProgram {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the root file system reported failure.
    #[error("{program} failed with {status}: {message}")]
    ProgramFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines it printed.
        message: String,
    },
    /// The data disk holds something that is not ours.
    #[error("the data disk holds {what} and is left alone")]
    DataDiskForeign {
        /// What was recognised.
        what: String,
    },
    /// A step of setting up the network failed.
    #[error("cannot {step}")]
    Network {
        /// The step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A request to the kernel that concerns no file failed.
    #[error("cannot {step}")]
    Kernel {
        /// The step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl GuestError {
    /// The error and its causes in one line, for consoles and logs.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
