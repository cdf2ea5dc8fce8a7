//! What carries the streams between the host and a guest.
//!
//! Either way it is one multiplexer, which the guest's agent serves: streams are opened in one round trip,
//! datagrams pass, and a reset is told from an end. What differs is the link below it:
//!
//! ```text
//! virtio   Mux ── unix socket ── QEMU ── virtio-serial port ── agent
//! ssh      Mux ── channel of an ssh session ── 127.0.0.1:PORT ── QEMU ── sshd ── agent's socket
//! ```
//!
//! A session per stream would be the other way to use ssh. Each costs a key exchange and a login: in an emulated guest
//! 6.7 s, on a host where a stream of the multiplexer costs 0.2 s. And ssh has no word for datagrams nor for a reset.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use colima_core::{
    Connect as _, Endpoint,
    boot::{AGENT_SOCKET, GUEST_SSH_PORT, SshListen},
};
use colima_net::{
    forward,
    mux::{LinkState, Mux, MuxConfig},
    ssh::{Credential, HostKey, Login, Ssh, SshConfig},
};
use colima_vm::machine::{HostPort, Machine, Network};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::timeout};

use super::failure;
use crate::{
    command_error::{CommandError, ErrorKind},
    state_dir::ProfilePaths,
};

/// How the guest is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSettings {
    /// What carries the streams.
    pub carrier: Carrier,
    /// The port of 127.0.0.1 that leads to the guest's ssh server. With [`Carrier::Ssh`] there is one in any
    /// case, a free one where this is `None`.
    pub ssh_port: Option<u16>,
}

/// What carries streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// The machine's first virtio-serial port.
    #[default]
    Virtio,
    /// An ssh session.
    Ssh,
}

impl LinkSettings {
    /// Where the guest's ssh server listens besides its socket.
    #[must_use]
    pub const fn ssh_listen(&self) -> SshListen {
        match (self.carrier, self.ssh_port) {
            (Carrier::Virtio, None) => SshListen::Nowhere,
            _ => SshListen::Port,
        }
    }

    /// The host's port for a machine that is about to start.
    pub(super) fn choose_port(&self) -> Result<Option<u16>, CommandError> {
        match (self.carrier, self.ssh_port) {
            (Carrier::Virtio, None) => Ok(None),
            (Carrier::Ssh, None) => free_port().map(Some).map_err(|error| {
                let what = "there is no free port for ssh";
                CommandError::new(ErrorKind::Failure, what).caused_by(&error)
            }),
            (_, Some(port)) => match forward::obstacle(loopback(port)) {
                None => Ok(Some(port)),
                Some(cause) => {
                    let place = forward::Place {
                        protocol: colima_core::ports::Protocol::Tcp,
                        address: loopback(port),
                    };
                    let what = format!("the port for ssh, {port}, cannot be opened");
                    Err(CommandError::new(ErrorKind::Failure, what)
                        .because(cause.at(place))
                        .hint("choose another one, or 0 for none: colima start --ssh-port PORT"))
                }
            },
        }
    }
}

/// The machine's network, with the port for ssh if there is one.
pub(super) fn network(ssh_port: Option<u16>) -> Network {
    match ssh_port {
        None => Network::User,
        Some(host) => Network::Reachable(vec![HostPort {
            host,
            guest: GUEST_SSH_PORT,
        }]),
    }
}

/// The guest's ssh server as it is reached without the multiplexer.
pub(super) fn ssh_server(port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
    }
}

/// The multiplexer to the guest of `machine`, whose `user` logs in where `ssh_port` carries it.
pub(super) fn open(
    machine: &Arc<Machine>,
    paths: &ProfilePaths,
    user: &str,
    carrier: Carrier,
    ssh_port: Option<u16>,
) -> Result<Mux, CommandError> {
    match (carrier, ssh_port) {
        (Carrier::Virtio, _) => Ok(over_virtio(machine)),
        (Carrier::Ssh, Some(port)) => over_ssh(paths, user, port),
        (Carrier::Ssh, None) => {
            let what = "it is not recorded at which port the guest's ssh server is";
            Err(CommandError::new(ErrorKind::Failure, what).hint("end it: colima stop --force"))
        }
    }
}

