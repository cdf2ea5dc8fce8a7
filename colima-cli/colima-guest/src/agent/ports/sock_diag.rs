//! Which TCP sockets listen in this network namespace: sock_diag(7).
//!
//! Layouts are those of `linux/inet_diag.h`, in the byte order of the machine except for ports and
//! addresses, which are in that of the network.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink,
    sockopt::{Timeout, set_socket_timeout},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// The kernel changed its tables meanwhile, and may have left something out.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;

/// Dumps that the kernel could not finish in one piece before the last one is taken as it is.
const ATTEMPTS: usize = 5;

/// A kernel that loads its module for this first may take a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the kernel for the listeners of the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    /// # Errors
    ///
    /// As the system does.
    pub(super) fn new() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// All TCP sockets that listen now.
    ///
    /// # Errors
    ///
    /// As the kernel does; `NotFound` where it has no support for it.
    pub(super) fn listeners(&mut self) -> io::Result<BTreeSet<SocketAddr>> {
        let mut listeners = BTreeSet::new();
        for family in [AF_INET, AF_INET6] {
            for _ in 0..ATTEMPTS {
                let (found, whole) = self.dump(family)?;
                listeners.extend(found);
                if whole == Wholeness::Whole {
                    break;
                }
            }
        }
        Ok(listeners)
    }

    fn dump(&mut self, family: u8) -> io::Result<(Vec<SocketAddr>, Wholeness)> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.sequence, family);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        let mut found = Vec::new();
        let mut whole = Wholeness::Whole;
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let (_, length) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let answer = answers(&buffer[..length.min(buffer.len())], self.sequence)?;
            found.extend(answer.listeners);
            if answer.whole == Wholeness::Interrupted {
                whole = Wholeness::Interrupted;
            }
            if answer.is_last {
                return Ok((found, whole));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wholeness {
    Whole,
    Interrupted,
}

/// `nlmsghdr` and `inet_diag_req_v2`: all listeners of a family.
fn request(sequence: u32, family: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend([family, IPPROTO_TCP, 0, 0]); // no extensions, padding
    bytes.extend((1_u32 << TCP_LISTEN).to_ne_bytes());
    bytes.resize(72, 0); // an empty inet_diag_sockid
    bytes
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    listeners: Vec<SocketAddr>,
    whole: Wholeness,
    is_last: bool,
}

/// Reads the messages of one datagram; those of an earlier dump are skipped.
fn answers(mut bytes: &[u8], sequence: u32) -> io::Result<Answer> {
    let mut answer = Answer {
        listeners: Vec::new(),
        whole: Wholeness::Whole,
        is_last: false,
    };
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut off");
    while bytes.len() >= HEADER {
        let length = usize::try_from(u32_at(bytes, 0)).unwrap_or(usize::MAX);
        let (kind, flags) = (u16_at(bytes, 4), u16_at(bytes, 6));
        if length < HEADER || length > bytes.len() {
            return Err(cut());
        }
        let body = &bytes[HEADER..length];
        if u32_at(bytes, 8) == sequence {
            if flags & NLM_F_DUMP_INTR != 0 {
                answer.whole = Wholeness::Interrupted;
            }
            match kind {
                NLMSG_DONE => answer.is_last = true,
                NLMSG_ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                SOCK_DIAG_BY_FAMILY => answer.listeners.extend(listener(body)),
                _ => {}
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answer)
}

/// `inet_diag_msg`: family, state, two bytes, then the socket's ports and addresses.
fn listener(body: &[u8]) -> Option<SocketAddr> {
    let (family, state) = (*body.first()?, *body.get(1)?);
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let source = body.get(8..24)?;
    let address: IpAddr = match family {
        AF_INET => Ipv4Addr::from(*source.first_chunk::<4>()?).into(),
        AF_INET6 => Ipv6Addr::from(*source.first_chunk::<16>()?).into(),
        _ => return None,
    };
    (u32::from(state) == TCP_LISTEN && port != 0).then_some(SocketAddr::new(address, port))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u32::from_ne_bytes(four.copied().unwrap_or_default())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u16::from_ne_bytes(two.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes()); // NLM_F_MULTI
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn diag(family: u8, state: u8, port: u16, address: &[u8]) -> Vec<u8> {
        let mut body = vec![family, state, 0, 0];
        body.extend(port.to_be_bytes());
        body.extend([0, 0]);
        body.extend(address);
        body.resize(72, 0);
        message(SOCK_DIAG_BY_FAMILY, 5, &body)
    }

    #[test]
    fn a_dump() {
        let mut bytes = diag(AF_INET, 10, 8080, &[127, 0, 0, 1]);
        bytes.extend(diag(AF_INET, 1, 8081, &[127, 0, 0, 1]));
        bytes.extend(diag(AF_INET6, 10, 443, &Ipv6Addr::LOCALHOST.octets()));
        bytes.extend(message(NLMSG_DONE, 4, &[0; 4])); // of the dump before
        let answer = answers(&bytes, 5).unwrap();
        let expected: Vec<SocketAddr> = ["127.0.0.1:8080", "[::1]:443"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(answer.listeners, expected);
        assert!(!answer.is_last);
        assert!(
            answers(&message(NLMSG_DONE, 5, &[0; 4]), 5)
                .unwrap()
                .is_last
        );

        let refused = message(NLMSG_ERROR, 5, &(-2_i32).to_ne_bytes());
        let error = answers(&refused, 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_kernel_answers() {
        let four = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let six = std::net::TcpListener::bind("[::1]:0");
        let mut diag = SockDiag::new().unwrap();
        let found = diag.listeners().unwrap();
        assert!(found.contains(&four.local_addr().unwrap()), "{found:?}");
        if let Ok(six) = &six {
            assert!(found.contains(&six.local_addr().unwrap()), "{found:?}");
        }
        let gone = four.local_addr().unwrap();
        drop(four);
        assert!(!diag.listeners().unwrap().contains(&gone));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            kind in 0_u16..24,
            body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = answers(&bytes, 1);
            let _ = answers(&message(kind, 1, &body), 1);
        }
    }
}
