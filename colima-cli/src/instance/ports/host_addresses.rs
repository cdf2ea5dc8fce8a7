//! Addresses of the host for a guest: `-p 192.0.2.7:80:80` means the host's 192.0.2.7, and docker in the
//! guest can listen there only if the guest has the address, too.
//!
//! The address goes to the guest's loopback until the guest is shut down. Meanwhile the guest itself cannot
//! reach the host there, so it is lent only where a container asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, UdpSocket},
};

use colima_core::{Command, Connect as _, Endpoint, Guest as _};
use colima_net::{agent::Agent, mux::Mux};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::DOCKER_SOCKET;

/// The longest description of a container that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Gives the guest the addresses that a container's publishes name and only the host has.
pub(super) async fn lend(agent: &Agent<Mux>, container: &str) -> io::Result<()> {
    let description = describe(agent.transport(), container).await?;
    for address in named(&description) {
        if is_ours(address) {
            let output = agent.run(&add(address)).await?;
            // 2 is the kernel's refusal; of the reasons only "it is there" is likely.
            if !matches!(output.exit_code, 0 | 2) {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(io::Error::other(said));
            }
        }
    }
    Ok(())
}

async fn describe(guest: &Mux, container: &str) -> io::Result<Vec<u8>> {
    let endpoint = Endpoint::Unix(DOCKER_SOCKET.into());
    let mut stream = guest.connect(&endpoint).await?;
    // HTTP/1.0, so that the answer ends with the connection.
    let request = format!("GET /containers/{container}/json HTTP/1.0\r\nHost: docker\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = head.map_or(answer.len(), |end| end + 4);
    Ok(answer.split_off(body))
}

/// The addresses that the publishes of a container name, other than those that every system has.
fn named(description: &[u8]) -> BTreeSet<IpAddr> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        host_config: HostConfig,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HostConfig {
        port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Binding {
        host_ip: String,
    }
    // What cannot be read names none.
    let Ok(container) = serde_json::from_slice::<Container>(description) else {
        return BTreeSet::new();
    };
    let bindings = container.host_config.port_bindings.unwrap_or_default();
    bindings
        .into_values()
        .flatten()
        .flatten()
        .filter_map(|binding| binding.host_ip.parse().ok())
        .filter(|address: &IpAddr| {
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
        })
        .collect()
}

/// Whether this host has the address: only then can a socket have it.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn add(address: IpAddr) -> Command {
    let whole = match address {
        IpAddr::V4(_) => format!("{address}/32"),
        IpAddr::V6(_) => format!("{address}/128"),
    };
    Command::new(["ip", "address", "add", &whole, "dev", "lo"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_a_host_has() {
        let description = br#"{"Id":"x","HostConfig":{"PortBindings":{
            "80/tcp":[{"HostIp":"","HostPort":"80"},{"HostIp":"192.0.2.7","HostPort":"80"}],
            "81/tcp":[{"HostIp":"0.0.0.0","HostPort":"81"},{"HostIp":"127.0.0.1","HostPort":"81"}],
            "82/udp":[{"HostIp":"2001:db8::7","HostPort":""}],"83/tcp":null}}}"#;
        let expected = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
        assert_eq!(named(description), BTreeSet::from(expected));
        assert_eq!(
            named(br#"{"message":"No such container: x"}"#),
            BTreeSet::new()
        );
        assert_eq!(
            named(br#"{"HostConfig":{"PortBindings":null}}"#),
            BTreeSet::new()
        );
    }

    #[test]
    fn only_what_this_host_has_is_lent() {
        assert!(is_ours([127, 0, 0, 1].into()));
        // TEST-NET-3 (RFC 5737) is nobody's.
        assert!(!is_ours([203, 0, 113, 7].into()));
        let command = add("2001:db8::7".parse().unwrap());
        assert_eq!(
            command.argv.join(" "),
            "ip address add 2001:db8::7/128 dev lo"
        );
    }
}
