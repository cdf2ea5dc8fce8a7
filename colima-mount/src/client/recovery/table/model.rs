//! The table against a server that is replaced at any moment, under random events.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Action, Known, Table};
use crate::sftp::{
    Creation, Errno, Field as _, FileId, Metadata, NewNode, OpenFlags, Opened, Reply, Request,
    Target,
};

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A name is made; only one of several that make it can have made it.
    Make(u8),
    /// A file that is there from the beginning is removed.
    Remove(u8),
    Open(u8),
    /// A write through the handle that was opened last, if there is one.
    Write,
    Append,
    Look(u8),
    /// The server takes the next request.
    Serve,
    /// The next reply arrives.
    Deliver,
    Cut,
    Connect,
    /// So many milliseconds pass.
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..4u8).prop_map(Event::Make),
        2 => (0..4u8).prop_map(Event::Remove),
        1 => (0..4u8).prop_map(Event::Open),
        2 => Just(Event::Write),
        1 => Just(Event::Append),
        1 => (0..4u8).prop_map(Event::Look),
        8 => Just(Event::Serve),
        8 => Just(Event::Deliver),
        1 => Just(Event::Cut),
        2 => Just(Event::Connect),
        1 => (0..3000u16).prop_map(Event::Pass),
    ]
}

fn old(name: u8) -> Bytes {
    format!("old{name}").into()
}

fn id(inode: u64) -> FileId {
    FileId {
        device: 1,
        inode,
        birth: inode,
    }
}

/// A file system that is not replaced, and a server of it that is.
struct World {
    table: Table<usize>,
    names: BTreeMap<Bytes, u64>,
    next_inode: u64,
    connected: bool,
    handles: BTreeMap<Bytes, u64>,
    next_handle: u64,
    received: VecDeque<(u32, Request)>,
    replies: VecDeque<(u32, Reply)>,
    /// What was asked, and what came of it.
    calls: Vec<(Request, Option<Result<Reply, Errno>>)>,
    /// How often a call took effect, by what marks its request.
    effects: BTreeMap<Bytes, usize>,
    opened: Vec<(usize, Bytes)>,
    now: Instant,
}

/// What marks a request: the mode of a new node, the offset of a write, or the name.
fn mark(request: &Request) -> Bytes {
    match request {
        Request::Make { creation, .. } => format!("make {}", creation.mode).into(),
        Request::WriteTell { offset, .. } => format!("write {offset}").into(),
        Request::Remove { path } => path.clone(),
        _ => Bytes::new(),
    }
}

fn failure(errno: Errno) -> Reply {
    Reply::Status {
        status: errno.wire(),
        text: Bytes::new(),
    }
}

impl World {
    fn new() -> Self {
        let names = (0..4u8).map(|name| (old(name), u64::from(name) + 1));
        Self {
            table: Table::new(Duration::from_secs(5)),
            names: names.collect(),
            next_inode: 100,
            connected: false,
            handles: BTreeMap::new(),
            next_handle: 1000,
            received: VecDeque::new(),
            replies: VecDeque::new(),
            calls: Vec::new(),
            effects: BTreeMap::new(),
            opened: Vec::new(),
            now: Instant::now(),
        }
    }

    fn perform(&mut self) {
        for action in self.table.actions() {
            match action {
                Action::Send(id, request) => {
                    assert!(self.connected, "sent to nobody: {request:?}");
                    self.received.push_back((id, request));
                }
                Action::Answer(call, result) => {
                    let (request, answer) = &mut self.calls[call];
                    assert!(answer.is_none(), "answered twice: {request:?}");
                    if let (Request::OpenFile { .. }, Ok(Reply::Extended(body))) =
                        (&request, &result)
                    {
                        let opened = Opened::take(&mut body.clone()).unwrap();
                        self.opened.push((call, opened.handle));
                    }
                    *answer = Some(result);
                }
            }
        }
    }

    fn call(&mut self, request: Request, known: Known) {
        self.calls.push((request.clone(), None));
        let call = self.calls.len() - 1;
        self.table.call(self.now, request, known, call);
        self.perform();
    }

    fn metadata(&self, name: &Bytes) -> Option<Metadata> {
        Some(Metadata {
            id: id(*self.names.get(name)?),
            ..Metadata::default()
        })
    }

    fn effect(&mut self, request: &Request) {
        *self.effects.entry(mark(request)).or_default() += 1;
    }

    fn serve(&mut self) {
        let Some((number, request)) = self.received.pop_front() else {
            return;
        };
        let reply = match &request {
            Request::Look {
                target: Target::Path(path),
            } => match self.metadata(path) {
                Some(found) => Reply::extended(&found),
                None => failure(Errno::NotFound),
            },
            Request::Make { path, .. } if self.names.contains_key(path) => failure(Errno::Exists),
            Request::Make { path, .. } => {
                self.next_inode += 1;
                self.names.insert(path.clone(), self.next_inode);
                self.effect(&request);
                Reply::extended(&self.metadata(path).unwrap())
            }
            Request::Remove { path } => match self.names.remove(path) {
                Some(_) => {
                    self.effect(&request);
                    Reply::ok()
                }
                None => failure(Errno::NotFound),
            },
            Request::OpenFile { path, .. } => match self.metadata(path) {
                Some(metadata) => {
                    self.next_handle += 1;
                    let handle = Bytes::from(format!("server {}", self.next_handle));
                    self.handles.insert(handle.clone(), metadata.id.inode);
                    Reply::extended(&Opened {
                        handle,
                        metadata,
                        first: Bytes::new(),
                    })
                }
                None => failure(Errno::NotFound),
            },
            Request::WriteTell { handle, .. } => {
                assert!(
                    self.handles.contains_key(handle),
                    "a handle of another server"
                );
                self.effect(&request);
                Reply::ok()
            }
            Request::Close { .. } => Reply::ok(),
            other => unreachable!("{other:?}"),
        };
        self.replies.push_back((number, reply));
    }

