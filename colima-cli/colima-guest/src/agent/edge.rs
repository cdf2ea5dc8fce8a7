//! Waiting for a change of a descriptor whose readiness says too much.
//!
//! A virtio-serial port reports a hang-up for as long as the host is away, and for tokio a hang-up is
//! final: it would report the port as readable for ever. So the port sits in an epoll instance of its own,
//! and tokio watches that one. It is readable once for every change, and is never hung up.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;

/// Changes of one descriptor. One task at a time waits; the last one that asked is woken.
#[derive(Debug)]
pub(super) struct Edge {
    changes: AsyncFd<OwnedFd>,
}

impl Edge {
    /// Every event of this kind from now on.
    pub(super) fn every(device: impl AsFd, events: epoll::EventFlags) -> io::Result<Self> {
        Self::new(device, events | epoll::EventFlags::ET)
    }

    /// The next event of this kind after each [`Edge::arm`].
    pub(super) fn once(device: impl AsFd, events: epoll::EventFlags) -> io::Result<Self> {
        Self::new(device, events | epoll::EventFlags::ONESHOT)
    }

    fn new(device: impl AsFd, events: epoll::EventFlags) -> io::Result<Self> {
        let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&changes, device, epoll::EventData::new_u64(0), events)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the descriptor is owned and never changed"
        )]
        let changes = AsyncFd::new(changes)?;
        Ok(Self { changes })
    }

    /// Waits for one more event; it comes at once where what it tells of is so already.
    pub(super) fn arm(&self, device: impl AsFd, events: epoll::EventFlags) -> io::Result<()> {
        let events = events | epoll::EventFlags::ONESHOT;
        epoll::modify(
            self.changes.get_ref(),
            device,
            epoll::EventData::new_u64(0),
            events,
        )?;
        Ok(())
    }

    /// Completes when there was an event since it last did.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.changes.poll_read_ready(cx))?;
            let happened = happened(self.changes.get_ref())?;
            // One that comes between those two makes tokio's epoll ready anew.
            ready.clear_ready();
            if happened {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Takes the event, if there is one.
fn happened(changes: &OwnedFd) -> io::Result<bool> {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut events = Vec::with_capacity(1);
    match epoll::wait(
        changes,
        rustix::buffer::spare_capacity(&mut events),
        Some(&AT_ONCE),
    ) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
