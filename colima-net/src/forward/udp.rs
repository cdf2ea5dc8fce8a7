//! A UDP port of the host: a stream to the guest for every peer.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use colima_core::{Connect, Endpoint};
use tokio::{
    net::UdpSocket,
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::datagrams::{Reader, Writer};

/// Peers of one port at once; what others send is dropped.
const MOST_PEERS: usize = 1024;

/// Datagrams of one peer that wait for its stream; what is beyond is dropped.
const MOST_WAITING: usize = 64;

const LARGEST: usize = 65_535;

/// What a port leads to.
pub(super) struct UdpPort<C> {
    pub(super) connect: Arc<C>,
    pub(super) endpoint: Endpoint,
    /// One for every peer.
    pub(super) connections: Arc<Semaphore>,
    /// After this long without a datagram a peer is forgotten.
    pub(super) idle: Duration,
}

impl<C: Connect + 'static> UdpPort<C> {
    /// Serves peers until `stopping` says so.
    pub(super) async fn serve(self, socket: UdpSocket, mut stopping: watch::Receiver<bool>) {
        let socket = Arc::new(socket);
        let mut peers: BTreeMap<SocketAddr, (Id, mpsc::Sender<Vec<u8>>)> = BTreeMap::new();
        let mut sessions = JoinSet::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = tokio::select! {
                // A sender that is gone stops as well.
                _ = stopping.wait_for(|stop| *stop) => return,
                Some(ended) = sessions.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    peers.retain(|_, (session, _)| *session != id);
                    continue;
                }
                received = socket.recv_from(&mut buffer) => received,
            };
            // An error tells of an earlier datagram that nobody took.
            let Ok((count, peer)) = received else {
                continue;
            };
            let datagram = buffer[..count].to_vec();
            let datagram = match peers.get(&peer) {
                Some((_, session)) => match session.try_send(datagram) {
                    Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                    // It ended just now; this datagram begins the next.
                    Err(mpsc::error::TrySendError::Closed(datagram)) => datagram,
                },
                None if peers.len() >= MOST_PEERS => continue,
                None => datagram,
            };
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                continue;
            };
            let (sender, waiting) = mpsc::channel(MOST_WAITING);
            let _ = sender.try_send(datagram);
            let session = Session {
                socket: Arc::clone(&socket),
                peer,
                waiting,
                idle: self.idle,
            };
            let (connect, endpoint) = (Arc::clone(&self.connect), self.endpoint.clone());
            let task = sessions.spawn(async move {
                let _permit = permit;
                // A guest that cannot be reached is a network that loses datagrams.
                let _ = session.run(&*connect, &endpoint).await;
            });
            peers.insert(peer, (task.id(), sender));
        }
    }
}

/// What one peer says and is told.
struct Session {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    waiting: mpsc::Receiver<Vec<u8>>,
    idle: Duration,
}

impl Session {
    async fn run<C: Connect>(mut self, connect: &C, endpoint: &Endpoint) -> io::Result<()> {
        let stream = connect.connect(endpoint).await?;
        let (reader, writer) = tokio::io::split(stream);
        let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
        let mut end = Instant::now() + self.idle;
        loop {
            tokio::select! {
                datagram = self.waiting.recv() => match datagram {
                    Some(datagram) => timeout(self.idle, writer.write(&datagram)).await??,
                    None => return Ok(()),
                },
                answer = reader.next() => match answer? {
                    // A peer that is gone is told by ICMP, and nobody waits for it.
                    Some(answer) => drop(self.socket.send_to(answer, self.peer).await),
                    None => return Ok(()),
                },
                () = sleep_until(end) => return Ok(()),
            }
            end = Instant::now() + self.idle;
        }
    }
}
