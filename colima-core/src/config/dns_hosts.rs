//! Names of the guest's `/etc/hosts`.

use std::{collections::BTreeMap, net::IpAddr};

/// What Colima calls the host in its guests.
const NAMES_OF_THE_HOST: [&str; 2] = ["host.lima.internal", "host.docker.internal"];

/// The longest way from a name through other names to an address.
const LONGEST_CHAIN: usize = 8;

/// What became of names and their targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedHosts {
    /// Addresses by name.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Names whose target is a name that only a name server knows. They cannot be written.
    pub left_out: Vec<String>,
}

/// Finds the address of every name: its target is one, or leads to the host, or to another name of the map.
#[must_use]
pub fn resolve_hosts(hosts: &BTreeMap<String, String>, host: IpAddr) -> ResolvedHosts {
    let mut resolved = ResolvedHosts::default();
    for name in hosts.keys() {
        let mut target = name.as_str();
        let mut address = None;
        for _ in 0..LONGEST_CHAIN {
            match hosts.get(target) {
                Some(next) => target = next,
                None => break,
            }
            address = target.parse().ok();
            if address.is_some() {
                break;
            }
        }
        let address = address.or_else(|| NAMES_OF_THE_HOST.contains(&target).then_some(host));
        match address {
            Some(address) => drop(resolved.addresses.insert(name.clone(), address)),
            None => resolved.left_out.push(name.clone()),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn names_find_their_addresses() {
        let hosts = [
            ("host.docker.internal", "host.lima.internal"),
            ("db.test", "10.1.2.3"),
            ("six.test", "fd00::1"),
            ("alias.test", "db.test"),
            ("me.test", "host.docker.internal"),
            ("far.test", "example.com"),
            ("loop.test", "pool.test"),
            ("pool.test", "loop.test"),
        ]
        .map(|(name, target)| (name.to_owned(), target.to_owned()));
        let gateway = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
        let resolved = resolve_hosts(&hosts.into(), gateway);
        let seen: Vec<String> = resolved
            .addresses
            .iter()
            .map(|(name, address)| format!("{name} {address}"))
            .collect();
        assert_eq!(
            seen,
            [
                "alias.test 10.1.2.3",
                "db.test 10.1.2.3",
                "host.docker.internal 10.0.2.2",
                "me.test 10.0.2.2",
                "six.test fd00::1",
            ]
        );
        assert_eq!(resolved.left_out, ["far.test", "loop.test", "pool.test"]);
    }
}
