//! Host directories in the guest: what is to be shared, and the processes that serve it.
//!
//! ```text
//! colima.yaml, flags ── plan ──> shares ── supervision ──> one worker per share ~~~ port ~~~ guest
//! ```
//!
//! A worker is this program again, as the user, with two descriptors: the share's directory and the connected
//! stream of its port. It ends with the daemon that started it; what serves is always a child of the living one.

mod handover;
pub(crate) mod plan;
mod share;
mod supervision;
pub(crate) mod usual;
pub(crate) mod worker;

pub(crate) use share::path_in_guest;
pub use share::{MountHealth, Share};
pub(crate) use supervision::{Serving, Worker};
