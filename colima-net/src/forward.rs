//! Ports of a guest appear on the host.
//!
//! [`Rules`] say where a guest port belongs, [`Forwarder`] makes it so: it compares what is wanted with
//! what is open and closes, keeps and opens. Nothing is ever taken from anybody: a place that somebody
//! holds is a [`Conflict`] that names the holder, and is tried again at the next call. How it is learned
//! which ports the guest serves is somebody else's business, such as that of
//! [`PortWatch`](crate::agent::PortWatch).
//!
//! ```
//! use colima_core::ports::{GuestPort, Protocol};
//! use colima_net::{Local, forward::{Forwarder, Rules}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // The far side is this machine, so the port must not be the one that is served.
//! let rules = Rules::new([colima_net::forward::Rule {
//!     protocol: None,
//!     address: None,
//!     ports: 1..=u16::MAX,
//!     action: colima_net::forward::Action::Forward {
//!         bind: colima_net::forward::Bind::To(vec![[127, 0, 0, 9].into()]),
//!         first_port: None,
//!     },
//! }]);
//! let served = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let port = GuestPort::socket(Protocol::Tcp, served.local_addr().unwrap());
//!
//! let mut forwarder = Forwarder::new(Local);
//! let plan = rules.plan([&port]);
//! forwarder.apply(&plan).await;
//! assert!(forwarder.conflicts().next().is_none());
//!
//! let _client = tokio::net::TcpStream::connect(("127.0.0.9", port.port)).await.unwrap();
//! served.accept().await.unwrap();
//! forwarder.close().await;
//! # }
//! ```

mod conflict;
mod listen;
mod owner;
mod reconcile;
mod rules;
mod udp;

use std::{collections::BTreeMap, fmt, net::Ipv6Addr, sync::Arc};

use colima_core::Connect;
use tokio::sync::Semaphore;

pub use conflict::{Cause, Conflict, obstacle};
pub use owner::{Owner, deserted};
pub use rules::{Action, Bind, Forward, Place, Plan, Rule, Rules};

use listen::Listening;
use reconcile::reconcile;

/// Open ports at once unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 1024;

/// Connections at once, all ports together, unless the caller says otherwise.
const DEFAULT_CONNECTIONS: usize = 3072;

/// Something that [`Forwarder::apply`] did or could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The host listens.
    Opened(Forward),
    /// The host does not listen any more. Connections that were made go on.
    Closed(Forward),
    /// The host cannot listen, and that is news.
    Conflict(Conflict),
}

/// Keeps the ports of a host as its guest's are.
///
/// # Drop
///
/// Dropping it closes every port and every connection at once; [`close`](Self::close) waits until the
/// ports are free.
pub struct Forwarder<C> {
    connect: Arc<C>,
    limit: usize,
    connections: Arc<Semaphore>,
    open: BTreeMap<Place, Open>,
    conflicts: BTreeMap<Place, Conflict>,
    /// Closed ports whose connections go on.
    finishing: Vec<Listening>,
}

struct Open {
    forward: Forward,
    listening: Listening,
}

impl<C> fmt::Debug for Forwarder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder")
            .field("limit", &self.limit)
            .field("open", &self.open.keys())
            .field("conflicts", &self.conflicts)
            .finish_non_exhaustive()
    }
}

