//! What becomes of a request whose answer was lost with its stream: it may have been done, or not.

use bytes::Bytes;

use crate::{
    server::path,
    sftp::{FileId, OpenFlags, Rename, Request, Target, XattrMode},
};

/// Whether a request may have been sent by somebody who is no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It was not.
    #[default]
    First,
    /// It may have been done already.
    Again,
}

/// What is known of a request, before it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) sending: Sending,
    /// What its only, or its first, name is.
    pub(crate) first: Option<FileId>,
    /// What its second name is.
    pub(crate) second: Option<FileId>,
}

impl Known {
    /// What is known of the names is nothing.
    #[cfg(feature = "fuse")]
    pub(crate) fn new(sending: Sending) -> Self {
        Self {
            sending,
            ..Self::default()
        }
    }
}

/// What a look at a path says if the request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing is there.
    Missing,
    /// It is still this file.
    Still(FileId),
}

/// Whether a request may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Twice is as good as once.
    None,
    /// If all of these are as before: then it was not done.
    Unless(Vec<(Bytes, Before)>),
    /// Nobody can know.
    Never,
}

/// `appends` tells whether a handle was opened for appending.
pub(crate) fn doubt(request: &Request, known: &Known, appends: impl Fn(&Bytes) -> bool) -> Doubt {
    let missing = |path: &Bytes| Doubt::Unless(vec![(path.clone(), Before::Missing)]);
    let still = |path: &Bytes, id: Option<FileId>| id.map(|id| (path.clone(), Before::Still(id)));
    match request {
        // To make what is there already is no second making.
        Request::OpenFile {
            path,
            flags,
            creation: Some(_),
            ..
        } if flags.has(OpenFlags::EXCLUSIVE) => missing(path),
        Request::Open { path, flags, .. }
            if flags.has(OpenFlags::EXCLUSIVE | OpenFlags::CREATE) =>
        {
            missing(path)
        }
        Request::Make { path, .. }
        | Request::Mkdir { path, .. }
        | Request::Symlink { path, .. }
        | Request::Link { to: path, .. }
        | Request::Hardlink { to: path, .. } => missing(path),
        Request::Remove { path } | Request::Rmdir { path } => {
            still(path, known.first).map_or(Doubt::Never, |look| Doubt::Unless(vec![look]))
        }
        Request::Move { from, to, rename } => {
            let first = still(from, known.first);
            let looks = match rename {
                // The old name is gone when it is done.
                Rename::Replace | Rename::Keep => first.map(|first| vec![first]),
                Rename::Exchange => {
                    (first.zip(still(to, known.second))).map(|(first, second)| vec![first, second])
                }
            };
            looks.map_or(Doubt::Never, Doubt::Unless)
        }
        Request::Rename { .. } | Request::PosixRename { .. } => Doubt::Never,
        Request::Write { handle, .. } | Request::WriteTell { handle, .. } if appends(handle) => {
            Doubt::Never
        }
        Request::SetXattr {
            mode: XattrMode::Set,
            ..
        } => Doubt::None,
        Request::SetXattr { .. } | Request::RemoveXattr { .. } => Doubt::Never,
        // Ranges that are cut out or put in: FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE of
        // linux/falloc.h.
        Request::Allocate { mode, .. } if mode & 0x28 != 0 => Doubt::Never,
        // They go on from where an earlier one has stopped.
        Request::Readdir { .. } | Request::List { from: None, .. } => Doubt::Never,
        Request::Unknown { .. } => Doubt::Never,
        _ => Doubt::None,
    }
}

/// The handle that a request uses.
pub(crate) fn handle_of(request: &mut Request) -> Option<&mut Bytes> {
    match request {
        Request::Close { handle }
        | Request::Read { handle, .. }
        | Request::Fstat { handle }
        | Request::Fsetstat { handle, .. }
        | Request::Readdir { handle }
        | Request::Fstatvfs { handle }
        | Request::Fsync { handle }
        | Request::List { handle, .. }
        | Request::Allocate { handle, .. }
        | Request::Write { handle, .. }
        | Request::WriteTell { handle, .. }
        | Request::Look {
            target: Target::Handle(handle),
        }
        | Request::Link {
            from: Target::Handle(handle),
            ..
        }
        | Request::Set {
            target: Target::Handle(handle),
            ..
        }
        | Request::GetXattr {
            target: Target::Handle(handle),
            ..
        }
        | Request::ListXattr {
            target: Target::Handle(handle),
        }
        | Request::SetXattr {
            target: Target::Handle(handle),
            ..
        }
        | Request::RemoveXattr {
            target: Target::Handle(handle),
            ..
        } => Some(handle),
        _ => None,
    }
}

/// A path as it is compared with others.
pub(crate) fn normal(path: &Bytes) -> Bytes {
    path::join(&path::normalise(path)).into()
}

/// Where a file of a path is after a request, if that renames it.
pub(crate) fn after_rename(request: &Request, path: &Bytes) -> Option<Bytes> {
    let (from, to, exchange) = match request {
        Request::Move { from, to, rename } => (from, to, *rename == Rename::Exchange),
        Request::Rename { from, to } | Request::PosixRename { from, to } => (from, to, false),
        _ => return None,
    };
    let (from, to) = (normal(from), normal(to));
    let moved = moved(path, &from, &to);
    if exchange {
        return moved.or_else(|| self::moved(path, &to, &from));
    }
    moved
}

/// The path when what it starts with has another name.
fn moved(path: &Bytes, from: &Bytes, to: &Bytes) -> Option<Bytes> {
    let rest = path.strip_prefix(&from[..])?;
    match rest.first() {
        None => Some(to.clone()),
        Some(b'/') => Some([to, rest].concat().into()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_renames_above_it() {
        let request = |rename| Request::Move {
            from: "/a/b".into(),
            to: "c".into(),
            rename,
        };
        let follow = |path: &'static str, rename| after_rename(&request(rename), &path.into());
        assert_eq!(follow("a/b", Rename::Replace), Some("c".into()));
        assert_eq!(follow("a/b/x/y", Rename::Replace), Some("c/x/y".into()));
        assert_eq!(follow("a/bc", Rename::Replace), None);
        assert_eq!(follow("c", Rename::Replace), None);
        assert_eq!(follow("c/d", Rename::Exchange), Some("a/b/d".into()));
    }

    #[test]
    fn what_cannot_be_proven_is_never_sent_again() {
        let id = FileId {
            device: 1,
            inode: 2,
            birth: 3,
        };
        let known = Known {
            first: Some(id),
            ..Known::default()
        };
        let remove = Request::Remove { path: "f".into() };
        let still = vec![("f".into(), Before::Still(id))];
        assert_eq!(doubt(&remove, &known, |_| false), Doubt::Unless(still));
        assert_eq!(doubt(&remove, &Known::default(), |_| false), Doubt::Never);
        let exchange = Request::Move {
            from: "f".into(),
            to: "g".into(),
            rename: Rename::Exchange,
        };
        assert_eq!(doubt(&exchange, &known, |_| false), Doubt::Never);
        let write = Request::Write {
            handle: "h".into(),
            offset: 0,
            data: "x".into(),
        };
        assert_eq!(doubt(&write, &known, |_| false), Doubt::None);
        assert_eq!(doubt(&write, &known, |_| true), Doubt::Never);
    }
}
