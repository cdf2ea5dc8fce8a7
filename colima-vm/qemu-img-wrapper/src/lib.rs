//! A typed, asynchronous wrapper around the `qemu-img` program.
//!
//! `qemu-img` is the authority on disk images of virtual machines, and it comes with every QEMU.
//! This crate runs it and nothing else: it reads no environment, prints nothing, keeps no state and
//! changes no file of its own accord. QEMU 7.2 and later are supported, on Unix hosts.
//!
//! * [`QemuImg`] is the handle: [`info`](QemuImg::info), [`check`](QemuImg::check),
//!   [`create`](QemuImg::create), [`resize`](QemuImg::resize), [`convert`](QemuImg::convert) and the
//!   snapshot methods. It is a path; cloning it is cheap and dropping it does nothing.
//! * [`Image`] is a path **and its format**. Left to guess, `qemu-img` looks at the contents, and
//!   contents that a guest wrote can claim to be a format that names files of the host
//!   (CVE-2008-2004, CVE-2013-1922). There is no way here to leave the format out.
//! * Any file name works. `qemu-img` reads `nbd:…` or `json:…` as something else than a file, and
//!   `-x` as an option; names are therefore handed over in absolute form, where they can be neither.
//! * [`Error`] keeps what the program said, how it ended, and the [`Reason`] where it is a known one.
//!
//! Naming the format does not make a crafted image harmless: a qcow2 header can still name a backing
//! file or an external data file, which `qemu-img` opens (CVE-2024-4467). Look at the header of an
//! image from a stranger before you hand it to any QEMU program.
//!
//! ```no_run
//! use qemu_img_wrapper::{Create, Image, Locking, QemuImg, Resize};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), qemu_img_wrapper::Error> {
//! let qemu_img = QemuImg::new();
//! let disk = Image::qcow2("data.qcow2");
//!
//! qemu_img.create(&Create::empty(disk, 10 << 30)).await?;
//! qemu_img.resize(disk, 20 << 30, Resize::GrowOnly).await?;
//!
//! let info = qemu_img.info(disk, Locking::Respect).await?;
//! assert_eq!(info.virtual_size, 20 << 30);
//! println!("{} bytes on the host", info.actual_size);
//! # Ok(())
//! # }
//! ```
//!
//! Every method starts one process. Dropping its future kills that process; what a killed process
//! leaves behind is said at each method.

mod argv;
mod check;
mod convert;
mod create;
mod error;
mod image;
mod info;
mod operation;
mod program;
mod progress;
mod version;

pub use check::{CheckReport, Repair, Verdict};
pub use convert::{Compression, Convert};
pub use create::{Create, Preallocation};
pub use error::{Error, Reason};
pub use image::{Format, Image};
pub use info::{BackingFile, FormatSpecific, ImageInfo, Locking, Qcow2Info, Snapshot};
pub use operation::{Operation, Resize};
pub use program::QemuImg;
pub use progress::Percent;
pub use version::Version;
