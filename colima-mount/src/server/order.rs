//! Which requests may run beside each other.
//!
//! The draft asks for results as if requests on the same file ran one after another, in the order in
//! which they came, and leaves the rest free. A request claims files by path and handles by number;
//! a claim to change conflicts with any claim on the same thing, on what it lies in and on what
//! lies in it. A request runs when no earlier one conflicts with it.

use bytes::Bytes;

use crate::sftp::{Request, Target};

/// How a thing is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Beside others of the kind.
    Look,
    /// Alone.
    Change,
}

/// What is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A file, by its normalised path: components with `/` between them, none in front.
    Path(Bytes),
    /// An open file, by its handle.
    Handle(Bytes),
}

/// All that a request uses; at most two paths and a handle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims(Vec<(Thing, Use)>);

impl Claims {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.0.iter().any(|(mine, how)| {
            other.0.iter().any(|(theirs, also)| {
                (*how == Use::Change || *also == Use::Change) && mine.touches(theirs)
            })
        })
    }
}

impl Thing {
    fn touches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Handle(mine), Self::Handle(theirs)) => mine == theirs,
            (Self::Path(mine), Self::Path(theirs)) => {
                let (short, long) = if mine.len() <= theirs.len() {
                    (mine, theirs)
                } else {
                    (theirs, mine)
                };
                long.starts_with(short)
                    && (short.is_empty() || long.len() == short.len() || long[short.len()] == b'/')
            }
            _ => false,
        }
    }
}

/// What a request uses. `path_of` tells the path that a handle was opened by, so that what is written
/// through a handle is ordered with what is asked by path.
pub(crate) fn claims(request: &Request, path_of: impl Fn(&Bytes) -> Option<Bytes>) -> Claims {
    use Use::{Change, Look};

    let mut claims = Claims::default();
    let mut path = |path: &Bytes, how| {
        let normal = Bytes::from(super::path::join(&super::path::normalise(path)));
        claims.0.push((Thing::Path(normal), how));
    };
    let mut held: Option<(&Bytes, Use)> = None;
    match request {
        Request::Open {
            path: at, flags, ..
        } => {
            path(at, if flags.changes() { Change } else { Look });
        }
        Request::OpenFile {
            path: at,
            flags,
            creation,
            ..
        } => {
            let changes = creation.is_some() || flags.has(crate::sftp::OpenFlags::TRUNCATE);
            path(at, if changes { Change } else { Look });
        }
        Request::Read { handle, .. }
        | Request::Fstat { handle }
        | Request::Fstatvfs { handle }
        | Request::Look {
            target: Target::Handle(handle),
        }
        | Request::GetXattr {
            target: Target::Handle(handle),
            ..
        }
        | Request::ListXattr {
            target: Target::Handle(handle),
        } => held = Some((handle, Look)),
        // The position in a directory is changed by reading it.
        Request::Close { handle }
        | Request::Readdir { handle }
        | Request::List { handle, .. }
        | Request::Write { handle, .. }
        | Request::WriteTell { handle, .. }
        | Request::Fsetstat { handle, .. }
        | Request::Fsync { handle }
        | Request::Allocate { handle, .. }
        | Request::Set {
            target: Target::Handle(handle),
            ..
        }
        | Request::SetXattr {
            target: Target::Handle(handle),
            ..
        }
        | Request::RemoveXattr {
            target: Target::Handle(handle),
            ..
        } => {
            held = Some((handle, Change));
        }
        Request::Lstat { path: at }
        | Request::Stat { path: at }
        | Request::Opendir { path: at }
        | Request::Readlink { path: at }
        | Request::Statvfs { path: at }
        | Request::Watch { path: at }
        | Request::Look {
            target: Target::Path(at),
        }
        | Request::GetXattr {
            target: Target::Path(at),
            ..
        }
        | Request::ListXattr {
            target: Target::Path(at),
        } => path(at, Look),
        Request::Setstat { path: at, .. }
        | Request::Lsetstat { path: at, .. }
        | Request::Remove { path: at }
        | Request::Mkdir { path: at, .. }
        | Request::Rmdir { path: at }
        | Request::Symlink { path: at, .. }
        | Request::Make { path: at, .. }
        | Request::Set {
            target: Target::Path(at),
            ..
        }
        | Request::SetXattr {
            target: Target::Path(at),
            ..
        }
        | Request::RemoveXattr {
            target: Target::Path(at),
            ..
        } => path(at, Change),
        Request::Rename { from, to }
        | Request::PosixRename { from, to }
        | Request::Hardlink { from, to }
        | Request::Move { from, to, .. }
        | Request::Link {
            from: Target::Path(from),
            to,
        } => {
            path(from, Change);
            path(to, Change);
        }
        Request::Link {
            from: Target::Handle(handle),
            to,
        } => {
            path(to, Change);
            held = Some((handle, Look));
        }
        Request::Realpath { .. }
        | Request::Limits {}
        | Request::Changes {}
        | Request::Events {}
        | Request::Unknown { .. } => {}
    }
    if let Some((handle, how)) = held {
        // A close changes no file, and the next names of a directory are nobody else's business.
        let quiet = matches!(
            request,
            Request::Close { .. } | Request::Readdir { .. } | Request::List { .. }
        );
        if let Some(at) = path_of(handle).filter(|_| !quiet) {
            claims.0.push((Thing::Path(at), how));
        }
        claims.0.push((Thing::Handle(handle.clone()), how));
    }
    claims
}

