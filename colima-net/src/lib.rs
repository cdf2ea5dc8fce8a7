//! Byte streams between a host and a guest: socket relay and multiplexer.

mod error;
#[cfg(feature = "mux")]
pub mod mux;
mod pump;

pub use error::{Error, Violation};
pub use pump::{Hangup, Traffic, pump};
