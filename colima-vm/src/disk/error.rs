//! What can go wrong with a disk.

use std::{io, path::PathBuf};

use colima_core::Bytes;

use super::qcow2::Refusal;

/// Why a disk could not be used or made.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "read as disk::Error")]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be read. A symbolic link to a disk that is not there ends here, too: no new
    /// disk is made in its place.
    #[error("cannot read the disk {path:?}")]
    Read {
        /// The disk.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a device, a FIFO or a socket.
    #[error("the disk {path:?} is no regular file")]
    NotAFile {
        /// The path in question.
        path: PathBuf,
    },
    /// The file is no image, or none that is let near QEMU.
    #[error("the disk {path:?} is refused")]
    Refused {
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        source: Refusal,
    },
    /// QEMU found damage earlier and marked the image.
    #[error(
        "the disk {path:?} is marked as damaged: copy it, then run qemu-img check -f qcow2 -r all on it"
    )]
    Corrupt {
        /// The disk.
        path: PathBuf,
    },
    /// The wanted size is smaller than the disk is.
    #[error("the disk {path:?} has {current} and cannot shrink to {wanted}")]
    WouldShrink {
        /// The disk.
        path: PathBuf,
        /// The size it has.
        current: Bytes,
        /// The size that was asked for.
        wanted: Bytes,
    },
    /// The wanted size of an overlay is smaller than its base.
    #[error("a disk of {wanted} cannot hold the image {base:?}, which has {needed}")]
    SmallerThanBase {
        /// The image below.
        base: PathBuf,
        /// The size of the image below.
        needed: Bytes,
        /// The size that was asked for.
        wanted: Bytes,
    },
    /// The overlay exists and belongs to another image: using it would mix two file systems.
    #[error("the disk {path:?} is an overlay of {found:?}, not of {expected:?}")]
    OtherBase {
        /// The overlay.
        path: PathBuf,
        /// The image it was to belong to.
        expected: PathBuf,
        /// The image it names; `None` for a disk that stands alone.
        found: Option<PathBuf>,
    },
    /// Somebody made the disk between our look and our rename; theirs was kept.
    #[error("the disk {path:?} appeared while it was being made")]
    Appeared {
        /// The disk.
        path: PathBuf,
    },
    /// A file system call failed.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` is missing or failed.
    #[error("the image tool did not do its work")]
    Tool(
        /// What it said.
        #[from]
        qemu_img_wrapper::Error,
    ),
    /// The tokio runtime was shut down during the call.
    #[error("the runtime was shut down before the disk was done")]
    RuntimeGone,
}
