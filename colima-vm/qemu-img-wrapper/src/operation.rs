//! The operations by name, and how a resize may go.

use std::fmt;

/// A sub-command of `qemu-img`, for error messages and for callers that branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `qemu-img --version`
    Version,
    /// `qemu-img info`
    Info,
    /// `qemu-img check`
    Check,
    /// `qemu-img create`
    Create,
    /// `qemu-img resize`
    Resize,
    /// `qemu-img convert`
    Convert,
    /// `qemu-img snapshot`
    Snapshot,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "--version",
            Self::Info => "info",
            Self::Check => "check",
            Self::Create => "create",
            Self::Resize => "resize",
            Self::Convert => "convert",
            Self::Snapshot => "snapshot",
        })
    }
}

/// Which way [`resize`](crate::QemuImg::resize) may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resize {
    /// A smaller size fails with [`Reason::WouldShrink`](crate::Reason::WouldShrink).
    GrowOnly,
    /// A smaller size cuts off what lies behind it, for ever.
    AllowShrink,
}
