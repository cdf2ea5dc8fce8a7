//! The integration tests of the crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[cfg(feature = "mux")]
mod mux_hostile_peer;
#[cfg(feature = "mux")]
mod mux_model;
#[cfg(feature = "mux")]
mod mux_recovery;
#[cfg(feature = "mux")]
mod mux_streams;
#[cfg(feature = "forward")]
mod port_forwarding;
#[cfg(feature = "agent")]
mod port_watch;
#[cfg(feature = "relay")]
mod relay_connections;
#[cfg(feature = "relay")]
mod socket_file;
#[cfg(feature = "ssh")]
mod ssh_commands;
#[cfg(feature = "ssh")]
mod ssh_links;
#[cfg(feature = "ssh")]
mod ssh_streams;
#[cfg(feature = "ssh")]
mod sshd;
#[cfg(any(feature = "mux", feature = "ssh"))]
mod stream_bodies;
