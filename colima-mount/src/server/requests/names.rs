//! Names in directories: listed, made, removed, given to others.

use std::{os::fd::AsFd as _, sync::PoisonError};

use bytes::Bytes;

use super::{Served, at, eof};
use crate::{
    server::{
        path,
        root::{Masking, Removal, Root},
        session::Session,
    },
    sftp::{Attributes, Creation, Errno, Name, NewNode, Rename, Reply, Target},
};

pub(super) fn names(session: &Session, handle: &Bytes) -> Served {
    let cursor = session.handles.directory(handle)?;
    let names = cursor
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .names(&session.share)?;
    Ok(if names.is_empty() {
        eof()
    } else {
        Reply::Names(names)
    })
}

pub(super) fn remove(session: &Session, path: &Bytes, kind: Removal) -> Served {
    session.share.writable()?.remove(&at(path)?, kind)?;
    Ok(Reply::ok())
}

pub(super) fn make(session: &Session, path: &Bytes, node: &NewNode, mode: u32) -> Served {
    let creation = Creation { mode, owner: None };
    session
        .share
        .writable()?
        .make(&at(path)?, node, creation, Masking::Process)?;
    Ok(Reply::ok())
}

fn one_name(name: Bytes) -> Reply {
    Reply::Names(vec![Name {
        line: name.clone(),
        name,
        attributes: Attributes::default(),
    }])
}

pub(super) fn realpath(path: &Bytes) -> Served {
    if path.contains(&0) {
        return Err(Errno::Invalid);
    }
    Ok(one_name(path::absolute(path)))
}

pub(super) fn readlink(root: &Root, path: &Bytes) -> Served {
    let text = root.hold(&at(path)?)?.readlink()?;
    Ok(one_name(text.into()))
}

pub(super) fn rename(session: &Session, from: &Bytes, to: &Bytes, how: Rename) -> Served {
    session
        .share
        .writable()?
        .rename(&at(from)?, &at(to)?, how)?;
    Ok(Reply::ok())
}

pub(super) fn link(session: &Session, from: &Target, to: &Bytes) -> Served {
    let writable = session.share.writable()?;
    match from {
        Target::Path(path) => writable.link(&at(path)?, &at(to)?)?,
        Target::Handle(handle) => {
            let file = session.handles.file(handle)?;
            writable.link_open(file.fd.as_fd(), &at(to)?)?;
        }
    }
    Ok(Reply::ok())
}
