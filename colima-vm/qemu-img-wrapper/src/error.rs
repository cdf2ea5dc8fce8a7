//! What can go wrong, and what the text on standard error means.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use crate::{Format, Operation};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "read as qemu_img_wrapper::Error")]
#[non_exhaustive]
pub enum Error {
    /// There is no such program on this host.
    #[error(
        "cannot find the program {program:?}: install the package qemu-utils (Debian, Ubuntu) or qemu (elsewhere)"
    )]
    NotInstalled {
        /// The name or path that was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program exists and could not be started.
    #[error("cannot start {program:?}")]
    Start {
        /// The name or path that was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output of the running program could not be read, or its end not be awaited.
    #[error("lost the running qemu-img {operation}")]
    Lost {
        /// What was running.
        operation: Operation,
        /// What the system said.
        source: io::Error,
    },
    /// A path cannot be made absolute: it is empty, or there is no current directory.
    #[error("{path:?} is no usable path")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("qemu-img {operation} failed on {image:?} ({status}): {stderr}")]
    Failed {
        /// What was running.
        operation: Operation,
        /// The image it was about; the target where there are two.
        image: PathBuf,
        /// How the program ended.
        status: ExitStatus,
        /// What that means, where it is known.
        reason: Reason,
        /// What the program said, at most 64 KiB, without the white space around it.
        stderr: String,
    },
    /// Images of this format have nothing to check.
    #[error("{image:?} cannot be checked: the format {format} has no checks")]
    CheckUnsupported {
        /// The image.
        image: PathBuf,
        /// Its format.
        format: Format,
    },
    /// The program succeeded and printed something else than it should.
    #[error("qemu-img {operation} printed something unexpected")]
    Output {
        /// What was running.
        operation: Operation,
        /// What is wrong with the output.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The reason of a [`Error::Failed`], [`Reason::Other`] for every other variant.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Failed { reason, .. } => *reason,
            Self::NotInstalled { .. }
            | Self::Start { .. }
            | Self::Lost { .. }
            | Self::Path { .. }
            | Self::CheckUnsupported { .. }
            | Self::Output { .. } => Reason::Other,
        }
    }
}

/// A failure that callers can act on, read from what the program said.
///
/// `qemu-img` has one exit status for all of them, so this is a reading of English sentences: use it
/// to choose a better message or a second attempt, never to decide about data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Another process, such as a running machine, has the image open.
    InUse,
    /// The new size is smaller and [`Resize::GrowOnly`](crate::Resize::GrowOnly) was asked for.
    WouldShrink,
    /// The file is not in the format that was named.
    WrongFormat,
    /// There is no snapshot of that name.
    NoSuchSnapshot,
    /// A file or a directory on the way to it does not exist.
    NotFound,
    /// The host's permissions do not allow it.
    PermissionDenied,
    /// The host's disk is full.
    NoSpace,
    /// Something else: see the text.
    Other,
}

/// Reads the reason from standard error, in the C locale. The names of the images are cut out first,
/// so that a file called `No space left on device` is not taken for the message.
pub(crate) fn interpret(stderr: &str, names: &[&Path]) -> Reason {
    let mut text = stderr.to_owned();
    for name in names {
        text = text.replace(&*name.to_string_lossy(), "");
    }
    let says = |phrase: &str| text.contains(phrase);
    if says("Failed to get") && says("lock") {
        Reason::InUse
    } else if says("Use the --shrink option") {
        Reason::WouldShrink
    } else if says("Image is not in") {
        Reason::WrongFormat
    } else if says("snapshot not found") || says("Failed to load snapshot: No such file") {
        Reason::NoSuchSnapshot
    } else if says("No such file or directory") {
        Reason::NotFound
    } else if says("Permission denied") {
        Reason::PermissionDenied
    } else if says("No space left on device") {
        Reason::NoSpace
    } else {
        Reason::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_transcripts() {
        for (stderr, reason) in [
            (
                "qemu-img: Could not open 'x': Failed to get \"write\" lock\nIs another process using the image [x]?",
                Reason::InUse,
            ),
            (
                "qemu-img: Could not open 'x': Failed to get shared \"write\" lock\nIs another process using the image [x]?",
                Reason::InUse,
            ),
            (
                "qemu-img: warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.\nqemu-img: Use the --shrink option to perform a shrink operation.",
                Reason::WouldShrink,
            ),
            (
                "qemu-img: Could not open 'x': Image is not in qcow2 format",
                Reason::WrongFormat,
            ),
            (
                "qemu-img: Could not delete snapshot 'nope': snapshot not found",
                Reason::NoSuchSnapshot,
            ),
            (
                "qemu-img: Could not apply snapshot 'nope': Failed to load snapshot: No such file or directory",
                Reason::NoSuchSnapshot,
            ),
            (
                "qemu-img: Could not open 'x': Could not open 'x': No such file or directory",
                Reason::NotFound,
            ),
            (
                "qemu-img: x: Could not create 'x': Permission denied",
                Reason::PermissionDenied,
            ),
            (
                "qemu-img: x: Could not write qcow2 header: No space left on device",
                Reason::NoSpace,
            ),
            ("qemu-img: Check failed: Input/output error", Reason::Other),
        ] {
            assert_eq!(interpret(stderr, &[Path::new("'x'")]), reason, "{stderr}");
        }
    }

    #[test]
    fn a_file_name_is_not_a_message() {
        let name = "/disks/No space left on device";
        let stderr = format!("qemu-img: Could not open '{name}': Image is not in qcow2 format");
        assert_eq!(interpret(&stderr, &[Path::new(name)]), Reason::WrongFormat);
        let stderr = format!("qemu-img: Could not open '{name}': Input/output error");
        assert_eq!(interpret(&stderr, &[Path::new(name)]), Reason::Other);
    }
}
