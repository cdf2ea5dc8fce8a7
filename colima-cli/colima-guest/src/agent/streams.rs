//! Where the host's streams lead.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use colima_core::{Endpoint, agent::SERVICE};
use colima_net::{Traffic, mux::Incoming, pump};
use tokio::net::{TcpStream, UnixStream};

use super::{Agent, conversation};

/// Serves one stream to its end.
pub async fn handle(incoming: Incoming, agent: Arc<Agent>) {
    match incoming.endpoint().clone() {
        Endpoint::Unix(path) => match UnixStream::connect(&path).await {
            Ok(socket) => relay(incoming, socket).await,
            Err(error) => incoming.refuse(&error),
        },
        Endpoint::Tcp { host, port } => match connect_tcp(&host, port).await {
            Ok(socket) => relay(incoming, socket).await,
            Err(error) => incoming.refuse(&error),
        },
        Endpoint::Service(name) if name == SERVICE => {
            conversation::hold(incoming.accept(), &agent).await;
        }
        other => incoming.refuse(&io::Error::new(
            io::ErrorKind::NotFound,
            format!("this guest has no {other}"),
        )),
    }
}

async fn relay<S>(incoming: Incoming, socket: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    // How a relayed stream ended is between its two ends.
    let _ = pump(incoming.accept(), socket, &mut Traffic::default()).await;
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{host} is neither an address nor localhost; names are not resolved here"),
    );
    for address in addresses(host) {
        match TcpStream::connect((address, port)).await {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses that a host stands for. A static program has no resolver.
fn addresses(host: &str) -> Vec<IpAddr> {
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}
