//! The four rtnetlink messages that configure an interface, and the kernel's answer to them.
//!
//! Layouts are those of rtnetlink(7): a header of 16 bytes, a body, attributes aligned to 4 bytes,
//! in the byte order of the machine. Pure encoding; [`crate::init`] owns the socket.

use std::{io, net::Ipv4Addr};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// Brings an interface up.
#[must_use]
pub fn link_up(sequence: u32, index: u32) -> Vec<u8> {
    let mut body = vec![0; 4]; // family, padding, device type
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes()); // the flags that change
    message(RTM_NEWLINK, 0, sequence, body)
}

/// Gives an interface an address; giving it again is no error.
#[must_use]
pub fn add_address(sequence: u32, index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    attribute(
        &mut body,
        IFA_BROADCAST,
        &broadcast(address, prefix).octets(),
    );
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence, body)
}

/// Sets the default route.
#[must_use]
pub fn default_route(sequence: u32, index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![
        AF_INET,
        0, // length of the destination's prefix: everything
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
    ];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, RTA_GATEWAY, &gateway.octets());
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence, body)
}

/// Reads the kernel's acknowledgement of message `sequence`.
///
/// # Errors
///
/// The error that the kernel answered, or `InvalidData` for anything but an acknowledgement.
pub fn acknowledged(reply: &[u8], sequence: u32) -> io::Result<()> {
    let u32_at = |at: usize| {
        let bytes = reply.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let kind = reply
        .get(4..6)
        .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind, u32_at(8), u32_at(16)) {
        (Some(NLMSG_ERROR), Some(answered), Some(code)) if answered == sequence => {
            match code.cast_signed() {
                0 => Ok(()),
                negative => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
            }
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer is no acknowledgement",
        )),
    }
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() | host_bits)
}

fn message(kind: u16, flags: u16, sequence: u32, body: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend(body);
    bytes
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let words = bytes
            .chunks(4)
            .map(|word| word.iter().map(|b| format!("{b:02x}")).collect());
        words.collect::<Vec<String>>().join(" ")
    }

    /// As `strace -e raw=sendmsg ip ...` shows them on a little-endian machine.
    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_that_ip_sends() {
        insta::assert_snapshot!(hex(&link_up(1, 2)), @"20000000 10000500 01000000 00000000 00000000 02000000 01000000 01000000");
        insta::assert_snapshot!(
            hex(&add_address(2, 2, Ipv4Addr::new(10, 0, 2, 15), 24)),
            @"30000000 14000505 02000000 00000000 02180000 02000000 08000200 0a00020f 08000100 0a00020f 08000400 0a0002ff"
        );
        insta::assert_snapshot!(
            hex(&default_route(3, 2, Ipv4Addr::new(10, 0, 2, 2))),
            @"2c000000 18000505 03000000 00000000 02000000 fe030001 00000000 08000500 0a000202 08000400 02000000"
        );
    }

    #[test]
    fn broadcast_of_any_prefix() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        assert_eq!(broadcast(address, 24), Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(broadcast(address, 32), address);
        assert_eq!(broadcast(address, 0), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn what_the_kernel_answers() {
        let answer = |code: i32| {
            let mut bytes = message(NLMSG_ERROR, 0, 7, code.to_ne_bytes().to_vec());
            bytes.extend([0; 16]);
            bytes
        };
        assert!(acknowledged(&answer(0), 7).is_ok());
        assert!(
            acknowledged(&answer(0), 8).is_err(),
            "somebody else's answer"
        );
        let error = acknowledged(&answer(-13), 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = acknowledged(&bytes, 1);
        }

        #[test]
        fn the_length_field_is_the_length(index: u32, address: u32, prefix in 0..=32_u8) {
            for bytes in [
                link_up(1, index),
                add_address(1, index, address.into(), prefix),
                default_route(1, index, address.into()),
            ] {
                prop_assert_eq!(bytes[..4].to_vec(), u32::try_from(bytes.len()).unwrap().to_ne_bytes());
                prop_assert!(bytes.len().is_multiple_of(4));
            }
        }
    }
}
