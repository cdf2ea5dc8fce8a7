//! What is held open, under numbers that outlive the server's.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::doubt::{after_rename, normal};
use crate::sftp::{Field as _, FileId, Malformed, OpenFlags, Opened, Reply, Request};

/// What a handle is worth now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The server's handle.
    At(Bytes),
    /// It is to be opened again.
    Searched,
    /// What it was opened on cannot be had again.
    Stale,
}

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) held: Held,
    /// How to open it again; `None` for what has no identity or a position.
    again: Option<Again>,
}

#[derive(Debug)]
struct Again {
    /// Normalised; follows the client's own renames.
    path: Bytes,
    flags: OpenFlags,
    id: FileId,
    /// Where it may be, besides where it was looked for.
    places: VecDeque<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Handles {
    held: HashMap<u64, Handle>,
    next: u64,
}

fn number(handle: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(handle[..].try_into().ok()?))
}

impl Handles {
    pub(crate) fn get(&self, handle: &Bytes) -> Option<&Handle> {
        self.held.get(&number(handle)?)
    }

    pub(crate) fn remove(&mut self, handle: &Bytes) {
        if let Some(number) = number(handle) {
            self.held.remove(&number);
        }
    }

    pub(crate) fn appends(&self, handle: &Bytes) -> bool {
        // What is not known to have an offset of its own may append.
        match self.get(handle) {
            Some(Handle {
                again: Some(again), ..
            }) => again.flags.has(OpenFlags::APPEND),
            _ => true,
        }
    }

    /// Takes in what a request has opened, and gives the reply as the caller is to see it.
    ///
    /// # Errors
    ///
    /// The reply makes no sense.
    pub(crate) fn keep(&mut self, request: &Request, reply: Reply) -> Result<Reply, Malformed> {
        let (held, again, mut opened) = match (request, reply) {
            (Request::OpenFile { path, flags, .. }, Reply::Extended(mut body)) => {
                let opened = Opened::take(&mut body)?;
                let again = Again {
                    path: normal(path),
                    flags: flags.lasting(),
                    id: opened.metadata.id,
                    places: VecDeque::new(),
                };
                (opened.handle.clone(), Some(again), Some(opened))
            }
            (Request::Open { .. } | Request::Opendir { .. }, Reply::Handle(handle)) => {
                (handle, None, None)
            }
            (_, reply) => return Ok(reply),
        };
        let number = self.next;
        self.next += 1;
        let held = Held::At(held);
        self.held.insert(number, Handle { held, again });
        let number = Bytes::copy_from_slice(&number.to_be_bytes());
        Ok(match &mut opened {
            Some(opened) => {
                opened.handle = number;
                Reply::extended(opened)
            }
            None => Reply::Handle(number),
        })
    }

    /// Notes that the client itself has renamed.
    pub(crate) fn renamed(&mut self, request: &Request) {
        for handle in self.held.values_mut() {
            if let Some(again) = &mut handle.again
                && let Some(path) = after_rename(request, &again.path)
            {
                again.path = path;
            }
        }
    }

    /// The server's handles are gone.
    pub(crate) fn lost(&mut self) {
        for handle in self.held.values_mut() {
            if handle.held != Held::Stale {
                handle.held = match handle.again {
                    Some(_) => Held::Searched,
                    None => Held::Stale,
                };
            }
        }
    }

    /// Those that can be opened again.
    pub(crate) fn replayed(&self) -> impl Iterator<Item = (u64, FileId)> + '_ {
        let searched = self.held.iter().filter(|(_, it)| it.held == Held::Searched);
        searched.filter_map(|(number, it)| Some((*number, it.again.as_ref()?.id)))
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.replayed().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Decides where to look: by what somebody knows, by its last path, and where a rename that may have
    /// been done has put it.
    pub(crate) fn search(&mut self, number: u64, told: Option<&Bytes>, renames: &[Request]) {
        let Some(again) = (self.held.get_mut(&number)).and_then(|it| it.again.as_mut()) else {
            return;
        };
        let mut places = VecDeque::new();
        let mut add = |place: Bytes| {
            if !places.contains(&place) {
                places.push_back(place);
            }
        };
        for start in told.map(normal).into_iter().chain([again.path.clone()]) {
            add(start.clone());
            let mut at = start;
            for rename in renames {
                if let Some(path) = after_rename(rename, &at) {
                    add(path.clone());
                    at = path;
                }
            }
        }
        again.places = places;
    }

    /// The request that opens it at the next place; it is stale when there is none.
    pub(crate) fn next_place(&mut self, number: u64) -> Option<Request> {
        let handle = self.held.get_mut(&number)?;
        let again = handle.again.as_mut()?;
        let Some(path) = again.places.pop_front() else {
            handle.held = Held::Stale;
            return None;
        };
        again.path = path.clone();
        Some(Request::OpenFile {
            path,
            flags: again.flags,
            creation: None,
            first: 0,
        })
    }

    pub(crate) fn is_searched(&self, number: u64) -> bool {
        (self.held.get(&number)).is_some_and(|handle| handle.held == Held::Searched)
    }

    /// Takes in what was found at a place. Gives a handle of the server that is of no use.
    pub(crate) fn found(&mut self, number: u64, opened: Option<Opened>) -> Option<Bytes> {
        let opened = opened?;
        let Some(handle) = self.held.get_mut(&number) else {
            // It was closed meanwhile.
            return Some(opened.handle);
        };
        let same = (handle.again.as_ref()).is_some_and(|again| again.id == opened.metadata.id);
        if same && handle.held == Held::Searched {
            handle.held = Held::At(opened.handle);
            return None;
        }
        Some(opened.handle)
    }
}
