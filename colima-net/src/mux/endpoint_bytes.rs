//! An [`Endpoint`] as bytes: a tag and its parts, as compact as a path allows.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use colima_core::Endpoint;

/// Longest path, host or service name on the wire, in bytes.
pub(super) const MAX_NAME: usize = 1024;

const UNIX: u8 = 1;
const TCP: u8 = 2;
const SERVICE: u8 = 3;

/// Whether the endpoint can be told to the peer at all.
pub(super) fn fits(endpoint: &Endpoint) -> bool {
    let length = match endpoint {
        Endpoint::Unix(path) => path.as_os_str().len(),
        Endpoint::Tcp { host, .. } => host.len(),
        Endpoint::Service(name) => name.len(),
        // A kind of endpoint that this version of the protocol has no tag for.
        _ => return false,
    };
    length <= MAX_NAME
}

pub(super) fn encode(endpoint: &Endpoint, out: &mut Vec<u8>) {
    match endpoint {
        Endpoint::Unix(path) => {
            out.push(UNIX);
            out.extend_from_slice(path.as_os_str().as_bytes());
        }
        Endpoint::Tcp { host, port } => {
            out.push(TCP);
            out.extend_from_slice(&port.to_be_bytes());
            out.extend_from_slice(host.as_bytes());
        }
        Endpoint::Service(name) => {
            out.push(SERVICE);
            out.extend_from_slice(name.as_bytes());
        }
        _ => debug_assert!(false, "checked by fits()"),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Option<Endpoint> {
    let (&tag, rest) = bytes.split_first()?;
    let name = |bytes: &[u8]| {
        (bytes.len() <= MAX_NAME)
            .then(|| String::from_utf8(bytes.to_vec()).ok())
            .flatten()
            .filter(|name| !name.is_empty())
    };
    match tag {
        UNIX if rest.len() <= MAX_NAME && rest.first() == Some(&b'/') && !rest.contains(&0) => {
            Some(Endpoint::Unix(OsStr::from_bytes(rest).into()))
        }
        TCP => {
            let (port, host) = rest.split_first_chunk()?;
            let port = u16::from_be_bytes(*port);
            let host = name(host)?;
            (port != 0).then_some(Endpoint::Tcp { host, port })
        }
        SERVICE => Some(Endpoint::Service(name(rest)?)),
        _ => None,
    }
}
