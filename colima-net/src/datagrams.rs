//! Datagrams over a byte stream: each behind its length in two bytes, the high one first.
//!
//! A stream carries what one peer exchanges with one UDP port, so that the port can answer each peer.
//! The far side offers it as a service: [`endpoint`] makes its name, [`target`] reads it, and [`join`]
//! serves it.

use std::{io, net::SocketAddr, time::Duration};

use colima_core::Endpoint;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::UdpSocket,
    time::{Instant, sleep_until, timeout},
};

/// A peer that neither sends nor is sent anything for this long is forgotten unless the caller says
/// otherwise: RFC 4787 wants two minutes at least.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(120);

const SERVICE: &str = "udp:";

/// The largest datagram on the wire: UDP over IPv4 itself ends below.
const LARGEST: usize = 65_535;

/// The endpoint of the UDP port at `address` on a far side that offers it.
#[must_use]
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::Service(format!("{SERVICE}{address}"))
}

/// The UDP port that the name of a service means; `None` for another service.
#[must_use]
pub fn target(service: &str) -> Option<SocketAddr> {
    service.strip_prefix(SERVICE)?.parse().ok()
}

/// Joins a stream of datagrams and a connected UDP socket, until the stream ends or nothing passes for
/// `idle`.
///
/// That nobody listens at the socket's peer is no end: UDP has no such thing, and somebody may yet.
///
/// # Errors
///
/// As the stream does.
///
/// # Cancel safety
///
/// Dropping the future drops both.
pub async fn join<S>(stream: S, socket: UdpSocket, idle: Duration) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    let mut buffer = vec![0; LARGEST];
    let mut end = Instant::now() + idle;
    loop {
        tokio::select! {
            datagram = reader.next() => match datagram? {
                // What cannot be sent is lost, as datagrams are.
                Some(datagram) => drop(socket.send(datagram).await),
                None => return Ok(()),
            },
            received = socket.recv(&mut buffer) => match received {
                Ok(count) => timeout(idle, writer.write(&buffer[..count])).await??,
                // An ICMP message about an earlier datagram; it is taken by being read.
                Err(_) => continue,
            },
            () = sleep_until(end) => return Ok(()),
        }
        end = Instant::now() + idle;
    }
}

/// Takes datagrams out of a stream.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: ReadHalf<S>,
    buffer: Vec<u8>,
    /// The datagram that was returned last, with its length.
    taken: usize,
}

impl<S: AsyncRead> Reader<S> {
    pub(crate) fn new(stream: ReadHalf<S>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// The next datagram; `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        loop {
            if let Some(length) = self.buffer.first_chunk().copied().map(u16::from_be_bytes) {
                let whole = 2 + usize::from(length);
                if self.buffer.len() >= whole {
                    self.taken = whole;
                    return Ok(Some(&self.buffer[2..whole]));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// Puts datagrams into a stream.
#[derive(Debug)]
pub(crate) struct Writer<S> {
    stream: WriteHalf<S>,
    buffer: Vec<u8>,
}

impl<S: AsyncWrite> Writer<S> {
    pub(crate) fn new(stream: WriteHalf<S>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Writes one datagram of at most [`LARGEST`] bytes. Not cancel safe.
    pub(crate) async fn write(&mut self, datagram: &[u8]) -> io::Result<()> {
        let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.buffer.clear();
        self.buffer.extend(length.to_be_bytes());
        self.buffer.extend(datagram);
        self.stream.write_all(&self.buffer).await?;
        self.stream.flush().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for text in ["127.0.0.1:53", "[::1]:53"] {
            let address = text.parse().unwrap();
            let Endpoint::Service(name) = endpoint(address) else {
                panic!("a service");
            };
            assert_eq!(target(&name), Some(address));
        }
        assert_eq!(target("agent"), None);
        assert_eq!(target("udp:localhost:53"), None);
    }

    proptest! {
        #[test]
        fn datagrams_arrive_as_they_were_sent(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            buffer in 1_usize..50,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (near, far) = tokio::io::duplex(buffer);
                let sent = datagrams.clone();
                let writing = tokio::spawn(async move {
                    let mut writer = Writer::new(tokio::io::split(near).1);
                    for datagram in &sent {
                        writer.write(datagram).await.unwrap();
                    }
                    // Both halves of the stream have to go for it to end.
                    writer.stream.shutdown().await.unwrap();
                });
                let mut reader = Reader::new(tokio::io::split(far).0);
                let mut received = Vec::new();
                while let Some(datagram) = reader.next().await.unwrap() {
                    received.push(datagram.to_vec());
                }
                writing.await.unwrap();
                assert_eq!(received, datagrams);
            });
        }
    }
}
