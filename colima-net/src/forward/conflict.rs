//! Why a port does not appear on the host.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use colima_core::ports::Protocol;

use super::{
    owner::{self, Owner},
    rules::{Forward, Place},
};

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
        f.write_str(&self.cause.at(self.forward.place()))
    }
}

/// What keeps a TCP port from being opened now; `None` where nothing does. Whoever asks has to open it
/// himself a moment later, and may find somebody there after all.
#[must_use]
pub fn obstacle(address: SocketAddr) -> Option<Cause> {
    let error = TcpListener::bind(address).err()?;
    let place = Place {
        protocol: Protocol::Tcp,
        address,
    };
    Some(match Cause::of(&error) {
        Cause::InUse { .. } => Cause::InUse {
            owner: owner::of(&[place]).remove(&place),
        },
        cause => cause,
    })
}

impl Cause {
    /// The cause in a sentence that begins with the place.
    #[must_use]
    pub fn at(&self, place: Place) -> String {
        match self {
            Self::InUse { owner: Some(owner) } => format!("{place} is in use by {owner}"),
            Self::InUse { owner: None } => {
                format!("{place} is in use by a process of somebody else")
            }
            Self::Privileged => format!("{place} is below 1024, and only root may open it"),
            Self::NoSuchAddress => format!("{place} is no address of this host"),
            Self::Reserved => format!("{place} is reserved"),
            Self::TooMany { limit } => {
                format!("{place} is one too many: {limit} ports are forwarded")
            }
            Self::System { kind } => format!("{place} cannot be opened: {kind}"),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_owner() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let Some(Cause::InUse { owner: Some(owner) }) = obstacle(address) else {
            panic!("{address} is not in use");
        };
        assert_eq!(owner.pid, std::process::id());
        drop(taken);
        assert_eq!(obstacle(address), None);
    }
}
