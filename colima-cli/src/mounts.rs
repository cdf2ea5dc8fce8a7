//! Host directories in the guest: what is to be shared, and the processes that serve it.
//!
//! ```text
//! colima.yaml, flags ── plan ──> shares ── supervision ──> one worker per share ~~~ port ~~~ guest
//! ```
//!
//! A worker is this program again, as the user, with the share's directory, that of its records and the connected
//! stream of its port, and from then on without a way to anything else. It ends with the daemon that started it; what
//! serves is always a child of the living one.

mod ground;
mod handover;
pub(crate) mod plan;
mod protect;
mod share;
mod supervision;
pub(crate) mod usual;
mod walls;
pub(crate) mod worker;

pub(crate) use ground::Ground;
pub use protect::ProtectSettings;
pub(crate) use share::path_in_guest;
pub use share::{MountHealth, Share};
pub(crate) use supervision::{Serving, Worker};
