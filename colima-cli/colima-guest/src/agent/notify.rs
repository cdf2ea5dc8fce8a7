//! Tells systemd that the service is up (sd_notify(3)).

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends `READY=1`; without a socket nobody waits for it.
pub(crate) fn ready(socket: Option<&OsStr>) -> io::Result<()> {
    let Some(path) = socket else { return Ok(()) };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(b"READY=1", &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        ready(Some(path.as_os_str())).unwrap();
        let mut message = [0; 16];
        assert_eq!(listener.recv(&mut message).unwrap(), 7);
        assert_eq!(&message[..7], b"READY=1");

        let name = format!("colima-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        ready(Some(OsStr::new(&format!("@{name}")))).unwrap();
        assert_eq!(listener.recv(&mut message).unwrap(), 7);
        ready(None).unwrap();
    }
}
