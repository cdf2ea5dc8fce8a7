//! The agent (in work).

use std::{convert::Infallible, io};

/// In work.
pub fn run() -> io::Result<Infallible> {
    Err(io::ErrorKind::Unsupported.into())
}
