//! What a relay tells about its work.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Traffic;

/// Something that happened in a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RelayEvent {
    /// The far side could not be reached for a client, which was turned away.
    ConnectFailed {
        /// What the far side said.
        reason: Arc<io::Error>,
    },
    /// A connection ended.
    Ended {
        /// The bytes that were passed on; the client is the near side.
        traffic: Traffic,
        /// What failed, unless both directions ended in order.
        error: Option<Arc<io::Error>>,
    },
    /// Accepting pauses, because the process or the system lacks something.
    Paused {
        /// What the system said, such as too many open files.
        reason: Arc<io::Error>,
        /// How long.
        pause: Duration,
    },
}

/// The sum of a relay's work.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RelayReport {
    /// Clients that were accepted.
    pub accepted: u64,
    /// Clients for which the far side could not be reached.
    pub refused: u64,
    /// Connections that ended with an error.
    pub failed: u64,
    /// Connections that were still open when the drain was over.
    pub aborted: usize,
    /// Connections that are open now: 0, or there is a leak.
    pub open: usize,
    /// Times that accepting paused for lack of descriptors or memory.
    pub pauses: u64,
    /// Bytes that were passed on, all connections together.
    pub traffic: Traffic,
    /// What broke the listener, where that is what ended the relay.
    pub listener_error: Option<io::Error>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) pauses: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Counts {
    pub(super) fn report(
        &self,
        aborted: usize,
        open: usize,
        listener_error: Option<io::Error>,
    ) -> RelayReport {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RelayReport {
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            failed: get(&self.failed),
            aborted,
            open,
            pauses: get(&self.pauses),
            traffic: Traffic {
                sent: get(&self.sent),
                received: get(&self.received),
            },
            listener_error,
        }
    }
}
