//! Errors of the libraries as what a user is told: what failed, why, what to do.

use std::{error::Error, io};

use colima_net::agent::AgentError;
use colima_vm::{disk, image, machine};

use crate::command_error::{CommandError, ErrorKind};

/// A failure of the machine.
pub(super) fn machine(error: &machine::Error) -> CommandError {
    let (kind, hint) = match error {
        machine::Error::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => (
            ErrorKind::MissingDependency,
            Some("install QEMU: the package qemu-system-x86 on Debian and Ubuntu, qemu elsewhere"),
        ),
        machine::Error::UnusableQemu { .. } => (
            ErrorKind::MissingDependency,
            Some("install QEMU 7.2 or newer"),
        ),
        machine::Error::AlreadyRunning { .. } => (
            ErrorKind::Busy,
            Some("end the other one first: colima stop --force"),
        ),
        machine::Error::NotReady {
            reason: machine::Reason::TimedOut { .. },
            ..
        } => (
            ErrorKind::Timeout,
            Some("the guest's console is printed by: colima logs --serial"),
        ),
        machine::Error::NotReady { .. } | machine::Error::Launch { .. } => (
            ErrorKind::Failure,
            Some("the guest's console is printed by: colima logs --serial"),
        ),
        machine::Error::InvalidSpec { .. } => (ErrorKind::Usage, None),
        _ => (ErrorKind::Failure, None),
    };
    let failure = match error {
        machine::Error::NotReady {
            step,
            reason,
            evidence,
        } => {
            let failure = CommandError::new(kind, "the virtual machine did not become ready")
                .because(format!("{step}: {reason}"));
            with_evidence(with_detail(failure, reason), evidence)
        }
        machine::Error::Launch {
            limit,
            evidence,
            source,
        } => {
            let failure = CommandError::new(kind, format!("QEMU did not come up within {limit:?}"))
                .caused_by(source);
            with_evidence(failure, evidence)
        }
        other => CommandError::new(kind, "the virtual machine failed").caused_by(other),
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The lines that the guest's agent sent along with its reason.
fn with_detail(failure: CommandError, reason: &machine::Reason) -> CommandError {
    let machine::Reason::Custom(error) = reason else {
        return failure;
    };
    let Some(AgentError::Failed { detail, .. }) = error.downcast_ref() else {
        return failure;
    };
    let last = &detail[detail.len().saturating_sub(20)..];
    last.iter().fold(failure, |failure, line| {
        failure.because(format!("guest: {line}"))
    })
}

fn with_evidence(failure: CommandError, evidence: &machine::Evidence) -> CommandError {
    let console = evidence
        .console
        .iter()
        .map(|line| format!("console: {line}"));
    let qemu = evidence.qemu.iter().map(|line| format!("QEMU: {line}"));
    console.chain(qemu).fold(failure, CommandError::because)
}

/// A machine runs where one was to be started.
pub(super) fn occupied(directory: &std::path::Path) -> CommandError {
    machine(&machine::Error::AlreadyRunning {
        directory: directory.to_owned(),
        pid: None,
    })
}

/// The image below a root disk is not in the store any more.
pub(super) fn base_gone(root: &std::path::Path, base: &std::path::Path) -> CommandError {
    let what = format!("the image below {} is gone", root.display());
    CommandError::new(ErrorKind::Failure, what)
        .because(format!("there is no {} in the store", base.display()))
        .hint(FRESH_ROOT)
}

const FRESH_ROOT: &str =
    "begin with a fresh root disk, containers and images are kept: colima delete";

/// A failure of the disk that an update throws away.
pub(super) fn root_disk(error: &disk::Error) -> CommandError {
    let failure = disk(error);
    match error {
        disk::Error::OtherBase { .. }
        | disk::Error::Refused { .. }
        | disk::Error::Corrupt { .. } => failure.hint(FRESH_ROOT),
        _ => failure,
    }
}

/// A failure of the disk that survives.
pub(super) fn data_disk(error: &disk::Error) -> CommandError {
    let failure = disk(error);
    match error {
        disk::Error::WouldShrink { .. } => CommandError {
            kind: ErrorKind::Usage,
            ..failure
        }
        .hint("give the size it has or a larger one, or begin anew: colima delete --data"),
        _ => failure,
    }
}

fn disk(error: &disk::Error) -> CommandError {
    let (kind, hint) = match error {
        disk::Error::Tool(qemu_img_wrapper::Error::NotInstalled { .. }) => (
            ErrorKind::MissingDependency,
            Some("install the package qemu-utils"),
        ),
        _ => (ErrorKind::Failure, None),
    };
    told("a disk could not be prepared", kind, hint, error)
}

/// A failure of an image.
pub(crate) fn image(error: &image::Error) -> CommandError {
    let (kind, hint) = match error {
        image::Error::ToolMissing { .. } => (ErrorKind::MissingDependency, None),
        image::Error::Busy { .. } => (ErrorKind::Busy, None),
        image::Error::Tampered { .. } | image::Error::Manifest { .. } => (
            ErrorKind::Failure,
            Some("remove it and build it anew: colima image rm ID"),
        ),
        _ => (ErrorKind::Failure, None),
    };
    told("the image could not be prepared", kind, hint, error)
}

/// A file of the profile that could not be used.
pub(super) fn file(action: &str, path: &std::path::Path, error: &io::Error) -> CommandError {
    CommandError::new(
        ErrorKind::Failure,
        format!("cannot {action} {}", path.display()),
    )
    .caused_by(error)
}

fn told(what: &str, kind: ErrorKind, hint: Option<&str>, error: &dyn Error) -> CommandError {
    let failure = CommandError::new(kind, what).caused_by(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
