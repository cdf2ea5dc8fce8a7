//! What a client that reconnects owes and holds, without I/O: events in, actions out.
//!
//! ```text
//!            connected              all handles and doubts are settled
//!  ┌─ Down ───────────> Replaying ─────────────────────────────────────> Serving
//!  │   ^                    │                                               │
//!  │   └────────────────────┴────────────────── lost ───────────────────────┘
//!  └─ the patience of a call is over: it is answered with EIO
//! ```
//!
//! Callers have handles of this table, which stay; those of the server come and go with it. A
//! request that was not handed to a stream was not done. Of one that was, [`doubt`] decides.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    doubt::{Before, Doubt, Known, Sending, doubt, handle_of},
    handles::{Handles, Held},
};
use crate::sftp::{Errno, Field as _, FileId, Malformed, Metadata, Opened, Reply, Request, Target};

/// A request that several servers in a row did not survive is not for the next.
const ATTEMPTS: u32 = 16;

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action<A> {
    /// A request for the server.
    Send(u32, Request),
    /// An answer for who asked.
    Answer(A, Result<Reply, Errno>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    /// Handles are opened again and doubts looked at: so many answers are missing.
    Replaying(usize),
    Serving,
    Ended,
}

#[derive(Debug)]
struct Call<A> {
    request: Request,
    known: Known,
    asker: A,
    /// Since when it waits for a connection.
    waits: Option<Instant>,
    /// How often it was handed to a stream.
    sent: u32,
    /// Looks that are to come, when it is in doubt.
    looks: usize,
}

/// What a reply is to.
#[derive(Debug)]
enum Reason {
    Call(u64),
    Reopen(u64),
    Look(u64, Before),
    /// Something that is closed because nobody wants it.
    Nobody,
}

#[derive(Debug)]
pub(crate) struct Table<A> {
    phase: Phase,
    patience: Duration,
    /// Since when there is no connection.
    down: Option<Instant>,
    /// By age.
    calls: BTreeMap<u64, Call<A>>,
    next: u64,
    handles: Handles,
    /// What was sent on this stream.
    ids: HashMap<u32, Reason>,
    next_id: u32,
    actions: Vec<Action<A>>,
}

impl<A> Table<A> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            phase: Phase::Down,
            patience,
            down: None,
            calls: BTreeMap::new(),
            next: 0,
            handles: Handles::default(),
            ids: HashMap::new(),
            next_id: 0,
            actions: Vec::new(),
        }
    }

    pub(crate) fn actions(&mut self) -> std::vec::Drain<'_, Action<A>> {
        self.actions.drain(..)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    fn answer(&mut self, asker: A, result: Result<Reply, Errno>) {
        self.actions.push(Action::Answer(asker, result));
    }

    /// Somebody asks.
    pub(crate) fn call(&mut self, now: Instant, mut request: Request, known: Known, asker: A) {
        if self.phase == Phase::Ended {
            return self.answer(asker, Err(Errno::NotConnected));
        }
        if self.phase != Phase::Serving
            && matches!(request, Request::Changes {} | Request::Events {})
        {
            // Nobody watches anything: who asks must know that.
            return self.answer(asker, Err(Errno::NotConnected));
        }
        if let Some(result) = self.refuse(&mut request) {
            return self.answer(asker, result);
        }
        let ticket = self.next;
        self.next += 1;
        let serving = self.phase == Phase::Serving;
        let call = Call {
            request,
            known,
            asker,
            // When the connection has been away for long nobody waits.
            waits: (!serving).then_some(self.down.unwrap_or(now)),
            sent: u32::from(known.sending == Sending::Again),
            looks: 0,
        };
        self.calls.insert(ticket, call);
        match known.sending {
            _ if !serving => {}
            Sending::First => self.transmit(ticket),
            Sending::Again => self.examine(ticket),
        }
    }

    /// Sends what may have been done already, if it can be known that it was not.
    fn examine(&mut self, ticket: u64) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        let appends = |number: &Bytes| self.handles.appends(number);
        match doubt(&call.request, &call.known, appends) {
            Doubt::None => self.transmit(ticket),
            Doubt::Never => self.finish(ticket, Err(Errno::Io)),
            Doubt::Unless(before) => {
                call.looks = before.len();
                for (path, before) in before {
                    let target = Target::Path(path);
                    self.send(Reason::Look(ticket, before), Request::Look { target });
                }
            }
        }
    }

    /// The answer to a request on a handle that is of no use.
    fn refuse(&mut self, request: &mut Request) -> Option<Result<Reply, Errno>> {
        let number = handle_of(request)?.clone();
        match self.handles.get(&number) {
            None => Some(Err(Errno::BadHandle)),
            Some(handle) if handle.held == Held::Stale => {
                if matches!(request, Request::Close { .. }) {
                    self.handles.remove(&number);
                    Some(Ok(Reply::ok()))
                } else {
                    Some(Err(Errno::Stale))
                }
            }
            Some(_) => None,
        }
    }

    fn id(&mut self, reason: Reason) -> u32 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.ids.insert(id, reason);
        id
    }

    fn send(&mut self, reason: Reason, request: Request) {
        let id = self.id(reason);
        self.actions.push(Action::Send(id, request));
    }

    fn transmit(&mut self, ticket: u64) {
        let Some(call) = self.calls.get_mut(&ticket) else {
            return;
        };
        let mut request = call.request.clone();
        if let Some(number) = handle_of(&mut request) {
            match self.handles.get(number).map(|handle| &handle.held) {
                Some(Held::At(handle)) => *number = handle.clone(),
                // One that an earlier request in the queue has closed.
                _ => return self.finish(ticket, Err(Errno::BadHandle)),
            }
        }
        call.sent += 1;
        call.waits = None;
        self.send(Reason::Call(ticket), request);
    }

    fn finish(&mut self, ticket: u64, result: Result<Reply, Errno>) {
        if let Some(mut call) = self.calls.remove(&ticket) {
            if matches!(call.request, Request::Close { .. })
                && let Some(number) = handle_of(&mut call.request)
            {
                self.handles.remove(number);
            }
            self.answer(call.asker, result);
        }
    }

    /// Answers all that is asked of a handle that has become of no use.
    fn stale(&mut self) {
        let tickets: Vec<_> = self.calls.keys().copied().collect();
        for ticket in tickets {
            let Some(call) = self.calls.get_mut(&ticket) else {
                continue;
            };
            let close = matches!(call.request, Request::Close { .. });
            let lost = handle_of(&mut call.request)
                .and_then(|number| self.handles.get(number))
                .is_some_and(|handle| handle.held == Held::Stale);
            if lost {
                let result = if close {
                    Ok(Reply::ok())
                } else {
                    Err(Errno::Stale)
                };
                self.finish(ticket, result);
            }
        }
    }

    /// The stream is gone.
    pub(crate) fn lost(&mut self, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Down;
        let since = *self.down.get_or_insert(now);
        self.ids.clear();
        self.handles.lost();
        self.stale();
        let mut over = Vec::new();
        for (ticket, call) in &mut self.calls {
            call.waits.get_or_insert(since);
            call.looks = 0;
            match &call.request {
                Request::Changes {} | Request::Events {} => {
                    over.push((*ticket, Errno::NotConnected));
                }
                _ if call.sent >= ATTEMPTS => over.push((*ticket, Errno::Io)),
                _ => {}
            }
        }
        for (ticket, errno) in over {
            self.finish(ticket, Err(errno));
        }
    }

    /// Whoever is to be opened again, for those who know better paths.
    pub(crate) fn held(&self) -> Vec<(u64, FileId)> {
        self.handles.replayed().collect()
    }

    /// A new server is there. `paths` are where what is held may be found now.
    pub(crate) fn connected(&mut self, paths: &HashMap<u64, Bytes>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Replaying(0);
        let mut looks = Vec::new();
        let mut never = Vec::new();
        let mut renames = Vec::new();
        for (ticket, call) in &mut self.calls {
            if call.sent == 0 {
                continue;
            }
            match doubt(&call.request, &call.known, |number| {
                self.handles.appends(number)
            }) {
                Doubt::None => {}
                Doubt::Never => never.push(*ticket),
                Doubt::Unless(before) => {
                    call.looks = before.len();
                    looks.extend(before.into_iter().map(|look| (*ticket, look)));
                }
            }
            if is_rename(&call.request) {
                renames.push(call.request.clone());
            }
        }
        for number in self.handles.numbers() {
            self.handles.search(number, paths.get(&number), &renames);
            self.reopen(number);
        }
        for (ticket, (path, before)) in looks {
            let target = Target::Path(path);
            self.send(Reason::Look(ticket, before), Request::Look { target });
            self.outstanding(1);
        }
        for ticket in never {
            self.finish(ticket, Err(Errno::Io));
        }
        self.serve_when_settled();
    }

    fn outstanding(&mut self, more: usize) {
        if let Phase::Replaying(count) = &mut self.phase {
            *count += more;
        }
    }

    fn settled(&mut self) {
        if let Phase::Replaying(count) = &mut self.phase {
            *count = count.saturating_sub(1);
        }
        self.serve_when_settled();
    }

    fn serve_when_settled(&mut self) {
        if self.phase != Phase::Replaying(0) {
            return;
        }
        self.phase = Phase::Serving;
        self.down = None;
        let tickets: Vec<_> = self.calls.keys().copied().collect();
        for ticket in tickets {
            self.transmit(ticket);
        }
    }

    /// Asks for the next place where a handle's file may be.
    fn reopen(&mut self, number: u64) {
        match self.handles.next_place(number) {
            Some(request) => {
                self.send(Reason::Reopen(number), request);
                self.outstanding(1);
            }
            None => self.stale(),
        }
    }

    /// A reply is there.
    ///
    /// # Errors
    ///
    /// It makes no sense, and nor does the stream.
    pub(crate) fn reply(&mut self, id: u32, reply: Reply) -> Result<(), Malformed> {
        match self.ids.remove(&id) {
            None => return Err(Malformed),
            Some(Reason::Nobody) => {}
            Some(Reason::Reopen(number)) => {
                let opened = match reply {
                    Reply::Extended(mut body) => Some(Opened::take(&mut body)?),
                    _ => None,
                };
                if let Some(unwanted) = self.handles.found(number, opened) {
                    let handle = unwanted;
                    self.send(Reason::Nobody, Request::Close { handle });
                }
                if self.handles.is_searched(number) {
                    self.reopen(number);
                }
                self.settled();
            }
            Some(Reason::Look(ticket, before)) => {
                let as_before = match (before, reply) {
                    (Before::Missing, reply) => {
                        matches!(reply.errno(), Some(Errno::NotFound | Errno::NotADirectory))
                    }
                    (Before::Still(id), Reply::Extended(mut body)) => {
                        Metadata::take(&mut body)?.id == id
                    }
                    _ => false,
                };
                if !as_before {
                    self.finish(ticket, Err(Errno::Io));
                } else if let Some(call) = self.calls.get_mut(&ticket) {
                    call.looks = call.looks.saturating_sub(1);
                    if call.looks == 0 && self.phase == Phase::Serving {
                        self.transmit(ticket);
                    }
                }
                self.settled();
            }
            Some(Reason::Call(ticket)) => {
                let Some(call) = self.calls.get(&ticket) else {
                    return Ok(());
                };
                let reply = self.handles.keep(&call.request, reply)?;
                if reply.errno().is_none() {
                    self.handles.renamed(&call.request);
                }
                self.finish(ticket, Ok(reply));
            }
        }
        Ok(())
    }

    /// When the next call has waited long enough.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let waiting = self.calls.values().filter_map(|call| call.waits);
        waiting.min().map(|since| since + self.patience)
    }

    /// Those that have waited long enough fail.
    pub(crate) fn expire(&mut self, now: Instant) {
        let over = self.calls.iter().filter(|(_, call)| {
            (call.waits).is_some_and(|since| now.saturating_duration_since(since) >= self.patience)
        });
        let over: Vec<_> = over.map(|(ticket, _)| *ticket).collect();
        for ticket in over {
            // A handle that is closed meanwhile is not opened again.
            let close = (self.calls.get(&ticket))
                .is_some_and(|call| matches!(call.request, Request::Close { .. }));
            let result = if close {
                Ok(Reply::ok())
            } else {
                Err(Errno::Io)
            };
            self.finish(ticket, result);
        }
    }

    /// Nothing is asked or answered any more.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        let tickets: Vec<_> = self.calls.keys().copied().collect();
        for ticket in tickets {
            self.finish(ticket, Err(Errno::NotConnected));
        }
    }
}

fn is_rename(request: &Request) -> bool {
    matches!(
        request,
        Request::Move { .. } | Request::Rename { .. } | Request::PosixRename { .. }
    )
}

#[cfg(test)]
mod model;
