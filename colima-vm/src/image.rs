//! Image bundles: build, lock, store, verify.
//!
//! An image is what a machine boots: a kernel, an initramfs with the few modules that the boot
//! needs, and a read-only root disk, described by a manifest with the digest of each. Nothing in it
//! belongs to one machine: the guest program and its configuration are appended to the initramfs at every boot
//! ([`cpio`]), and what a machine writes goes to an overlay.
//!
//! Images are built from Debian's signed packages by [`Builder`], in two stages: choose packages and
//! write them down ([`PackageLock`]), then build from what is written down. They live in an
//! [`ImageStore`], where they appear whole or not at all.
//!
//! ```no_run
//! # async fn example() -> Result<(), colima_vm::image::Error> {
//! use colima_core::Arch;
//! use colima_vm::image::{Builder, ImageStore};
//!
//! let builder = Builder::new(Arch::X86_64, "/home/me/.cache/colima");
//! let (events, mut progress) = tokio::sync::mpsc::unbounded_channel();
//! let lock = builder.resolve(1_760_000_000, &events, std::future::pending()).await?;
//! let store = ImageStore::new("/home/me/.colima/_images");
//! let image = builder.build(&store, &lock, &events, std::future::pending()).await?;
//! println!("{} boots {}", image.manifest.id, image.kernel().display());
//! # Ok(()) }
//! ```

mod build;
pub mod cpio;
mod digest;
mod error;
mod guest;
mod import;
mod manifest;
mod package_lock;
mod root_disk;
mod rootfs;
mod store;

pub use build::{BuildEvent, BuildStep, Builder, Sources, image_id};
pub use digest::{Digest, ParseDigestError};
pub use error::Error;
pub use guest::{GuestParts, boot_archive};
pub use manifest::{FileRecord, ImageId, Manifest, ParseImageIdError, ParseManifestError};
pub use package_lock::{LockedPackage, PackageLock, ParseLockError};
pub use store::{Image, ImageStore};
