//! Errors of the libraries as what a user is told: what failed, why, what to do.

use std::{error::Error, io};

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
    told("the virtual machine failed", kind, hint, error)
}

/// A failure of a disk.
pub(super) fn disk(error: &disk::Error) -> CommandError {
    let (kind, hint) = match error {
        disk::Error::WouldShrink { .. } => (
            ErrorKind::Usage,
            Some("give the size it has or a larger one, or begin anew: colima delete --data"),
        ),
        disk::Error::OtherBase { .. } => (
            ErrorKind::Failure,
            Some("begin with a fresh root disk, containers and images are kept: colima delete"),
        ),
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
