//! The streams of one session: what frames do to them, and which frames they owe.
//!
//! Everything here is a step of a state machine without I/O. [`Table::receive`] takes a frame of
//! the peer, [`Table::fill`] gives the frames that are due, the `poll_` functions serve the handles.
//!
//! Nothing the peer does makes a queue grow: what a stream owes are flags in its entry, an entry
//! is at most once in the ready ring, received bytes are bounded by the credit that this side
//! granted, and the number of entries by the limit.

mod entry;

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use colima_core::Endpoint;
use tokio::io::ReadBuf;

use self::entry::{Entry, Fin, Handle, Phase, Turn, receive_on, reset, take_turn, wait, wake};
use super::{
    frame::{self, Frame, StreamId},
    refusal::{Reason, Refusal},
};
use crate::Violation;

/// Bytes that a stream takes from its writer before the link has taken them.
const SEND_BUFFER: usize = 64 * 1024;

/// Refusals that may wait for the link at once, beyond the limit of streams.
const MAX_REFUSALS: usize = 256;

/// Which side of the link this is. Stream numbers of the opening side are odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Opening,
    Accepting,
}

/// A stream that the peer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) stream: StreamId,
    pub(super) endpoint: Endpoint,
}

/// Why this side cannot open a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CannotAsk {
    /// The session is over.
    Ended,
    /// As many streams exist as may.
    Limit,
}

#[derive(Debug)]
pub(super) struct Table {
    role: Role,
    window: u32,
    max_streams: usize,
    streams: HashMap<StreamId, Entry>,
    ready: VecDeque<StreamId>,
    ping: Option<u64>,
    pong: Option<u64>,
    next: StreamId,
    ended: bool,
    /// Something is due that was not when `fill` last came to its end.
    work: bool,
}

impl Table {
    pub(super) fn new(role: Role, window: u32, max_streams: usize) -> Self {
        Self {
            role,
            window: window.max(2),
            max_streams,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            ping: None,
            pong: None,
            next: match role {
                Role::Opening => 1,
                Role::Accepting => 2,
            },
            ended: false,
            work: false,
        }
    }

