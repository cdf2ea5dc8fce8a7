//! Sessions that are logged in and wait for work.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    command::Run,
    flow::StreamTask,
    link::{Fuse, LinkTask},
};

/// What a session is asked to do.
pub(super) enum Task {
    Stream(StreamTask),
    Run(Run),
    Ping { answered: oneshot::Sender<()> },
}

/// A task, and the way back for the session that does it.
pub(super) struct Request {
    pub(super) task: Task,
    pub(super) ticket: Ticket,
}

/// An idle session.
///
/// # Drop
///
/// Ends the session.
pub(super) struct Handle {
    wake: UnixStream,
    requests: mpsc::Sender<Request>,
    alive: Arc<AtomicBool>,
    link: LinkTask,
}

impl Handle {
    pub(super) const fn new(
        wake: UnixStream,
        requests: mpsc::Sender<Request>,
        alive: Arc<AtomicBool>,
        link: LinkTask,
    ) -> Self {
        Self {
            wake,
            requests,
            alive,
            link,
        }
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Hands the task to the session; what is returned stops the session when it is dropped.
    ///
    /// A session that has just died drops the task: its channels tell.
    pub(super) fn perform(
        self,
        task: Task,
        pool: &Arc<Pool>,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Fuse {
        let fuse = self.link.fuse();
        let requests = self.requests.clone();
        // Where this fails the thread is gone, and with it the receiver.
        let _ = (&self.wake).write(&[1]);
        let ticket = Ticket {
            handle: self,
            pool: Arc::downgrade(pool),
            _permit: permit,
        };
        let _ = requests.send(Request { task, ticket });
        fuse
    }
}

/// The way back to the pool.
pub(super) struct Ticket {
    handle: Handle,
    pool: Weak<Pool>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Ticket {
    pub(super) fn give_back(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(self.handle);
        }
    }
}

/// The idle sessions of a client.
pub(super) struct Pool {
    idle: Mutex<Vec<Handle>>,
    most: usize,
}

impl Pool {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            most,
        }
    }

    /// The session that was used last.
    pub(super) fn take(&self) -> Option<Handle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Handle::is_alive);
        idle.pop()
    }

    /// Keeps a session, or ends it when there are enough.
    pub(super) fn put(&self, handle: Handle) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Handle::is_alive);
        if idle.len() < self.most {
            idle.push(handle);
        }
    }

    pub(super) fn len(&self) -> usize {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Handle::is_alive);
        idle.len()
    }
}
