//! Addresses of byte streams.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a byte stream leads.
///
/// The text form is `unix:/path`, `tcp:HOST:PORT` (IPv6 in brackets) or `service:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Endpoint {
    /// A unix stream socket, by absolute path.
    Unix(PathBuf),
    /// A TCP port. The far side resolves the name.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// Port number, not 0.
        port: u16,
    },
    /// Something the peer itself offers under a name, such as its agent.
    Service(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an endpoint: {reason}")]
pub struct ParseEndpointError {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseEndpointError {
            text: text.to_owned(),
            reason,
        };
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(fail("write unix:/path, tcp:HOST:PORT or service:NAME"));
        };
        match kind {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(fail("a socket path is absolute")),
            "tcp" => {
                let (host, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| fail("the port is missing"))?;
                let port: u16 = port
                    .parse()
                    .map_err(|_| fail("a port is a number from 1 to 65535"))?;
                let host = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
                    Some(Some(inner)) => inner,
                    Some(None) => return Err(fail("the bracket is not closed")),
                    None if host.contains(':') => {
                        return Err(fail("an IPv6 address needs brackets"));
                    }
                    None => host,
                };
                if host.is_empty() {
                    return Err(fail("the host is missing"));
                }
                if port == 0 {
                    return Err(fail("a port is a number from 1 to 65535"));
                }
                Ok(Self::Tcp {
                    host: host.to_owned(),
                    port,
                })
            }
            "service" if rest.is_empty() => Err(fail("the service has no name")),
            "service" => Ok(Self::Service(rest.to_owned())),
            _ => Err(fail("write unix:/path, tcp:HOST:PORT or service:NAME")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "unix:/run/docker.sock",
            "tcp:127.0.0.1:80",
            "tcp:[::1]:22",
            "tcp:db:5432",
            "service:agent",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "/run/x",
            "unix:run/x",
            "tcp:host",
            "tcp::80",
            "tcp:h:0",
            "tcp:h:70000",
            "tcp:::1:80",
            "tcp:[::1:80",
            "service:",
            "udp:h:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
