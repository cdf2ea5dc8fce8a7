//! Byte streams between a host and a guest: socket relay and multiplexer.

#[cfg(feature = "agent")]
pub mod agent;
mod error;
mod local;
#[cfg(feature = "mux")]
pub mod mux;
mod pump;
#[cfg(feature = "relay")]
pub mod relay;

pub use error::{NetError, Violation};
pub use local::{Local, LocalStream};
#[cfg(feature = "mux")]
pub use mux::{Mux, MuxConfig, MuxStream};
pub use pump::{Hangup, Traffic, pump};
#[cfg(feature = "relay")]
pub use relay::{Relay, RelayEvent, RelayReport, SocketFile};