    fn happen(&mut self, event: Event, number: u32) {
        match event {
            Event::Make(name) => {
                let request = Request::Make {
                    path: format!("new{name}").into(),
                    node: NewNode::Directory,
                    creation: Creation {
                        mode: number,
                        owner: None,
                    },
                };
                self.call(request, Known::default());
            }
            Event::Remove(name) => {
                let known = Known {
                    first: Some(id(u64::from(name) + 1)),
                    ..Known::default()
                };
                self.call(Request::Remove { path: old(name) }, known);
            }
            Event::Open(name) => {
                let append = if name == 3 {
                    OpenFlags::APPEND
                } else {
                    OpenFlags::READ
                };
                let request = Request::OpenFile {
                    path: old(name),
                    flags: OpenFlags::WRITE | append,
                    creation: None,
                    first: 0,
                };
                self.call(request, Known::default());
            }
            Event::Write | Event::Append => {
                let appends = matches!(event, Event::Append);
                let handle = self.opened.iter().rev().find(|(call, _)| {
                    let flags = match &self.calls[*call].0 {
                        Request::OpenFile { flags, .. } => *flags,
                        _ => OpenFlags::READ,
                    };
                    flags.has(OpenFlags::APPEND) == appends
                });
                if let Some((_, handle)) = handle {
                    let request = Request::WriteTell {
                        handle: handle.clone(),
                        offset: u64::from(number),
                        data: Bytes::from(if appends { "append" } else { "write" }),
                    };
                    self.call(request, Known::default());
                }
            }
            Event::Look(name) => {
                let target = Target::Path(old(name));
                self.call(Request::Look { target }, Known::default());
            }
            Event::Serve if self.connected => self.serve(),
            Event::Deliver if self.connected => {
                if let Some((number, reply)) = self.replies.pop_front() {
                    self.table.reply(number, reply).unwrap();
                    self.perform();
                }
            }
            Event::Cut if self.connected => {
                self.connected = false;
                self.received.clear();
                self.replies.clear();
                self.handles.clear();
                self.table.lost(self.now);
                self.perform();
            }
            Event::Connect if !self.connected => {
                self.connected = true;
                self.table.connected(&std::collections::HashMap::new());
                self.perform();
            }
            Event::Pass(milliseconds) => {
                self.now += Duration::from_millis(milliseconds.into());
                let due = self.table.next_expiry().is_some_and(|at| at <= self.now);
                let before = self
                    .calls
                    .iter()
                    .filter(|(_, answer)| answer.is_some())
                    .count();
                self.table.expire(self.now);
                self.perform();
                let after = self
                    .calls
                    .iter()
                    .filter(|(_, answer)| answer.is_some())
                    .count();
                assert_eq!(
                    due,
                    after > before,
                    "who is due is answered, and nobody else"
                );
            }
            _ => {}
        }
    }

    fn judge(&self) {
        for (request, answer) in &self.calls {
            let answer = answer.as_ref().expect("everything is answered");
            let effects = self.effects.get(&mark(request)).copied().unwrap_or(0);
            let errno = match answer {
                Ok(reply) => reply.errno(),
                Err(errno) => Some(*errno),
            };
            match (request, errno) {
                (Request::Make { .. }, None) => assert_eq!(effects, 1, "{request:?}"),
                (Request::Make { .. }, Some(Errno::Exists)) => assert_eq!(effects, 0),
                (Request::Make { .. }, Some(errno)) => {
                    assert_eq!(errno, Errno::Io);
                    assert!(effects <= 1);
                }
                // Of several that remove one file, one has.
                (Request::Remove { .. }, _) => assert!(effects <= 1),
                (Request::WriteTell { data, .. }, None) => {
                    assert!(effects >= 1);
                    assert!(data != "append" || effects == 1, "appended {effects} times");
                }
                (Request::WriteTell { data, .. }, Some(errno)) => {
                    assert!(matches!(errno, Errno::Io | Errno::Stale), "{errno:?}");
                    assert!(data != "append" || effects <= 1, "appended {effects} times");
                }
                _ => {}
            }
        }
        // Who is told that it removed a file has done so, and is the only one.
        for name in 0..4 {
            let request = Request::Remove { path: old(name) };
            let told = self.calls.iter().filter(|(asked, answer)| {
                *asked == request && matches!(answer, Some(Ok(reply)) if reply.errno().is_none())
            });
            let effects = self.effects.get(&old(name)).copied().unwrap_or(0);
            assert!(told.count() <= effects, "{name} was removed once");
        }
    }
}

proptest! {
    #[test]
    fn everything_is_answered_once_and_truly(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for (number, event) in (0..).zip(events) {
            world.happen(event, number);
        }
        // In the end there is a server that stays.
        world.happen(Event::Connect, 0);
        while !world.received.is_empty() || !world.replies.is_empty() {
            world.happen(Event::Serve, 0);
            world.happen(Event::Deliver, 0);
        }
        world.judge();
    }
}
