//! The names of ssh2 that signatures here use, for documentation without the C library.
//!
//! Only rustdoc sees this file; it looks at signatures, not into bodies.

pub(super) enum Session {}
pub(super) enum Channel {}
pub(super) enum Error {}
pub(super) enum ErrorCode {}
pub(super) enum ExtendedData {}
pub(super) enum HashType {}
pub(super) enum MethodType {}
