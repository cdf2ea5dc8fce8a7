//! Disk images of a machine: create, grow, overlay, and refuse what is crafted.
//!
//! A machine has two disks. Its root disk is an overlay ([`ensure_overlay`]) on a read-only image
//! that others share; an update throws the overlay away. Its data disk ([`ensure_data`]) stands alone
//! and holds what must survive. Both are sparse qcow2 files.
//!
//! Three promises:
//!
//! * **Nothing is believed from a file.** [`inspect`] reads the header itself ([`qcow2`]) before any
//!   QEMU program sees an image, because QEMU follows what a header names.
//! * **A kill at any moment costs nothing.** A disk is made under another name in the same directory,
//!   written through to the device and then renamed, never onto a file that is already there. What a
//!   killed run leaves behind is removed by the next. Growing writes a longer table first and the header
//!   that points to it last; a kill between the two wastes one cluster of 64 KiB.
//! * **Disks only grow.** A smaller size is an error that names both sizes.
//!
//! Calls for one disk wait for each other, across processes, by a lock on the empty file
//! `.NAME.lock` beside the disk; it stays. The lock does not keep a machine out: QEMU has its own,
//! which makes growing the disk of a running machine fail.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use colima_core::Bytes;
//! use colima_vm::disk::{self, Change};
//! use qemu_img_wrapper::QemuImg;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), disk::Error> {
//! let (qemu_img, home) = (QemuImg::new(), Path::new("/var/lib/machines/one"));
//!
//! disk::ensure_overlay(
//!     &qemu_img,
//!     Path::new("/var/lib/images/trixie/root.qcow2"),
//!     &home.join("root.qcow2"),
//!     Bytes::gib(20),
//! )
//! .await?;
//! match disk::ensure_data(&qemu_img, &home.join("data.qcow2"), Bytes::gib(100)).await? {
//!     Change::Created => println!("a new data disk"),
//!     Change::Grown { from, to } => println!("the data disk grew from {from} to {to}"),
//!     Change::Unchanged => {}
//! }
//! # Ok(())
//! # }
//! ```

mod ensure;
mod error;
mod place;
pub mod qcow2;

use std::{fs::File, io, io::Read, path::Path};

use rustix::fs::{Mode, OFlags};

pub use ensure::{Change, ensure_data, ensure_overlay, grow_to};
pub use error::Error;

use colima_core::Bytes;

/// Reads the header of an image, and nothing but the header.
///
/// A symbolic link is followed; anything else than a regular file behind it is refused at once, also a
/// FIFO. Judging the header is left to [`qcow2::Header::admit`].
///
/// # Errors
///
/// [`Error::Read`] when the file cannot be read, [`Error::NotAFile`], and [`Error::Refused`] when it
/// is no intact qcow2 image.
///
/// # Cancel safety
///
/// Changes nothing.
pub async fn inspect(path: &Path) -> Result<qcow2::Header, Error> {
    let path = path.to_owned();
    blocking(move || inspect_now(&path)).await
}

/// The size that the guest sees, from the header alone; works for the disk of a running machine.
///
/// # Errors
///
/// As [`inspect`].
///
/// # Cancel safety
///
/// Changes nothing.
pub async fn virtual_size(path: &Path) -> Result<Bytes, Error> {
    Ok(inspect(path).await?.virtual_size)
}

fn inspect_now(path: &Path) -> Result<qcow2::Header, Error> {
    let read = |source: io::Error| Error::Read {
        path: path.to_owned(),
        source,
    };
    // NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| read(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut head = Vec::with_capacity(qcow2::HEAD_LENGTH);
    let length = u64::try_from(qcow2::HEAD_LENGTH).unwrap_or(u64::MAX);
    file.take(length).read_to_end(&mut head).map_err(read)?;
    qcow2::Header::parse(&head, metadata.len()).map_err(|source| Error::Refused {
        path: path.to_owned(),
        source,
    })
}

/// Runs file system calls where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::RuntimeGone),
        },
    }
}
