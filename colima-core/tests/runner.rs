//! One test program for the crate: every other file here is a module of it.

#![cfg_attr(
    feature = "config",
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

#[cfg(feature = "config")]
mod config_errors;
#[cfg(feature = "config")]
mod config_files;
#[cfg(feature = "config")]
mod config_limits;
#[cfg(feature = "config")]
mod config_schema;
#[cfg(feature = "config")]
mod sample_configs;
#[cfg(feature = "config")]
mod template;
