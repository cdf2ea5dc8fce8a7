//! What is remembered of one stream, what a frame does to it, and what it owes.

use std::{
    io, mem,
    task::{Context, Waker},
};

use bytes::{Buf as _, BytesMut};
use colima_core::Endpoint;

use crate::{
    Violation,
    mux::{
        frame::{self, Frame, MAX_PAYLOAD, StreamId},
        refusal::Refusal,
    },
};

/// How far the opening of a stream is.
#[derive(Debug)]
pub(super) enum Phase {
    /// We asked; `sent` once the frame is on its way.
    Asked { endpoint: Endpoint, sent: bool },
    /// The peer refused what we asked.
    Refused(Refusal),
    /// The peer asked and our handler has not decided.
    Offered,
    /// We decided, and owe the answer.
    Granting,
    /// We decided against it, and owe the answer.
    Refusing(Refusal),
    /// Open both ways until a side ends.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    No,
    Due,
    Sent,
}

/// Whether the program still holds the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handle {
    Held,
    Dropped,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    pub(super) handle: Handle,
    pub(super) in_ready_ring: bool,
    /// The peer has forgotten the stream.
    pub(super) peer_reset: bool,

    pub(super) unsent: BytesMut,
    pub(super) credit: u64,
    pub(super) fin: Fin,

    pub(super) received: BytesMut,
    /// Bytes that the peer may still send.
    pub(super) allowance: u32,
    /// Bytes that the program has read and the peer has not been told of.
    pub(super) unacknowledged: u32,
    pub(super) peer_fin: bool,

    pub(super) opener: Option<Waker>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) watcher: Option<Waker>,
}

impl Entry {
    pub(super) fn new(phase: Phase, credit: u32, allowance: u32) -> Self {
        Self {
            phase,
            handle: Handle::Held,
            in_ready_ring: false,
            peer_reset: false,
            unsent: BytesMut::new(),
            credit: credit.into(),
            fin: Fin::No,
            received: BytesMut::new(),
            allowance,
            unacknowledged: 0,
            peer_fin: false,
            opener: None,
            reader: None,
            writer: None,
            watcher: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.fin == Fin::Sent && self.peer_fin
    }

    pub(super) fn wake_all(&mut self) {
        let wakers = [
            &mut self.opener,
            &mut self.reader,
            &mut self.writer,
            &mut self.watcher,
        ];
        wakers
            .into_iter()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

pub(super) fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// The error of a stream whose peer or link is gone.
pub(super) fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Applies a frame to its stream; `true` when nothing needs to be remembered of it any more.
pub(super) fn receive_on(
    entry: &mut Entry,
    stream: StreamId,
    frame: Frame<'_>,
) -> Result<bool, Violation> {
    let out_of_place = Err(Violation::OutOfPlace { stream });
    let asked = matches!(entry.phase, Phase::Asked { sent: true, .. });
    let dropped = entry.handle == Handle::Dropped;
    match frame {
        Frame::Accept { credit, .. } => {
            if !asked {
                return out_of_place;
            }
            entry.phase = Phase::Open;
            entry.credit = credit.into();
            wake(&mut entry.opener);
        }
        Frame::Refuse { refusal, .. } => {
            if !asked {
                return out_of_place;
            }
            entry.phase = Phase::Refused(refusal);
            wake(&mut entry.opener);
            return Ok(dropped);
        }
        Frame::Reset { .. } => {
            entry.peer_reset = true;
            entry.unsent = BytesMut::new();
            entry.wake_all();
            return Ok(dropped);
        }
        // The peer may send on a stream only between the accept and its own end.
        _ if !matches!(entry.phase, Phase::Open) || entry.peer_reset => return out_of_place,
        Frame::Credit { bytes, .. } => {
            entry.credit = entry.credit.saturating_add(bytes.into());
        }
        _ if entry.peer_fin => return out_of_place,
        Frame::Data { bytes, .. } => {
            let left = u32::try_from(bytes.len())
                .ok()
                .and_then(|n| entry.allowance.checked_sub(n));
            entry.allowance = left.ok_or(Violation::Credit { stream })?;
            if !dropped {
                entry.received.extend_from_slice(bytes);
                wake(&mut entry.reader);
            }
        }
        Frame::Fin { .. } => {
            entry.peer_fin = true;
            wake(&mut entry.reader);
            return Ok(dropped && entry.fin == Fin::Sent);
        }
        Frame::Open { .. } | Frame::Ping { .. } | Frame::Pong { .. } => return out_of_place,
    }
    Ok(false)
}

/// What is to happen with a stream after its turn.
pub(super) enum Turn {
    Done,
    Again,
    Forget,
}

/// Appends what a stream owes, at most one frame of data.
pub(super) fn take_turn(
    entry: &mut Entry,
    stream: StreamId,
    window: u32,
    out: &mut Vec<u8>,
) -> Turn {
    match &mut entry.phase {
        Phase::Asked { endpoint, sent } => {
            if !mem::replace(sent, true) {
                let (endpoint, credit) = (endpoint.clone(), window);
                let open = Frame::Open {
                    stream,
                    credit,
                    endpoint,
                };
                frame::encode(&open, out);
            }
        }
        Phase::Refusing(refusal) => {
            let refusal = refusal.clone();
            frame::encode(&Frame::Refuse { stream, refusal }, out);
            return Turn::Forget;
        }
        Phase::Granting => {
            let credit = window;
            frame::encode(&Frame::Accept { stream, credit }, out);
            entry.phase = Phase::Open;
        }
        Phase::Refused(_) | Phase::Offered | Phase::Open => {}
    }
    if entry.handle == Handle::Dropped {
        frame::encode(&Frame::Reset { stream }, out);
        return Turn::Forget;
    }
    if entry.peer_reset || !matches!(entry.phase, Phase::Open) {
        return Turn::Done;
    }
    if !entry.peer_fin && entry.unacknowledged >= window / 2 {
        let bytes = mem::take(&mut entry.unacknowledged);
        entry.allowance = entry.allowance.saturating_add(bytes);
        frame::encode(&Frame::Credit { stream, bytes }, out);
    }
    let may_send = usize::try_from(entry.credit).unwrap_or(usize::MAX);
    let n = entry.unsent.len().min(MAX_PAYLOAD).min(may_send);
    if n > 0 {
        let bytes = &entry.unsent[..n];
        frame::encode(&Frame::Data { stream, bytes }, out);
        entry.unsent.advance(n);
        entry.credit -= n as u64;
        if entry.fin == Fin::No {
            wake(&mut entry.writer);
        }
    }
    if !entry.unsent.is_empty() {
        return if entry.credit > 0 {
            Turn::Again
        } else {
            Turn::Done
        };
    }
    if entry.fin == Fin::Due {
        frame::encode(&Frame::Fin { stream }, out);
        entry.fin = Fin::Sent;
        wake(&mut entry.writer);
    }
    Turn::Done
}
