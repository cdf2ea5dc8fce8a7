//! The integration tests of the crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod packets;
