//! The first service of the guest: it serves the multiplexer on the virtio-serial port, and on a socket where
//! the host comes by ssh.
//!
//! Streams lead to unix sockets and loopback ports of the guest, and to the agent itself
//! ([`colima_core::agent`]). The host is trusted here: whoever holds the host's end of the port owns
//! the guest anyway. What is bounded nevertheless are streams, commands and memory, so that a
//! mistake on the host does not take the guest down.
//!
//! ```text
//! port thread ── Connection ─┬▶ mux::serve ──▶ streams::handle ──▶ pump to a socket
//!                (one stay of the host)                       └──▶ conversation (Request, Reply)
//!                                              readiness, ports (one task each, many listeners)
//! ```

mod command;
mod conversation;
mod docker_api;
mod edge;
mod mounts;
pub(crate) mod notify;
mod port;
mod ports;
mod readiness;
mod socket;
mod streams;

use std::{
    convert::Infallible,
    ffi::OsStr,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use colima_core::boot::{AGENT_SOCKET, MUX_PORT_NAME, Runtime, SshListen};
use colima_net::mux::{ServeConfig, serve};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    device_events::Watch,
    provision::{self, BOOT_CONFIG},
    status::{InitStatus, STATUS_PATH},
};

pub use port::{Connection, Port};
pub use ports::Ports;
pub use readiness::Readiness;
pub use socket::Socket;
pub use streams::handle;

/// The kernel's list of virtio-serial ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// The port exists before systemd does, unless the machine lacks it.
const PORT_DEADLINE: Duration = Duration::from_secs(10);

/// What the agent's conversations share.
#[derive(Debug)]
pub struct Agent {
    readiness: Readiness,
    ports: Ports,
    commands: tokio::sync::Semaphore,
}

impl Agent {
    /// An agent that tells of this readiness and these ports.
    #[must_use]
    pub fn new(readiness: Readiness, ports: Ports) -> Self {
        Self {
            readiness,
            ports,
            commands: tokio::sync::Semaphore::new(command::MOST_AT_ONCE),
        }
    }
}

/// Serves until the port or the process is gone. `notify_socket` is systemd's `NOTIFY_SOCKET`.
///
/// # Errors
///
/// The port is missing, taken or broken; systemd starts the agent again.
pub fn run(notify_socket: Option<&OsStr>) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let status = InitStatus::read(Path::new(STATUS_PATH));
        let runtime = status
            .as_ref()
            .map_or(Runtime::None, |status| status.runtime);
        let agent = Arc::new(Agent::new(Readiness::watch(status), Ports::of(runtime)));
        let device = find_port(MUX_PORT_NAME)?;
        let mut port = Port::open(&device).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", device.display()))
        })?;
        let boot = provision::boot_config(Path::new(BOOT_CONFIG))?;
        if boot.ssh_listen == SshListen::Port {
            let socket = Socket::bind(Path::new(AGENT_SOCKET), &boot.user)?;
            tokio::spawn(socket.serve(Arc::clone(&agent)));
        }
        notify::ready(notify_socket)?;
        log(&format!("serving {}", device.display()));
        loop {
            hold(port.accept().await?, Arc::clone(&agent)).await;
        }
    })
}

/// Serves the multiplexer on a connection to its end.
async fn hold<S>(connection: S, agent: Arc<Agent>)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let served = serve(connection, ServeConfig::default(), move |incoming| {
        streams::handle(incoming, Arc::clone(&agent))
    });
    if let Err(error) = served.await {
        log(&format!("connection given up: {error}"));
    }
}

/// The device of the virtio-serial port with this name.
pub(crate) fn find_port(name: &str) -> io::Result<std::path::PathBuf> {
    let mut devices = Watch::new().map_err(|error| io::Error::other(error.chain()))?;
    let found = devices.wait(name, PORT_DEADLINE, || {
        port::device_of(Path::new(PORTS), name)
    });
    found.map_err(|error| io::Error::other(error.chain()))
}

/// One line to the journal.
pub(crate) fn log(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
