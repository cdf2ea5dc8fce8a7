//! The one program that runs in a Colima guest, in three roles.
//!
//! * [`init`] is process 1 of the initramfs. It loads the few modules that the disks and the network
//!   need, finds the disks by their serial numbers, formats the data disk if and only if it is blank,
//!   writes what the host told it ([`colima_core::boot::BootConfig`]) into the root file system, and
//!   hands over to systemd. It runs once, in order, and is synchronous code.
//! * [`agent`] is the first service that systemd starts. It serves the multiplexer on a virtio-serial
//!   port: streams to sockets of the guest, and the [`colima_core::agent`] protocol.
//! * [`mount`] is a service per host directory: the client of what the host serves on a port of its own.
//!
//! The program is static, so that it runs in an initramfs that holds nothing else. A static glibc
//! program cannot ask the name service, so nothing here resolves a host name or a user name through
//! the C library; a test looks at the symbols of the program that is shipped.
//!
//! Decisions are pure functions over bytes and text ([`disk_content`], [`ext4`], [`accounts`],
//! [`guest_files`], [`netlink`]); the modules of `init` and `agent` carry them out.
//!
//! ```
//! use colima_guest::accounts::{AccountFiles, with_user};
//! use colima_core::boot::User;
//!
//! let image = AccountFiles {
//!     passwd: "root:x:0:0:root:/root:/bin/bash\n".into(),
//!     group: "root:x:0:\nsudo:x:27:\n".into(),
//!     shadow: "root:*:19000:0:99999:7:::\n".into(),
//! };
//! let ada = User { name: "ada".into(), uid: 1000, gid: 1000, home: "/home/ada".into() };
//! let files = with_user(&image, &ada);
//! assert!(files.passwd.contains("ada:x:1000:1000::/home/ada:/bin/bash\n"));
//! assert!(files.group.contains("sudo:x:27:ada\n"));
//! assert_eq!(with_user(&files, &ada), files);
//! ```

pub mod accounts;
pub mod agent;
mod device_events;
pub mod disk_content;
mod error;
pub mod ext4;
pub mod guest_files;
pub mod init;
pub mod mount;
mod mount_records;
mod mount_table;
pub mod netlink;
pub mod provision;
pub mod status;

pub use error::GuestError;