    /// Streams of which anything is remembered.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Fails every stream; nothing can be opened any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.ready.clear();
        self.streams.retain(|_, entry| {
            entry.wake_all();
            entry.unsent = BytesMut::new();
            entry.handle == Handle::Held
        });
    }

    /// Whether the link's writer has something to do that it was not told of yet.
    pub(super) fn take_work(&mut self) -> bool {
        mem::take(&mut self.work)
    }

    fn make_ready(&mut self, stream: StreamId) {
        if self.ended {
            return;
        }
        if let Some(entry) = self.streams.get_mut(&stream)
            && !mem::replace(&mut entry.in_ready_ring, true)
        {
            self.ready.push_back(stream);
            self.work = true;
        }
    }

    // ---- the link ----

    pub(super) fn send_ping(&mut self, token: u64) {
        self.ping = Some(token);
        self.work = true;
    }

    /// Applies a frame of the peer.
    pub(super) fn receive(&mut self, frame: Frame<'_>) -> Result<Option<Offer>, Violation> {
        match frame {
            Frame::Ping { token } => {
                // Only the newest is answered: a flood of pings costs one number.
                self.pong = Some(token);
                self.work = true;
            }
            Frame::Pong { .. } => {}
            Frame::Open {
                stream,
                credit,
                endpoint,
            } => return self.receive_open(stream, credit, endpoint),
            Frame::Accept { stream, .. }
            | Frame::Refuse { stream, .. }
            | Frame::Data { stream, .. }
            | Frame::Credit { stream, .. }
            | Frame::Fin { stream }
            | Frame::Reset { stream } => {
                // Frames for a stream that we reset may still have been on their way.
                if let Some(entry) = self.streams.get_mut(&stream) {
                    let forget = receive_on(entry, stream, frame)?;
                    if forget {
                        self.streams.remove(&stream);
                    } else if entry.credit > 0 && !entry.unsent.is_empty() {
                        self.make_ready(stream);
                    }
                }
            }
        }
        Ok(None)
    }

    fn receive_open(
        &mut self,
        stream: StreamId,
        credit: u32,
        endpoint: Endpoint,
    ) -> Result<Option<Offer>, Violation> {
        let unwanted = Violation::Open { stream };
        if self.role == Role::Opening || stream.is_multiple_of(2) {
            return Err(unwanted);
        }
        if self.streams.contains_key(&stream) {
            return Err(Violation::OutOfPlace { stream });
        }
        if self.streams.len() >= self.max_streams + MAX_REFUSALS {
            return Err(unwanted);
        }
        if self.streams.len() >= self.max_streams {
            let refusal = Refusal::from_wire(Reason::TooManyStreams, b"too many streams are open");
            let mut entry = Entry::new(Phase::Refusing(refusal), 0, 0);
            entry.handle = Handle::Dropped;
            self.streams.insert(stream, entry);
            self.make_ready(stream);
            return Ok(None);
        }
        let entry = Entry::new(Phase::Offered, credit, self.window);
        self.streams.insert(stream, entry);
        Ok(Some(Offer { stream, endpoint }))
    }

    /// Appends frames that are due, one turn for each stream, until `out` holds `budget` bytes.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, budget: usize) {
        if let Some(token) = self.pong.take() {
            frame::encode(&Frame::Pong { token }, out);
        }
        if let Some(token) = self.ping.take() {
            frame::encode(&Frame::Ping { token }, out);
        }
        while out.len() < budget
            && let Some(stream) = self.ready.pop_front()
        {
            let Some(entry) = self.streams.get_mut(&stream) else {
                continue; // Forgotten since.
            };
            entry.in_ready_ring = false;
            match take_turn(entry, stream, self.window, out) {
                Turn::Done => {}
                Turn::Again => {
                    entry.in_ready_ring = true;
                    self.ready.push_back(stream);
                }
                Turn::Forget => {
                    self.streams.remove(&stream);
                }
            }
        }
        self.work = !self.ready.is_empty();
    }

    // ---- opening ----

    /// Begins to open a stream.
    pub(super) fn ask(&mut self, endpoint: Endpoint) -> Result<StreamId, CannotAsk> {
        if self.ended {
            return Err(CannotAsk::Ended);
        }
        if self.streams.len() >= self.max_streams {
            return Err(CannotAsk::Limit);
        }
        while self.next == 0 || self.streams.contains_key(&self.next) {
            self.next = self.next.wrapping_add(2);
        }
        let stream = self.next;
        self.next = stream.wrapping_add(2);
        let sent = false;
        let entry = Entry::new(Phase::Asked { endpoint, sent }, 0, self.window);
        self.streams.insert(stream, entry);
        self.make_ready(stream);
        Ok(stream)
    }

    /// `Ok(Ok(()))` once the peer has accepted; an outer error when the session ended first.
    pub(super) fn poll_opened(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Result<(), Refusal>>> {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return Poll::Ready(Err(reset()));
        };
        match &entry.phase {
            Phase::Refused(refusal) => Poll::Ready(Ok(Err(refusal.clone()))),
            Phase::Open => Poll::Ready(Ok(Ok(()))),
            _ if self.ended || entry.peer_reset => Poll::Ready(Err(reset())),
            _ => {
                wait(&mut entry.opener, cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn accept(&mut self, stream: StreamId) {
        self.decide(stream, Phase::Granting);
    }

    pub(super) fn refuse(&mut self, stream: StreamId, refusal: Refusal) {
        self.decide(stream, Phase::Refusing(refusal));
    }

    fn decide(&mut self, stream: StreamId, phase: Phase) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && matches!(entry.phase, Phase::Offered)
        {
            entry.phase = phase;
            self.make_ready(stream);
        }
    }

    // ---- handles ----

    pub(super) fn poll_read(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return Poll::Ready(Err(reset()));
        };
        if entry.received.is_empty() {
            return if entry.peer_fin {
                Poll::Ready(Ok(()))
            } else if entry.peer_reset || self.ended {
                Poll::Ready(Err(reset()))
            } else {
                wait(&mut entry.reader, cx);
                Poll::Pending
            };
        }
        let n = entry.received.len().min(buf.remaining());
        buf.put_slice(&entry.received[..n]);
        entry.received.advance(n);
        if entry.received.is_empty() && entry.received.capacity() > SEND_BUFFER {
            // An idle stream costs little, whatever it carried before.
            entry.received = BytesMut::new();
        }
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        entry.unacknowledged = entry.unacknowledged.saturating_add(n);
        if !entry.peer_fin && !entry.peer_reset && entry.unacknowledged >= self.window / 2 {
            self.make_ready(stream);
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ended = self.ended;
        let Some(entry) = self.streams.get_mut(&stream) else {
            return Poll::Ready(Err(reset()));
        };
        if entry.fin != Fin::No {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if ended || entry.peer_reset {
            return Poll::Ready(Err(reset()));
        }
        let n = buf.len().min(SEND_BUFFER - entry.unsent.len());
        if n == 0 && !buf.is_empty() {
            wait(&mut entry.writer, cx);
            return Poll::Pending;
        }
        entry.unsent.extend_from_slice(&buf[..n]);
        if entry.credit > 0 && n > 0 {
            self.make_ready(stream);
        }
        Poll::Ready(Ok(n))
    }

    /// Ready once everything written, and the end, has been handed to the link.
    pub(super) fn poll_shutdown(
        &mut self,
        stream: StreamId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let ended = self.ended;
        let Some(entry) = self.streams.get_mut(&stream) else {
            return Poll::Ready(Err(reset()));
        };
        if entry.fin == Fin::Sent {
            return Poll::Ready(Ok(()));
        }
        if ended || entry.peer_reset {
            return Poll::Ready(Err(reset()));
        }
        wait(&mut entry.writer, cx);
        if entry.fin == Fin::No {
            entry.fin = Fin::Due;
            self.make_ready(stream);
        }
        Poll::Pending
    }

    /// Ready once the peer can neither read nor write any more.
    pub(super) fn poll_hung_up(&mut self, stream: StreamId, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&stream) {
            Some(entry) if !self.ended && !entry.peer_reset => {
                wait(&mut entry.watcher, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The program lets go of the stream; unless both directions are finished the peer is told.
    pub(super) fn release(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        entry.handle = Handle::Dropped;
        entry.received = BytesMut::new();
        entry.unsent = BytesMut::new();
        wake(&mut entry.watcher);
        let forget = self.ended
            || entry.peer_reset
            || entry.is_finished()
            || matches!(
                entry.phase,
                Phase::Refused(_) | Phase::Asked { sent: false, .. }
            );
        if forget {
            self.streams.remove(&stream);
            return;
        }
        if matches!(entry.phase, Phase::Offered) {
            entry.phase = Phase::Refusing(Refusal::from_wire(Reason::Other, b"not accepted"));
        }
        self.make_ready(stream);
    }
}
