//! One open port of the host.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use colima_core::{Connect, Endpoint, ports::Protocol};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinHandle},
};

use super::{rules::Forward, udp::UdpPort};
use crate::{Relay, datagrams};

/// Connections of one port at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 2048;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A port that listens, or has listened and still has connections.
///
/// # Drop
///
/// Dropping it ends everything at once.
pub(super) struct Listening {
    stop: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    task: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listening {
    /// Listens where `forward` says, and connects clients to the guest from then on.
    pub(super) fn open<C: Connect + 'static>(
        forward: &Forward,
        connect: &Arc<C>,
        connections: &Arc<Semaphore>,
    ) -> io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let (listening, task) = match forward.protocol {
            Protocol::Tcp => tcp(
                forward,
                Arc::clone(connect),
                Arc::clone(connections),
                stopping,
            )?,
            Protocol::Udp => udp(
                forward,
                Arc::clone(connect),
                Arc::clone(connections),
                stopping,
            )?,
        };
        let task = AbortOnDrop(task.abort_handle());
        Ok(Self {
            stop,
            listening,
            task,
        })
    }

    /// Stops listening; connections go on.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when the port is free.
    pub(super) async fn stopped(&self) {
        // A sender that is gone has closed the port, too.
        let mut listening = self.listening.clone();
        let _ = listening.wait_for(|listening| !listening).await;
    }

    /// Whether it listens or has connections.
    pub(super) fn is_busy(&self) -> bool {
        !self.task.0.is_finished()
    }
}

fn tcp<C: Connect + 'static>(
    forward: &Forward,
    connect: Arc<C>,
    connections: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<(watch::Receiver<bool>, JoinHandle<()>)> {
    let listener = bind(forward.host)?;
    let endpoint = Endpoint::Tcp {
        host: forward.guest.ip().to_string(),
        port: forward.guest.port(),
    };
    let relay = Relay::new(listener, connect, endpoint)
        .limit(MOST_CONNECTIONS)
        .within(connections)
        .drain(Duration::MAX);
    let listening = relay.listening();
    let task = tokio::spawn(async move {
        let shutdown = async move {
            // A sender that is gone closes as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        drop(relay.run(shutdown).await);
    });
    Ok((listening, task))
}

fn udp<C: Connect + 'static>(
    forward: &Forward,
    connect: Arc<C>,
    connections: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
) -> io::Result<(watch::Receiver<bool>, JoinHandle<()>)> {
    let socket = socket_at(forward.host, SocketType::DGRAM)?;
    rustix::net::bind(&socket, &forward.host)?;
    let socket = UdpSocket::from_std(socket.into())?;
    let endpoint = datagrams::endpoint(forward.guest);
    let (open, listening) = watch::channel(true);
    let task = tokio::spawn(async move {
        let port = UdpPort {
            connect,
            endpoint,
            connections,
            idle: datagrams::DEFAULT_IDLE,
        };
        port.serve(socket, stopping).await;
        open.send_replace(false);
    });
    Ok((listening, task))
}

/// A listener of exactly this address: `::` does not take IPv4 along.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_at(address, SocketType::STREAM)?;
    // Only so that connections of a predecessor that still linger (TIME_WAIT) are not in the way; what
    // listens is (socket(7)).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket for this address and, should it be `::`, for no address of IPv4.
fn socket_at(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = match address {
        SocketAddr::V4(_) => socket(AddressFamily::INET, kind)?,
        SocketAddr::V6(_) => socket(AddressFamily::INET6, kind)?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// A socket that neither blocks nor is inherited.
fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        Ok(rustix::net::socket_with(family, kind, flags, None)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let socket = rustix::net::socket(family, kind, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }
}