/// How long the first attempt of a link may take until nobody waits for it any more.
const SETTLING: Duration = Duration::from_secs(30);

/// How long an attempt at a session may take.
const LOGIN: Duration = Duration::from_secs(60);

/// Waits until the link is up, or has failed once: whoever asks the guest before then is told that it does not
/// answer, when all that it takes is a login.
pub(super) async fn settled(mux: &Mux) {
    let mut state = mux.state();
    let settled = state.wait_for(|state| !matches!(state, LinkState::Connecting));
    // Too long, or gone: the first question will say so.
    let _ = timeout(SETTLING, settled).await;
}

/// It does not keep the machine: a machine whose owner is gone is not held by its own streams.
fn over_virtio(machine: &Arc<Machine>) -> Mux {
    let machine = Arc::downgrade(machine);
    let dial = move || {
        let machine = machine.upgrade();
        async move {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            let machine = machine.ok_or_else(gone)?;
            machine.port(0).await.map_err(io::Error::other)
        }
    };
    Mux::new(dial, MuxConfig::default())
}

fn over_ssh(paths: &ProfilePaths, user: &str, port: u16) -> Result<Mux, CommandError> {
    let mut public = paths.ssh_host_key.clone().into_os_string();
    public.push(".pub");
    let public = std::path::PathBuf::from(public);
    let line =
        fs::read_to_string(&public).map_err(|error| failure::file("read", &public, &error))?;
    let host_key: HostKey = line.parse().map_err(|error| {
        let what = format!("{} holds no key", public.display());
        CommandError::new(ErrorKind::Failure, what).caused_by(&error)
    })?;
    let login = Login {
        user: user.to_owned(),
        host_key,
        credential: Credential::key_file(&paths.ssh_user_key),
    };
    // One session at a time, and the multiplexer sees to it that there is one. An emulated guest on a busy host takes
    // its time for a login.
    let config = SshConfig {
        most_idle: 0,
        ready: 0,
        open_timeout: LOGIN,
        handshake_timeout: LOGIN,
        ..SshConfig::default()
    };
    let ssh = Ssh::new(move || TcpStream::connect(loopback(port)), login, config);
    let dial = move || {
        let ssh = ssh.clone();
        async move { ssh.connect(&Endpoint::Unix(AGENT_SOCKET.into())).await }
    };
    Ok(Mux::new(dial, MuxConfig::default()))
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A port that nobody has now. Whoever takes it before QEMU does makes the start fail, and the next one finds
/// another.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_only_where_one_is_needed() {
        let settings = |carrier, ssh_port| LinkSettings { carrier, ssh_port };
        let none = settings(Carrier::Virtio, None);
        assert_eq!(none.choose_port().unwrap(), None);
        assert_eq!(none.ssh_listen(), SshListen::Nowhere);
        assert_eq!(network(None), Network::User);
        let free = settings(Carrier::Ssh, None);
        let port = free.choose_port().unwrap().unwrap();
        assert_eq!(free.ssh_listen(), SshListen::Port);
        let wanted = settings(Carrier::Virtio, Some(port));
        assert_eq!(wanted.choose_port().unwrap(), Some(port));
        assert_eq!(wanted.ssh_listen(), SshListen::Port);
        assert!(matches!(network(Some(port)), Network::Reachable(ports) if ports[0].host == port));
    }

    #[test]
    fn a_port_in_use_fails_before_anything_is_started() {
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        for carrier in [Carrier::Virtio, Carrier::Ssh] {
            let wanted = LinkSettings {
                carrier,
                ssh_port: Some(port),
            };
            let error = wanted.choose_port().unwrap_err().to_string();
            assert!(error.contains("in use by"), "{error}");
            assert!(error.contains("--ssh-port"), "{error}");
        }
    }
}
