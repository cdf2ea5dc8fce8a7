//! The words that the Colima crates share, and the two traits that let them stay strangers.
//!
//! This crate is not the disk-image repository of the same name upstream. It holds three kinds of
//! things and nothing else:
//!
//! * **Vocabulary**: [`Bytes`], [`Arch`], [`ProfileName`], [`Endpoint`]. Units and identities are
//!   types, so that a megabyte is never taken for a gigabyte.
//! * **What a library needs of a guest**: [`Connect`] opens a byte stream to an endpoint on the far
//!   side, [`Guest`] also runs commands there. `colima-net` and `colima-mount` are written against
//!   these traits and know nothing of virtual machines.
//! * **What host and guest say to each other**: [`agent`] (requests, replies, versions), [`ports`], [`mounts`]
//!   (what the guest serves, and what it is given) and [`boot`] (the configuration handed to a guest when it boots).
//!
//! Two features add what only programs around a whole profile need: `config` is `colima.yaml` (read,
//! merged, checked, edited in place), `runtime` is the text that container runtimes read (the docker
//! daemon's configuration, the docker CLI's contexts). Both are pure: text in, values or text out.
//!
//! There is no I/O here beyond what a caller's own implementation of a trait performs.
//!
//! ```
//! use colima_core::{Bytes, Endpoint, ProfileName};
//!
//! let memory: Bytes = "2.5".parse().unwrap(); // a bare number counts GiB
//! assert_eq!(memory, Bytes::mib(2560));
//!
//! let profile: ProfileName = "work".parse().unwrap();
//! assert_eq!(profile.instance(), "colima-work");
//!
//! let docker: Endpoint = "unix:/run/docker.sock".parse().unwrap();
//! assert_eq!(docker.to_string(), "unix:/run/docker.sock");
//! ```

pub mod agent;
mod arch;
pub mod boot;
#[cfg(feature = "config")]
pub mod config;
mod connect;
mod endpoint;
pub mod mounts;
pub mod ports;
mod profile;
#[cfg(feature = "runtime")]
pub mod runtime;
mod size;

pub use arch::{Arch, ParseArchError};
pub use connect::{Command, Connect, Guest, Output};
pub use endpoint::{Endpoint, ParseEndpointError};
pub use profile::{ParseProfileNameError, ProfileName};
pub use size::{Bytes, ParseBytesError};
