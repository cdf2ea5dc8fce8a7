//! Ports on which a guest can be reached, as its agent tells of them and a forwarder wants them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the guest's root network namespace that somebody serves.
///
/// Two of the same protocol, address and port are one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GuestPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The address that is listened on; unspecified for every address of its family.
    pub address: IpAddr,
    /// The port, not 0.
    pub port: u16,
    /// The container that published it; `None` for a socket of somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Publish>,
}

impl GuestPort {
    /// A port that no container published.
    #[must_use]
    pub const fn socket(protocol: Protocol, address: SocketAddr) -> Self {
        Self {
            protocol,
            address: address.ip(),
            port: address.port(),
            published: None,
        }
    }

    /// The address and the port.
    #[must_use]
    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for GuestPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket_address(), self.protocol)
    }
}

/// Who published a port, and as what. All text is the guest's: escape it before showing it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publish {
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// What was asked for.
    pub asked: Asked,
}

/// What a publish asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// A port without an address, as in `-p 8080:80`.
    Port,
    /// An address as well, as in `-p 0.0.0.0:8080:80`.
    Address,
}
