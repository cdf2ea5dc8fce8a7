//! Sockets of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    pin::Pin,
    task::{Context, Poll},
};

use colima_core::{Connect, Endpoint};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{TcpStream, UnixStream},
};

use crate::Hangup;

/// Connects to sockets of this machine: the far side is here.
///
/// A TCP host is an address or `localhost`, which is tried as `127.0.0.1` and then `::1`. Names
/// are not resolved, so that a statically linked program can use it. Services are unknown to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Connect for Local {
    type Stream = LocalStream;

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<LocalStream> {
        let addresses = match endpoint {
            Endpoint::Unix(path) => {
                return Ok(LocalStream::Unix(UnixStream::connect(path).await?));
            }
            Endpoint::Tcp { host, port } => addresses(host, *port)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let stream = TcpStream::connect(&addresses[..]).await?;
        // The bytes come from a stream that has already been cut into messages by somebody else.
        stream.set_nodelay(true)?;
        Ok(LocalStream::Tcp(stream))
    }
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let hosts = if host.eq_ignore_ascii_case("localhost") {
        vec![
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]
    } else {
        let host = host.parse().map_err(|_| {
            let text = format!("{host} is not an address, and names are not resolved here");
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        vec![host]
    };
    Ok(hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, port))
        .collect())
}

/// A connected unix or TCP socket.
///
/// # Drop
///
/// Dropping it closes the socket in order; [`Hangup::abort`] resets a TCP connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalStream {
    /// A unix stream socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

impl LocalStream {
    /// The same socket under another descriptor.
    fn twin(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => {
                let twin = stream.as_fd().try_clone_to_owned()?;
                Self::Unix(UnixStream::from_std(twin.into())?)
            }
            Self::Tcp(stream) => {
                let twin = stream.as_fd().try_clone_to_owned()?;
                Self::Tcp(TcpStream::from_std(twin.into())?)
            }
        })
    }

    async fn writable(&self) -> io::Result<Ready> {
        match self {
            Self::Unix(stream) => stream.ready(Interest::WRITABLE).await,
            Self::Tcp(stream) => stream.ready(Interest::WRITABLE).await,
        }
    }

    /// Makes the next [`writable`](Self::writable) wait for a change.
    fn forget_writable(&self) {
        let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // The error is the one just made; its kind is what clears the readiness.
        let _ = match self {
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, would_block),
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, would_block),
        };
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Hangup for LocalStream {
    /// A unix peer that closed its socket or died; a TCP peer only once it sent a reset.
    ///
    /// Holds a second descriptor of the socket while it waits. Where there is none to be had it
    /// never completes.
    fn hung_up(&self) -> impl Future<Output = ()> + Send + 'static {
        let twin = self.twin();
        async move {
            // A registration of its own: clearing its readiness cannot lose a wake-up of the
            // stream's reader or writer.
            let Ok(twin) = twin else {
                return std::future::pending().await;
            };
            while let Ok(ready) = twin.writable().await {
                // Set by EPOLLHUP, which a peer that only shut down its writing does not cause.
                if ready.is_write_closed() {
                    return;
                }
                twin.forget_writable();
            }
        }
    }

    fn abort(self) {
        if let Self::Tcp(stream) = self {
            // With no time to linger, closing sends a reset; where that fails it closes in order.
            let _ =
                rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
        }
    }
}
