//! What can go wrong with images.

use std::{io, path::PathBuf};

use colima_core::Arch;

use super::{ImageId, ParseLockError, ParseManifestError};

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "read as image::Error")]
#[non_exhaustive]
pub enum Error {
    /// A file of the store, the cache or the scratch directory could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: `read`, `create`, `rename`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store has no such image.
    #[error("there is no image {id} for {arch}")]
    NotFound {
        /// Architecture that was asked for.
        arch: Arch,
        /// Name that was asked for.
        id: ImageId,
    },
    /// The image's manifest cannot be believed.
    #[error("the image at {} is damaged", path.display())]
    Manifest {
        /// Directory of the image.
        path: PathBuf,
        /// What is wrong.
        source: ParseManifestError,
    },
    /// A manifest lies under the name or architecture of another image.
    #[error("the image at {} calls itself {id} for {arch}", path.display())]
    Misplaced {
        /// Directory of the image.
        path: PathBuf,
        /// Its own idea of its name.
        id: ImageId,
        /// Its own idea of its architecture.
        arch: Arch,
    },
    /// A file of an image is not the one the manifest lists.
    #[error("{} is not the file the manifest lists: {problem}", path.display())]
    Tampered {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// The root disk is a disk image that is never opened, such as one with a backing file.
    #[error("the disk {} is refused", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: crate::disk::qcow2::Refusal,
    },
    /// Another process uses the image right now.
    #[error("image {id} for {arch} is in use by another process")]
    Busy {
        /// Architecture of the image.
        arch: Arch,
        /// Name of the image.
        id: ImageId,
    },
    /// A package lock cannot be used.
    #[error("the package lock is malformed")]
    Lock(#[from] ParseLockError),
    /// A package lock lacks something that an image needs.
    #[error("the package lock has no {what}: resolve it anew")]
    IncompleteLock {
        /// What is missing.
        what: &'static str,
    },
    /// The archive no longer has a version that the lock names.
    #[error(
        "the archive no longer has {}: resolve the package lock anew, or name a snapshot mirror that has it",
        packages.join(", ")
    )]
    VersionGone {
        /// `name=version` of each.
        packages: Vec<String>,
    },
    /// A downloaded package is not the one in the lock.
    #[error("the archive's {package} does not have the digest that the lock lists")]
    WrongPackage {
        /// `name=version`.
        package: String,
    },
    /// A program is missing.
    #[error("{tool} is not installed: install the package {package}")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{tool} failed ({status}){}", tail_text(tail))]
    Tool {
        /// The program.
        tool: &'static str,
        /// How it ended.
        status: String,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// A program answered something that is not understood.
    #[error("{tool} printed what is not understood: {text:?}")]
    ToolOutput {
        /// The program.
        tool: &'static str,
        /// What it printed.
        text: String,
    },
    /// The host lets this user make no user namespace, and the user is not root.
    #[error("an image cannot be built by this user, because {reason}; as root, run: {remedy}")]
    Privilege {
        /// What stands in the way.
        reason: &'static str,
        /// The one line to type.
        remedy: String,
    },
    /// The caller asked to stop.
    #[error("the build was cancelled")]
    Cancelled,
}

fn tail_text(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n  {line}")).collect()
}

/// Adds the action and the path to an [`io::Error`].
pub(super) fn at(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File {
        action,
        path,
        source,
    }
}
