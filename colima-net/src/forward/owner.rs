//! Who holds a port of the host: proc(5), as far as this user may look.

use std::{
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

/// The process whose socket keeps `place` from being bound; `None` where it cannot be told, as for the
/// processes of other users and on systems without `/proc`.
pub(super) fn of(place: Place) -> Option<Owner> {
    of_in(Path::new("/proc"), place)
}

fn of_in(proc: &Path, place: Place) -> Option<Owner> {
    let tables = match place.protocol {
        Protocol::Tcp => ["net/tcp", "net/tcp6"],
        Protocol::Udp => ["net/udp", "net/udp6"],
    };
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(proc.join(table)).ok())
        .flat_map(|text| holders(&text, place))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let entries = fs::read_dir(proc).ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| holds_one_of(&proc.join(pid.to_string()), &inodes))
        .min()
        .map(|pid| {
            let name = fs::read_to_string(proc.join(format!("{pid}/comm"))).unwrap_or_default();
            Owner {
                pid,
                name: name.trim_end().to_owned(),
            }
        })
}

fn holds_one_of(process: &Path, inodes: &[u64]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false; // somebody else's, or gone
    };
    descriptors.flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let inode = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:["))
            .and_then(|text| text.strip_suffix(']'))
            .and_then(|text| text.parse().ok());
        inode.is_some_and(|inode| inodes.contains(&inode))
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
        assert_eq!(of(place).unwrap().pid, std::process::id());
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let place = Place {
            protocol: Protocol::Udp,
            address: ([127, 0, 0, 1], port).into(),
        };
        assert_eq!(of(place).unwrap().pid, std::process::id());
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
