//! Listens here, connects there.
//!
//! [`Relay`] takes a [`Listener`] that the caller has made, and anything that implements
//! [`Connect`]. Every accepted client gets a stream of its own to the endpoint, and bytes are
//! copied exactly as [`pump`] describes: an end of one direction is passed on and the other goes
//! on, a failure of either side fails the other.
//!
//! [`SocketFile`] makes unix sockets that only their owner can reach.

mod accept;
mod report;
mod socket_file;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use colima_core::{Connect, Endpoint};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::JoinSet,
};

pub use accept::Listener;
use accept::{Backoff, Verdict, judge};
pub use report::{RelayEvent, RelayReport};
pub use socket_file::SocketFile;

use crate::{LocalStream, Traffic, pump};

/// Connections at once unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 512;

/// How long a shutdown waits for open connections unless the caller says otherwise.
const DEFAULT_DRAIN: Duration = Duration::from_secs(2);

/// Events that a slow observer may lag behind before it misses some.
const EVENT_BACKLOG: usize = 256;

/// Hands every client of a listener to an endpoint on the far side.
///
/// # Drop
///
/// A relay does nothing before [`run`](Self::run). Dropping that future closes the listener and
/// every connection at once.
pub struct Relay<C> {
    listener: Listener,
    connect: Arc<C>,
    endpoint: Endpoint,
    limit: usize,
    shared: Option<Arc<Semaphore>>,
    drain: Duration,
    events: broadcast::Sender<RelayEvent>,
    gauge: watch::Sender<usize>,
    listening: watch::Sender<bool>,
}

impl<C> fmt::Debug for Relay<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("listener", &self.listener)
            .field("endpoint", &self.endpoint)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<C: Connect + 'static> Relay<C> {
    /// A relay from `listener` to `endpoint` on the far side of `connect`.
    pub fn new(listener: impl Into<Listener>, connect: C, endpoint: Endpoint) -> Self {
        Self {
            listener: listener.into(),
            connect: Arc::new(connect),
            endpoint,
            limit: DEFAULT_LIMIT,
            shared: None,
            drain: DEFAULT_DRAIN,
            events: broadcast::Sender::new(EVENT_BACKLOG),
            gauge: watch::Sender::new(0),
            listening: watch::Sender::new(true),
        }
    }

    /// Most connections at once; 512 by default, at least 1. Further clients wait in the system's
    /// backlog.
    #[must_use]
    pub fn limit(mut self, connections: usize) -> Self {
        self.limit = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Also takes a permit of `shared` for every connection: a limit for several relays together.
    #[must_use]
    pub fn within(mut self, shared: Arc<Semaphore>) -> Self {
        self.shared = Some(shared);
        self
    }

    /// How long open connections may go on after the shutdown; 2 s by default.
    #[must_use]
    pub fn drain(mut self, at_most: Duration) -> Self {
        self.drain = at_most;
        self
    }

    /// What happens from now on. An observer that lags by more than 256 events misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RelayEvent> {
        self.events.subscribe()
    }

    /// The number of open connections, as it changes.
    #[must_use]
    pub fn open_connections(&self) -> watch::Receiver<usize> {
        self.gauge.subscribe()
    }

    /// Whether the listener is open. Once it is closed its address is free, while connections may go on.
    #[must_use]
    pub fn listening(&self) -> watch::Receiver<bool> {
        self.listening.subscribe()
    }

    /// Serves clients until `shutdown` completes, and then lets open connections finish for as
    /// long as [`drain`](Self::drain) says. What is still open after that is aborted and counted.
    ///
    /// The listener is closed when accepting ends, before the drain, and a
    /// [`SocketFile`] that it came from is unlinked with it.
    ///
    /// No failure of a single client or of the far side ends the relay: a client that cannot be
    /// connected is aborted at once, and lack of descriptors or memory pauses accepting for 10 ms
    /// up to 1 s. Only a listener that cannot work any more ends it, and the report says so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> RelayReport {
        let counts = Arc::new(report::Counts::default());
        let permits = Arc::new(Semaphore::new(self.limit));
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::default();
        let mut shutdown = std::pin::pin!(shutdown);
        let mut listener_error = None;
        loop {
            // Accepting without a permit would take clients out of the backlog to let them wait.
            let accepted = async {
                let own = Arc::clone(&permits).acquire_owned().await;
                let shared = match &self.shared {
                    Some(shared) => Some(Arc::clone(shared).acquire_owned().await),
                    None => None,
                };
                ((own, shared), self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            let client = match accepted {
                Ok(client) => client,
                Err(error) => match judge(&error) {
                    Verdict::ClientGone => continue,
                    Verdict::Pause => {
                        let pause = backoff.next();
                        counts.pauses.fetch_add(1, Ordering::Relaxed);
                        self.tell(|| RelayEvent::Paused {
                            reason: Arc::new(error),
                            pause,
                        });
                        // Freed descriptors are no event that could be waited for.
                        tokio::select! {
                            () = &mut shutdown => break,
                            () = tokio::time::sleep(pause) => continue,
                        }
                    }
                    Verdict::Broken => {
                        listener_error = Some(error);
                        break;
                    }
                },
            };
            backoff = Backoff::default();
            counts.accepted.fetch_add(1, Ordering::Relaxed);
            let connection = Connection {
                connect: Arc::clone(&self.connect),
                endpoint: self.endpoint.clone(),
                counts: Arc::clone(&counts),
                events: self.events.clone(),
                open: Open::new(self.gauge.clone()),
            };
            connections.spawn(async move {
                let _permit = permit;
                connection.serve(client).await;
            });
        }
        drop(self.listener);
        self.listening.send_replace(false);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.drain, finished).await;
        let aborted = connections.len();
        connections.shutdown().await;
        counts.report(aborted, *self.gauge.borrow(), listener_error)
    }

    fn tell(&self, event: impl FnOnce() -> RelayEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(event());
    }
}

/// One accepted client.
struct Connection<C> {
    connect: Arc<C>,
    endpoint: Endpoint,
    counts: Arc<report::Counts>,
    events: broadcast::Sender<RelayEvent>,
    open: Open,
}

impl<C: Connect> Connection<C> {
    async fn serve(self, client: LocalStream) {
        let _open = self.open;
        // Even for a client that is gone by now: what it sent before must arrive.
        let far = match self.connect.connect(&self.endpoint).await {
            Ok(far) => far,
            Err(error) => {
                crate::Hangup::abort(client);
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                let reason = Arc::new(error);
                let _ = self.events.send(RelayEvent::ConnectFailed { reason });
                return;
            }
        };
        let mut traffic = Counted {
            traffic: Traffic::default(),
            counts: &self.counts,
        };
        let ended = pump(client, far, &mut traffic.traffic).await;
        let traffic = traffic.traffic;
        let error = ended.err().map(Arc::new);
        if error.is_some() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.events.send(RelayEvent::Ended { traffic, error });
    }
}

/// Adds the bytes of a connection to the totals when it ends, however that happens.
struct Counted<'a> {
    traffic: Traffic,
    counts: &'a report::Counts,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Traffic { sent, received } = self.traffic;
        self.counts.sent.fetch_add(sent, Ordering::Relaxed);
        self.counts.received.fetch_add(received, Ordering::Relaxed);
    }
}

/// Counts a connection as open for as long as it exists.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(gauge: watch::Sender<usize>) -> Self {
        gauge.send_modify(|open| *open += 1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
