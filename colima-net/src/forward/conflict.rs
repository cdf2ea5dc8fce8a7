//! Why a port does not appear on the host.

use std::{fmt, io};

use super::{owner::Owner, rules::Forward};

/// A forward that is wanted and does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What was wanted.
    pub forward: Forward,
    /// What is in its way.
    pub cause: Cause,
}

/// What is in the way of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Somebody else has the port. Nothing is taken from anybody.
    InUse {
        /// Who, where this user may see it.
        owner: Option<Owner>,
    },
    /// The port is below 1024 and this user may not have it.
    Privileged,
    /// The host has no such address.
    NoSuchAddress,
    /// The port is kept from guests: [`Rules::reserve`](super::Rules::reserve).
    Reserved,
    /// As many ports are open as the forwarder may have.
    TooMany {
        /// That many.
        limit: usize,
    },
    /// What else the system said.
    System {
        /// The kind of error.
        kind: io::ErrorKind,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.forward.place();
        match &self.cause {
            Cause::InUse { owner: Some(owner) } => write!(f, "{place} is in use by {owner}"),
            Cause::InUse { owner: None } => {
                write!(f, "{place} is in use by a process of somebody else")
            }
            Cause::Privileged => write!(f, "{place} is below 1024, and only root may open it"),
            Cause::NoSuchAddress => write!(f, "{place} is no address of this host"),
            Cause::Reserved => write!(f, "{place} is reserved"),
            Cause::TooMany { limit } => {
                write!(f, "{place} is one too many: {limit} ports are forwarded")
            }
            Cause::System { kind } => write!(f, "{place} cannot be opened: {kind}"),
        }
    }
}

impl Cause {
    /// What a failed bind means; the owner is found out by others.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { owner: None },
            io::ErrorKind::PermissionDenied => Self::Privileged,
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress,
            // A system without IPv6 has no address of its family.
            _ if rustix::io::Errno::from_io_error(error)
                == Some(rustix::io::Errno::AFNOSUPPORT) =>
            {
                Self::NoSuchAddress
            }
            kind => Self::System { kind },
        }
    }
}
