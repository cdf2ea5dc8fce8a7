//! Files and directories are opened.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Served, at, content::read_at};
use crate::{
    server::{
        handles::{Held, OpenFile, Room},
        listing::Cursor,
        path,
        protection::Doing,
        root::Masking,
        session::{Dialect, Session},
    },
    sftp::{Creation, Errno, FileKind, Metadata, OpenFlags, Opened, Reply, Request},
};

/// Bytes of content that come with an open, at most.
const FIRST: usize = 128 * 1024;

fn opened_by(path: &Bytes) -> Bytes {
    path::join(&path::normalise(path)).into()
}

pub(super) fn open(session: &Session, request: Request, room: Room) -> Served {
    let root = &session.share.root;
    match request {
        Request::Opendir { path } => {
            let node = root.hold(&at(session, &path, Doing::Look)?)?;
            let found = node.metadata()?;
            match found.kind() {
                FileKind::Directory => {}
                FileKind::Symlink => return Err(Errno::Symlink),
                _ => return Err(Errno::NotADirectory),
            }
            let cursor = {
                let hidden = session.share.protection.hidden_in(&opened_by(&path));
                Cursor::new(session.share.open_to_read(&node)?, hidden)?
            };
            let held = Held::Directory(Arc::new(Mutex::new(cursor)));
            Ok(Reply::Handle(session.handles.insert(
                held,
                opened_by(&path),
                room,
            )))
        }
        Request::Open {
            path,
            flags,
            attributes,
        } => {
            let creation = Creation {
                mode: attributes.mode.unwrap_or(0o666),
                owner: None,
            };
            let creation = flags
                .has(OpenFlags::CREATE)
                .then_some((creation, Masking::Process));
            let file = open_file(session, &path, flags, creation)?;
            Ok(Reply::Handle(session.handles.insert(
                file.0,
                opened_by(&path),
                room,
            )))
        }
        Request::OpenFile {
            path,
            flags,
            creation,
            first,
        } => {
            if session.dialect == Dialect::Stock {
                return Err(Errno::Unsupported);
            }
            let creation = creation.map(|creation| (creation, Masking::Exact));
            let (held, metadata) = open_file(session, &path, flags, creation)?;
            let first = match &held {
                Held::File(file) if first > 0 && metadata.kind() == FileKind::Regular => {
                    read_at(file, 0, (first as usize).min(FIRST)).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            let handle = session.handles.insert(held, opened_by(&path), room);
            Ok(Reply::extended(&Opened {
                handle,
                metadata,
                first: first.into(),
            }))
        }
        _ => Err(Errno::Unsupported),
    }
}

fn open_file(
    session: &Session,
    path: &Bytes,
    flags: OpenFlags,
    creation: Option<(Creation, Masking)>,
) -> Result<(Held, Metadata), Errno> {
    let doing = if creation.is_some() {
        Doing::Put
    } else if flags.changes() {
        Doing::Change
    } else {
        Doing::Look
    };
    let path = at(session, path, doing)?;
    if doing != Doing::Look && !session.share.protection.is_empty() {
        match session.share.root.hold(&path) {
            Ok(node) => session.share.check_names(&node.metadata()?)?,
            Err(Errno::NotFound) if creation.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    let fd = if flags.changes() || creation.is_some() {
        session.share.writable()?.open(&path, flags, creation)?
    } else {
        let node = session.share.root.hold(&path)?;
        session.share.open_to_read(&node)?
    };
    let metadata = session.share.see(&fd)?;
    let file = OpenFile { fd };
    Ok((Held::File(Arc::new(file)), metadata))
}
