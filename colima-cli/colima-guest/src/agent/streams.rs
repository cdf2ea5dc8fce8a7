//! Where the host's streams lead.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use colima_core::{Endpoint, agent::SERVICE};
use colima_net::{
    Traffic,
    datagrams::{self, DEFAULT_IDLE, join},
    mux::Incoming,
    pump,
};
use tokio::net::{TcpStream, UdpSocket, UnixStream};

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
        Endpoint::Service(name) => match datagrams::target(&name) {
            Some(target) => match connect_udp(target).await {
                // How it ended is between its two ends.
                Ok(socket) => drop(join(incoming.accept(), socket, DEFAULT_IDLE).await),
                Err(error) => incoming.refuse(&error),
            },
            None => refuse_unknown(incoming),
        },
        _ => refuse_unknown(incoming),
    }
}

fn refuse_unknown(incoming: Incoming) {
    let reason = format!("this guest has no {}", incoming.endpoint());
    incoming.refuse(&io::Error::new(io::ErrorKind::NotFound, reason));
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

async fn connect_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// The addresses that a host stands for. A static program has no resolver.
fn addresses(host: &str) -> Vec<IpAddr> {
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}