impl<C: Connect + 'static> Forwarder<C> {
    /// A forwarder to ports on the far side of `connect`; it opens nothing yet.
    pub fn new(connect: C) -> Self {
        Self {
            connect: Arc::new(connect),
            limit: DEFAULT_LIMIT,
            connections: Arc::new(Semaphore::new(DEFAULT_CONNECTIONS)),
            open: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            finishing: Vec::new(),
        }
    }

    /// Most ports at once, 1,024 by default: a guest may have 65,535, and a host needs its descriptors.
    #[must_use]
    pub fn limit(mut self, ports: usize) -> Self {
        self.limit = ports;
        self
    }

    /// Most connections at once, all ports together; 3,072 by default. More wait to be accepted, and UDP
    /// peers beyond it are not heard. With less than what the way to the guest can carry, ports never
    /// keep others from it.
    #[must_use]
    pub fn connections(mut self, at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        self.connections = Arc::new(Semaphore::new(at_once));
        self
    }

    /// Makes the host's ports those of `plan`, and tells what that changed. When it returns, a port that
    /// is not in conflict takes connections, and one that is gone is free.
    ///
    /// What could not be opened before is tried again. Connections through a port that closes go on until
    /// they end, as those of a server that stops listening.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped has done a part of it; the next call does the rest.
    pub async fn apply(&mut self, plan: &Plan) -> Vec<Change> {
        let mut changes = Vec::new();
        self.finishing.retain(Listening::is_busy);
        let current: BTreeMap<Place, Forward> = self
            .open
            .iter()
            .map(|(place, open)| (*place, open.forward.clone()))
            .collect();
        let steps = reconcile(&plan.forwards, &current, self.limit);
        // All are told before the first is waited for.
        for place in &steps.close {
            if let Some(open) = self.open.get(place) {
                open.listening.stop();
            }
        }
        for place in steps.close {
            if let Some(open) = self.open.get(&place) {
                open.listening.stopped().await;
            }
            if let Some(open) = self.open.remove(&place) {
                changes.push(Change::Closed(open.forward));
                self.finishing.push(open.listening);
            }
        }
        for forward in steps.keep {
            if let Some(open) = self.open.get_mut(&forward.place()) {
                open.forward = forward;
            }
        }
        let mut conflicts = BTreeMap::new();
        for forward in steps.open {
            match Listening::open(&forward, &self.connect, &self.connections) {
                Ok(listening) => {
                    changes.push(Change::Opened(forward.clone()));
                    let open = Open {
                        forward: forward.clone(),
                        listening,
                    };
                    self.open.insert(forward.place(), open);
                }
                Err(error) => {
                    let cause = Cause::of(&error);
                    if cause == Cause::NoSuchAddress && forward.host.ip() == Ipv6Addr::LOCALHOST {
                        continue; // A host without IPv6: nobody can ask for it there.
                    }
                    conflicts.insert(forward.place(), Conflict { forward, cause });
                }
            }
        }
        let limit = self.limit;
        let too_many = steps.too_many.into_iter();
        let too_many = too_many.map(|forward| (forward, Cause::TooMany { limit }));
        let refused = plan.refused.iter().cloned();
        let refused = refused.map(|forward| (forward, Cause::Reserved));
        for (forward, cause) in too_many.chain(refused) {
            conflicts.insert(forward.place(), Conflict { forward, cause });
        }
        let conflicts = with_owners(conflicts).await;
        for (place, conflict) in &conflicts {
            if self.conflicts.get(place) != Some(conflict) {
                changes.push(Change::Conflict(conflict.clone()));
            }
        }
        self.conflicts = conflicts;
        changes
    }

    /// The forwards that work, in the order of their places.
    pub fn open(&self) -> impl Iterator<Item = &Forward> {
        self.open.values().map(|open| &open.forward)
    }

    /// The forwards that do not, as of the last [`apply`](Self::apply).
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.values()
    }

    /// What is in the way of a place, if anything is.
    #[must_use]
    pub fn conflict(&self, place: Place) -> Option<&Conflict> {
        self.conflicts.get(&place)
    }

    /// Closes every port and ends every connection; returns when the ports are free.
    pub async fn close(mut self) {
        for open in self.open.values() {
            open.listening.stop();
        }
        for open in self.open.values() {
            open.listening.stopped().await;
        }
        self.open.clear();
    }
}

/// Finds out who has what is in use. Looking through every process takes a moment.
async fn with_owners(mut conflicts: BTreeMap<Place, Conflict>) -> BTreeMap<Place, Conflict> {
    let in_use = |conflict: &Conflict| matches!(conflict.cause, Cause::InUse { .. });
    let places: Vec<Place> = conflicts
        .iter()
        .filter(|(_, conflict)| in_use(conflict))
        .map(|(place, _)| *place)
        .collect();
    if places.is_empty() {
        return conflicts;
    }
    let look = tokio::task::spawn_blocking(move || owner::of(&places));
    for (place, owner) in look.await.unwrap_or_default() {
        if let Some(conflict) = conflicts.get_mut(&place) {
            conflict.cause = Cause::InUse { owner: Some(owner) };
        }
    }
    conflicts
}
