//! Names in directories: listed, made, removed, given to others.

use std::{os::fd::AsFd as _, sync::PoisonError};

use bytes::Bytes;

use super::{Served, at, check_handle, eof};
use crate::{
    server::{
        path,
        protection::Doing,
        root::{Masking, Removal},
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
    let doing = match kind {
        Removal::Directory => Doing::RemoveDirectory,
        Removal::Other => Doing::Take,
    };
    let place = at(session, path, doing)?;
    session.share.writable()?.remove(&place, kind)?;
    Ok(Reply::ok())
}

pub(super) fn making(node: &NewNode) -> Doing {
    if *node == NewNode::Directory {
        Doing::MakeDirectory
    } else {
        Doing::Put
    }
}

pub(super) fn make(session: &Session, path: &Bytes, node: &NewNode, mode: u32) -> Served {
    let place = at(session, path, making(node))?;
    let creation = Creation { mode, owner: None };
    session
        .share
        .writable()?
        .make(&place, node, creation, Masking::Process)?;
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

pub(super) fn readlink(session: &Session, path: &Bytes) -> Served {
    let place = at(session, path, Doing::Look)?;
    let text = session.share.root.hold(&place)?.readlink()?;
    Ok(one_name(text.into()))
}

pub(super) fn rename(session: &Session, from: &Bytes, to: &Bytes, how: Rename) -> Served {
    let old = at(session, from, Doing::Take)?;
    let new = at(session, to, Doing::Put)?;
    if how == Rename::Exchange {
        at(session, from, Doing::Put)?;
        at(session, to, Doing::Take)?;
    }
    session.share.writable()?.rename(&old, &new, how)?;
    Ok(Reply::ok())
}

pub(super) fn link(session: &Session, from: &Target, to: &Bytes) -> Served {
    let writable = session.share.writable()?;
    let new = at(session, to, Doing::Put)?;
    match from {
        Target::Path(path) => writable.link(&at(session, path, Doing::LinkFrom)?, &new)?,
        Target::Handle(handle) => {
            let file = session.handles.file(handle)?;
            check_handle(session, handle, Doing::LinkFrom)?;
            writable.link_open(file.fd.as_fd(), &new)?;
        }
    }
    Ok(Reply::ok())
}
