//! The integration tests of the crate, in one binary.

#[cfg(feature = "mux")]
mod mux_streams;