/// Requests that are running or waiting, oldest first.
#[derive(Debug)]
pub(crate) struct Order<T> {
    entries: Vec<Entry<T>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: u64,
    claims: Claims,
    /// Gone when it runs.
    waiting: Option<T>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            next: 0,
        }
    }
}

impl<T> Order<T> {
    /// Takes a request in. It comes back with its ticket if it may run at once.
    pub(crate) fn admit(&mut self, claims: Claims, request: T) -> Option<(u64, T)> {
        let ticket = self.next;
        self.next += 1;
        let blocked = self
            .entries
            .iter()
            .any(|entry| entry.claims.conflicts(&claims));
        let (waiting, ready) = if blocked {
            (Some(request), None)
        } else {
            (None, Some((ticket, request)))
        };
        self.entries.push(Entry {
            ticket,
            claims,
            waiting,
        });
        ready
    }

    /// Notes that a request is done, and gives those that may run now.
    pub(crate) fn done(&mut self, ticket: u64) -> Vec<(u64, T)> {
        let Some(at) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return Vec::new();
        };
        let gone = self.entries.remove(at);
        let mut ready = Vec::new();
        for index in at..self.entries.len() {
            let (before, rest) = self.entries.split_at_mut(index);
            let entry = &mut rest[0];
            if entry.waiting.is_some()
                && entry.claims.conflicts(&gone.claims)
                && !before
                    .iter()
                    .any(|other| other.claims.conflicts(&entry.claims))
            {
                ready.extend(entry.waiting.take().map(|request| (entry.ticket, request)));
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &Bytes) -> Option<Bytes> {
        None
    }

    fn mkdir(path: &'static str) -> Claims {
        let request = Request::Mkdir {
            path: path.into(),
            attributes: Default::default(),
        };
        claims(&request, none)
    }

    fn stat(path: &'static str) -> Claims {
        claims(&Request::Lstat { path: path.into() }, none)
    }

    #[test]
    fn what_lies_in_a_change_waits_for_it() {
        assert!(mkdir("/a").conflicts(&stat("a/b")));
        assert!(mkdir("/a").conflicts(&mkdir("/a/b/../c")));
        assert!(mkdir("/a/b").conflicts(&stat("/a")), "its time changes");
        assert!(mkdir("/a").conflicts(&stat("/")));
        assert!(!mkdir("/a").conflicts(&stat("/ab")));
        assert!(!mkdir("/a/b").conflicts(&mkdir("/a/c")));
        assert!(!stat("/a").conflicts(&stat("/a")));
    }

    #[test]
    fn requests_run_in_the_order_of_their_file_and_beside_others() {
        let mut order = Order::default();
        assert_eq!(order.admit(mkdir("a"), 'a'), Some((0, 'a')));
        assert_eq!(order.admit(mkdir("a/b"), 'b'), None);
        assert_eq!(order.admit(stat("a/b/c"), 'c'), None);
        assert_eq!(order.admit(stat("x"), 'x'), Some((3, 'x')));
        assert_eq!(order.admit(stat("a/b/d"), 'd'), None);
        assert_eq!(order.done(3), []);
        assert_eq!(order.done(0), [(1, 'b')]);
        assert_eq!(order.done(1), [(2, 'c'), (4, 'd')]);
        assert_eq!(order.done(2), []);
        assert_eq!(order.done(4), []);
        assert!(order.entries.is_empty());
    }

    #[test]
    fn what_is_written_is_seen_by_path() {
        let opened_by = |_: &Bytes| Some(Bytes::from_static(b"a/f"));
        let write = Request::Write {
            handle: Bytes::from_static(b"h"),
            offset: 0,
            data: Bytes::new(),
        };
        assert!(claims(&write, opened_by).conflicts(&stat("/a/f")));
        let read = Request::Read {
            handle: Bytes::from_static(b"h"),
            offset: 0,
            length: 1,
        };
        assert!(!claims(&read, opened_by).conflicts(&stat("/a/f")));
        assert!(claims(&read, opened_by).conflicts(&claims(&write, opened_by)));
    }
}
