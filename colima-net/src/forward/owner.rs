//! Who holds a port of the host: proc(5), as far as this user may look.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use colima_core::ports::Protocol;

use super::rules::Place;

/// A process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// The name that it goes by; any program chooses its own.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.replace(char::is_control, "\u{fffd}");
        write!(f, "{name} (pid {})", self.pid)
    }
}

/// The processes whose sockets keep these places from being bound. A place is missing where that cannot be
/// told, as for the processes of other users and on systems without `/proc`.
pub(super) fn of(places: &[Place]) -> BTreeMap<Place, Owner> {
    let proc = Path::new("/proc");
    let table = |name| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let tcp = ["net/tcp", "net/tcp6"].map(table);
    let udp = ["net/udp", "net/udp6"].map(table);
    let mut wanted: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
    for place in places {
        let tables = match place.protocol {
            Protocol::Tcp => &tcp,
            Protocol::Udp => &udp,
        };
        for inode in tables.iter().flat_map(|table| holders(table, *place)) {
            wanted.entry(inode).or_default().push(*place);
        }
    }
    let mut owners: BTreeMap<Place, Owner> = BTreeMap::new();
    if wanted.is_empty() {
        return owners;
    }
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        for inode in sockets(&proc.join(format!("{pid}/fd"))) {
            for place in wanted.get(&inode).into_iter().flatten() {
                // Of those that share a socket the oldest, which is most likely the one that was started.
                if owners.get(place).is_none_or(|owner| pid < owner.pid) {
                    let name = fs::read_to_string(proc.join(format!("{pid}/comm")));
                    let name = name.unwrap_or_default().trim_end().to_owned();
                    owners.insert(*place, Owner { pid, name });
                }
            }
        }
    }
    owners
}

/// Of these places those where nobody listens, whoever it is that should. None on systems without `/proc`.
#[must_use]
pub fn deserted(places: &[Place]) -> Vec<Place> {
    let mut deserted = Vec::new();
    for (protocol, names) in [
        (Protocol::Tcp, ["net/tcp", "net/tcp6"]),
        (Protocol::Udp, ["net/udp", "net/udp6"]),
    ] {
        let tables = names.map(|name| fs::read_to_string(Path::new("/proc").join(name)));
        let tables: Vec<&String> = tables.iter().flatten().collect();
        if tables.is_empty() {
            continue;
        }
        let alone = |place: &Place| {
            let held = |table: &&String| !holders(table, *place).is_empty();
            place.protocol == protocol && !tables.iter().any(held)
        };
        deserted.extend(places.iter().copied().filter(alone));
    }
    deserted
}

/// Inodes of the sockets that a process has; none where it is somebody else's, or gone.
fn sockets(descriptors: &Path) -> impl Iterator<Item = u64> {
    let descriptors = fs::read_dir(descriptors).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    })
}

/// Inodes of the sockets in a table of `/proc/net` that keep `place` from being bound.
fn holders(table: &str, place: Place) -> Vec<u64> {
    // TCP_LISTEN, and for UDP the state of a socket without a peer (TCP_CLOSE).
    let state = match place.protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = local_address(fields.next()?)?;
        let in_state = fields.nth(1)? == state;
        let inode = fields.nth(5)?.parse().ok()?;
        (in_state && port == place.address.port() && collide(address, place.address.ip()))
            .then_some(inode)
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Whether sockets of both addresses cannot have the same port. A socket of `::` may or may not take
/// IPv4 as well; here it does, because the question is asked only about a place that is taken.
fn collide(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    match (one, other) {
        (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        _ => one == other || one.is_unspecified() || other.is_unspecified(),
    }
}

/// `0100007F:1F90`: words of 32 bits in the byte order of the machine.
fn local_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 555 1 0000000000000000 100 0 0 10 0
";

    fn tcp(address: &str) -> Place {
        Place {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_place_is_deserted_once_its_listener_is_gone() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = |protocol, address| Place { protocol, address };
        let places = [
            place(Protocol::Tcp, tcp.local_addr().unwrap()),
            place(Protocol::Udp, udp.local_addr().unwrap()),
        ];
        assert_eq!(deserted(&places), []);
        drop(tcp);
        assert_eq!(deserted(&places), places[..1]);
        drop(udp);
        assert_eq!(deserted(&places), places);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_that_are_in_the_way() {
        for (table, place, expected) in [
            (TCP, "127.0.0.1:8080", &[111][..]),
            (TCP, "0.0.0.0:8080", &[111]),
            (TCP, "127.0.0.2:8080", &[]),
            (TCP, "127.0.0.1:22", &[222]),
            (TCP, "[::1]:22", &[]),
            (TCP6, "[::1]:8080", &[444]),
            (TCP6, "127.0.0.1:8080", &[]),
            (TCP6, "127.0.0.1:80", &[555]),
        ] {
            assert_eq!(holders(table, tcp(place)), expected, "{place}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place {
            protocol: Protocol::Tcp,
            address: listener.local_addr().unwrap(),
        };
        assert_eq!(of(&[place])[&place].pid, std::process::id());
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let place = Place {
            protocol: Protocol::Udp,
            address: ([127, 0, 0, 1], port).into(),
        };
        assert_eq!(of(&[place])[&place].pid, std::process::id());
        drop(socket);
        assert!(of(&[place]).is_empty());
    }

    #[test]
    fn names_are_shown_without_their_tricks() {
        let owner = Owner {
            pid: 7,
            name: "a\x1b[2Jb".to_owned(),
        };
        assert_eq!(owner.to_string(), "a\u{fffd}[2Jb (pid 7)");
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(table in "(.{0,40}\n){0,4}|( *[0-9A-F:é]{0,34} ){0,8}") {
            let _ = holders(&table, tcp("127.0.0.1:1"));
        }
    }
}
