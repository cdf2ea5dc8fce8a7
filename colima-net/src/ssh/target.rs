//! What a channel can lead to, and how it is asked for.

use std::{fmt, io, time::Duration};

use colima_core::Endpoint;

use super::{
    SshError,
    libssh2::{self, Channel, ExtendedData, Session},
    wire::{broken, is},
};

/// Where a channel leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `direct-streamlocal@openssh.com` (PROTOCOL of OpenSSH, 2.4).
    Unix(String),
    /// `direct-tcpip` (RFC 4254, 7.2).
    Tcp(String, u16),
    /// The streams of a subsystem (RFC 4254, 6.5).
    Subsystem(String),
    /// The streams of a command.
    Command(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Subsystem(name) => write!(f, "service:{name}"),
            Self::Command(_) => f.write_str("the command"),
        }
    }
}

impl Target {
    /// The form of an endpoint in ssh, where it has one.
    pub(super) fn new(endpoint: &Endpoint) -> Option<Self> {
        let target = match endpoint {
            Endpoint::Unix(path) => Self::Unix(path.to_str()?.to_owned()),
            Endpoint::Tcp { host, port } => Self::Tcp(host.clone(), *port),
            Endpoint::Service(name) => Self::Subsystem(name.clone()),
            _ => return None,
        };
        let (Self::Unix(text) | Self::Tcp(text, _) | Self::Subsystem(text) | Self::Command(text)) =
            &target;
        // The strings of libssh2 end at a zero.
        (!text.contains('\0') && text.len() <= LONGEST).then_some(target)
    }

    /// Opens a channel, waiting for the server's answer.
    pub(super) fn open(&self, session: &Session, timeout: Duration) -> Result<Channel, SshError> {
        let failed = |error: libssh2::Error| self.failed(&error, timeout);
        match self {
            Self::Unix(path) => session
                .channel_direct_streamlocal(path, None)
                .map_err(failed),
            Self::Tcp(host, port) => session
                .channel_direct_tcpip(host, *port, None)
                .map_err(failed),
            Self::Subsystem(name) => {
                let mut channel = session.channel_session().map_err(failed)?;
                channel
                    .handle_extended_data(ExtendedData::Ignore)
                    .map_err(failed)?;
                channel.subsystem(name).map_err(failed)?;
                Ok(channel)
            }
            Self::Command(line) => {
                let mut channel = session.channel_session().map_err(failed)?;
                channel
                    .handle_extended_data(ExtendedData::Ignore)
                    .map_err(failed)?;
                channel.exec(line).map_err(failed)?;
                Ok(channel)
            }
        }
    }

    /// What a failed open means. libssh2 keeps the reason code only as the text that it made of it.
    pub(super) fn failed(&self, error: &libssh2::Error, after: Duration) -> SshError {
        let target = self.to_string();
        if is(error, libssh2_sys::LIBSSH2_ERROR_TIMEOUT) {
            return SshError::OpenTimedOut { target, after };
        }
        let kind = if is(error, libssh2_sys::LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED) {
            io::ErrorKind::Unsupported
        } else if is(error, libssh2_sys::LIBSSH2_ERROR_CHANNEL_FAILURE) {
            refusal(error.message())
        } else {
            return broken(error);
        };
        SshError::Refused {
            target,
            kind,
            message: error.message().to_owned(),
        }
    }
}

/// The most that a name may have; an open must fit a packet.
const LONGEST: usize = 1024;

/// The kinds of RFC 4254, 5.1.
fn refusal(message: &str) -> io::ErrorKind {
    let kinds = [
        ("prohibited", io::ErrorKind::PermissionDenied),
        ("connect failed", io::ErrorKind::ConnectionRefused),
        ("unknown channel type", io::ErrorKind::Unsupported),
        ("resource shortage", io::ErrorKind::ResourceBusy),
    ];
    kinds
        .into_iter()
        .find(|(text, _)| message.contains(text))
        .map_or(io::ErrorKind::ConnectionRefused, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_the_protocol_have_kinds() {
        // The texts of ssh2_channel_open() in libssh2's channel.c.
        for (text, kind) in [
            (
                "Channel open failure (administratively prohibited)",
                io::ErrorKind::PermissionDenied,
            ),
            (
                "Channel open failure (connect failed)",
                io::ErrorKind::ConnectionRefused,
            ),
            (
                "Channel open failure (unknown channel type)",
                io::ErrorKind::Unsupported,
            ),
            (
                "Channel open failure (resource shortage)",
                io::ErrorKind::ResourceBusy,
            ),
            ("Channel open failure", io::ErrorKind::ConnectionRefused),
        ] {
            assert_eq!(refusal(text), kind, "{text}");
        }
    }

    #[test]
    fn what_has_no_form_in_ssh() {
        use std::os::unix::ffi::OsStrExt as _;
        let no_utf8 = std::ffi::OsStr::from_bytes(b"/run/\xff.sock");
        assert_eq!(Target::new(&Endpoint::Unix(no_utf8.into())), None);
        assert_eq!(Target::new(&Endpoint::Service("a\0b".into())), None);
        assert_eq!(Target::new(&Endpoint::Service("a".repeat(1025))), None);
        assert!(Target::new(&Endpoint::Service("a".repeat(1024))).is_some());
    }
}
