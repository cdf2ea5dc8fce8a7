//! Which guest port appears where on the host: pure, first match wins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use colima_core::ports::{Asked, GuestPort, Protocol, Publish};

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where the guest is reached: an address of the guest, never an unspecified one.
    pub guest: SocketAddr,
    /// The container that wants it.
    pub published: Option<Publish>,
}

impl Forward {
    /// What no two forwards can share.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place {
            protocol: self.protocol,
            address: self.host,
        }
    }
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: SocketAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.protocol)
    }
}

/// What happens to the guest ports that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Only ports of this protocol; `None` for both.
    pub protocol: Option<Protocol>,
    /// Only ports that listen on this address, exactly as written; `None` for any.
    pub address: Option<IpAddr>,
    /// Only these ports.
    pub ports: RangeInclusive<u16>,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It stays the guest's.
    Ignore,
    /// It appears on the host.
    Forward {
        /// On which addresses.
        bind: Bind,
        /// The host's port for the first port of the rule, the others follow; `None` keeps the number.
        first_port: Option<u16>,
    },
}

/// The addresses of the host on which a port appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The address that was asked for; where none was, those of [`Rules::plain`]. Sockets that no
    /// container published count as asked for by nobody, and stay on the loopback address where that is
    /// what they listen on.
    AsAsked,
    /// These, whatever was asked for.
    To(Vec<IpAddr>),
}

impl Rule {
    fn matches(&self, port: &GuestPort) -> bool {
        self.protocol.is_none_or(|wanted| wanted == port.protocol)
            && self.address.is_none_or(|wanted| wanted == port.address)
            && self.ports.contains(&port.port)
    }
}

/// An ordered list of rules, and what they fall back on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    plain: Vec<IpAddr>,
    reserved: BTreeSet<(Protocol, u16)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new([])
    }
}

/// What rules make of the guest's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// At most one for each place, in the order of places.
    pub forwards: Vec<Forward>,
    /// What a guest may not have, because it is reserved.
    pub refused: Vec<Forward>,
}

impl Rules {
    /// These rules, and after them one that forwards every port [as asked](Bind::AsAsked).
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut rules: Vec<Rule> = rules.into_iter().collect();
        rules.push(Rule {
            protocol: None,
            address: None,
            ports: 1..=u16::MAX,
            action: Action::Forward {
                bind: Bind::AsAsked,
                first_port: None,
            },
        });
        Self {
            rules,
            plain: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            reserved: BTreeSet::new(),
        }
    }

    /// The addresses of a port for which no address was asked; 127.0.0.1 and ::1 by default.
    #[must_use]
    pub fn plain(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.plain = addresses.into_iter().collect();
        self
    }

    /// Keeps a port of the host from every guest, on every address.
    #[must_use]
    pub fn reserve(mut self, protocol: Protocol, port: u16) -> Self {
        self.reserved.insert((protocol, port));
        self
    }

    /// What is to appear on the host for these ports of the guest.
    ///
    /// Where several want one place, a publish comes before a socket and a target of the place's own
    /// family before the other. A place that another covers, as 0.0.0.0 covers 127.0.0.1, is left out.
    #[must_use]
    pub fn plan<'p>(&self, ports: impl IntoIterator<Item = &'p GuestPort>) -> Plan {
        let mut best: BTreeMap<Place, (Rank, Forward)> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for port in ports {
            for forward in self.forwards(port) {
                let place = forward.place();
                if self
                    .reserved
                    .contains(&(place.protocol, place.address.port()))
                {
                    refused.insert(place, forward);
                    continue;
                }
                let rank = Rank::of(&forward);
                match best.get(&place) {
                    Some((taken, _)) if *taken <= rank => {}
                    _ => drop(best.insert(place, (rank, forward))),
                }
            }
        }
        let covered = |place: &Place| {
            let whole = SocketAddr::new(whole_family(place.address.ip()), place.address.port());
            let cover = Place {
                address: whole,
                ..*place
            };
            cover != *place && best.contains_key(&cover)
        };
        Plan {
            forwards: best
                .iter()
                .filter(|(place, _)| !covered(place))
                .map(|(_, (_, forward))| forward.clone())
                .collect(),
            refused: refused.into_values().collect(),
        }
    }

    /// Every place that one port wants, whatever others want.
    #[must_use]
    pub fn forwards(&self, port: &GuestPort) -> Vec<Forward> {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(port)) else {
            return Vec::new();
        };
        let Action::Forward { bind, first_port } = &rule.action else {
            return Vec::new();
        };
        let host_port = match first_port {
            None => Some(port.port),
            Some(first) => first.checked_add(port.port - rule.ports.start()),
        };
        let Some(host_port) = host_port.filter(|port| *port != 0) else {
            return Vec::new();
        };
        let addresses = match bind {
            Bind::To(addresses) => addresses.clone(),
            Bind::AsAsked => self.as_asked(port),
        };
        let guest = SocketAddr::new(reached_at(port.address), port.port);
        addresses
            .into_iter()
            .map(|address| Forward {
                protocol: port.protocol,
                host: SocketAddr::new(address, host_port),
                guest,
                published: port.published.clone(),
            })
            .collect()
    }

    fn as_asked(&self, port: &GuestPort) -> Vec<IpAddr> {
        match &port.published {
            Some(Publish {
                asked: Asked::Address,
                ..
            }) => vec![port.address],
            // docker publishes on 0.0.0.0 in any case. With `::` standing in for it, a port that is going
            // would come back for the moment between the one and the other.
            Some(_) if port.address.is_unspecified() && port.address.is_ipv6() => {
                let plain = self.plain.iter().copied();
                plain.filter(IpAddr::is_ipv6).collect()
            }
            _ if port.address.is_unspecified() => self.plain.clone(),
            // The guest's docker has another default address: that was asked for, too.
            Some(_) => vec![port.address],
            None if port.address.is_loopback() => vec![port.address],
            // An address of the guest's own networks means nothing on the host.
            None => Vec::new(),
        }
    }
}

/// The lower, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_socket: bool,
    crosses_families: bool,
    guest: SocketAddr,
}

impl Rank {
    fn of(forward: &Forward) -> Self {
        Self {
            is_socket: forward.published.is_none(),
            crosses_families: forward.host.is_ipv4() != forward.guest.is_ipv4(),
            // Only so that the outcome does not depend on the order of the ports.
            guest: forward.guest,
        }
    }
}

const fn whole_family(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// An address of the guest at which a listener can be reached from inside.
const fn reached_at(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

#[cfg(test)]
mod tests;
