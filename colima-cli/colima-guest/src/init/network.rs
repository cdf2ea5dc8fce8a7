//! Configures the loopback and the one network interface.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use colima_core::boot::Network;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{GuestError, netlink};

/// The loopback has this index in every network namespace.
const LOOPBACK: u32 = 1;

pub(super) fn configure(interface: &str, network: &Network) -> Result<(), GuestError> {
    let index = index_of(interface).map_err(|source| GuestError::Network {
        step: "find the network interface",
        source,
    })?;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // protocol 0 is NETLINK_ROUTE
    )
    .map_err(|error| GuestError::Network {
        step: "speak to the network",
        source: error.into(),
    })?;
    // The loopback takes 127.0.0.1 by itself when it comes up.
    for (sequence, step, message) in [
        (1, "bring up the loopback", netlink::link_up(1, LOOPBACK)),
        (
            2,
            "bring up the network interface",
            netlink::link_up(2, index),
        ),
        (
            3,
            "give the network interface its address",
            netlink::add_address(3, index, network.address, network.prefix),
        ),
        (
            4,
            "set the default route",
            netlink::default_route(4, index, network.gateway),
        ),
    ] {
        exchange(&socket, &message, sequence)
            .map_err(|source| GuestError::Network { step, source })?;
    }
    Ok(())
}

fn exchange(socket: &OwnedFd, message: &[u8], sequence: u32) -> io::Result<()> {
    rustix::net::send(socket, message, SendFlags::empty())?;
    let mut buffer = [0_u8; 4096];
    let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    netlink::acknowledged(&buffer[..length.min(buffer.len())], sequence)
}

fn index_of(interface: &str) -> io::Result<u32> {
    let path = Path::new("/sys/class/net").join(interface).join("ifindex");
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}
