//! What each request does. Everything here may block.

mod content;
mod metadata;
mod names;
mod opening;

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::PoisonError,
};

use bytes::Bytes;

use self::{
    content::{fsync, read, write},
    metadata::{Links, attributes, look, on_proc_path, set_handle, set_path, statvfs, update},
    names::{link, make, names, readlink, realpath, remove, rename},
    opening::open,
};
use super::{
    handles::{Held, Room},
    path::Beneath,
    protection::Doing,
    root::{Masking, Node, Removal, Root},
    session::{Dialect, Session},
};
use crate::sftp::{
    Attributes, Code, Errno, FileKind, MAX_PAYLOAD, MAX_STOCK_FRAME, MAX_STOCK_PAYLOAD, NewNode,
    Rename, Reply, Request, Target, Version, Written,
};

/// Serves a request. `room` is there for those that open something.
pub(crate) fn serve(session: &Session, request: Request, room: Option<Room>) -> Reply {
    let served = match room {
        Some(room) => open(session, request, room),
        None => stock(session, request),
    };
    served.unwrap_or_else(|errno| session.failure(errno))
}

type Served = Result<Reply, Errno>;

fn eof() -> Reply {
    Reply::Status {
        status: Code::Eof as u32,
        text: Bytes::from_static(b"end of file"),
    }
}

/// The place of a path, if that may be done to it.
fn at(session: &Session, path: &Bytes, doing: Doing) -> Result<Beneath, Errno> {
    let place = Beneath::new(path)?;
    session.share.protection.check(&place, doing)?;
    Ok(place)
}

/// Whether something may be done to what a handle stands for.
fn check_handle(session: &Session, handle: &Bytes, doing: Doing) -> Result<(), Errno> {
    let path = session.handles.path(handle).ok_or(Errno::BadHandle)?;
    session.share.protection.check_components(&path, doing)
}

/// Requests of version 3 and of OpenSSH; others are ours, if the client may ask them.
fn stock(session: &Session, request: Request) -> Served {
    let root = &session.share.root;
    match request {
        Request::Close { handle } => session.handles.remove(&handle).map(|_| Reply::ok()),
        Request::Read {
            handle,
            offset,
            length,
        } => read(session, &handle, offset, length),
        Request::Write {
            handle,
            offset,
            data,
        } => write(session, &handle, offset, &data).map(|_| Reply::ok()),
        Request::Lstat { path } => attributes(session, &path, Links::Themselves),
        Request::Stat { path } => attributes(session, &path, Links::Refused),
        Request::Fstat { handle } => look(session, &Target::Handle(handle))
            .map(|found| Reply::Attributes(Attributes::from(&found))),
        Request::Setstat { path, attributes } => {
            set_path(session, &path, &update(&attributes), Links::Refused)
        }
        Request::Lsetstat { path, attributes } => {
            set_path(session, &path, &update(&attributes), Links::Themselves)
        }
        Request::Fsetstat { handle, attributes } => {
            set_handle(session, &handle, &update(&attributes))
        }
        Request::Readdir { handle } => names(session, &handle),
        Request::Remove { path } => remove(session, &path, Removal::Other),
        Request::Rmdir { path } => remove(session, &path, Removal::Directory),
        Request::Mkdir { path, attributes } => {
            let mode = attributes.mode.unwrap_or(0o777);
            make(session, &path, &NewNode::Directory, mode)
        }
        Request::Symlink { target, path } => {
            make(session, &path, &NewNode::Symlink { target }, 0o777)
        }
        Request::Realpath { path } => realpath(&path),
        Request::Readlink { path } => readlink(session, &path),
        Request::Rename { from, to } => rename(session, &from, &to, Rename::Keep),
        Request::PosixRename { from, to } => rename(session, &from, &to, Rename::Replace),
        Request::Hardlink { from, to } => link(session, &Target::Path(from), &to),
        Request::Statvfs { path } => {
            at(session, &path, Doing::Look).and_then(|path| statvfs(&root.hold(&path)?))
        }
        Request::Fstatvfs { handle } => with_fd(session, &handle, |fd| statvfs(&fd)),
        Request::Fsync { handle } => fsync(session, &handle),
        Request::Limits {} => Ok(limits(session)),
        request if session.dialect == Dialect::Ours => ours(session, request),
        _ => Err(Errno::Unsupported),
    }
}

/// Requests of our own.
fn ours(session: &Session, request: Request) -> Served {
    match request {
        Request::Look { target } => look(session, &target).map(|found| Reply::extended(&found)),
        Request::List {
            handle,
            from,
            budget,
        } => {
            let cursor = session.handles.directory(&handle)?;
            let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(Reply::extended(&cursor.list(
                &session.share,
                from,
                budget,
            )?))
        }
        Request::Make {
            path,
            node,
            creation,
        } => {
            let place = at(session, &path, names::making(&node))?;
            session
                .share
                .writable()?
                .make(&place, &node, creation, Masking::Exact)?;
            tell(session, &session.share.root.hold(&place)?)
        }
        Request::Link { from, to } => {
            link(session, &from, &to)?;
            tell(
                session,
                &session.share.root.hold(&at(session, &to, Doing::Look)?)?,
            )
        }
        Request::Set { target, update } => {
            match &target {
                Target::Path(path) => {
                    let writable = session.share.writable()?;
                    let place = at(session, path, Doing::Change)?;
                    let node = session.share.root.hold(&place)?;
                    session.share.check_names(&node.metadata()?)?;
                    writable.set(&node, &update)?;
                    return tell(session, &node);
                }
                Target::Handle(handle) => set_handle(session, handle, &update)?,
            };
            look(session, &target).map(|found| Reply::extended(&found))
        }
        Request::Move {
            from,
            to,
            rename: how,
        } => rename(session, &from, &to, how),
        Request::WriteTell {
            handle,
            offset,
            data,
        } => {
            let (file, before) = write(session, &handle, offset, &data)?;
            Ok(Reply::extended(&Written {
                before: Version::from(&before),
                after: session.share.see(&file.fd)?,
            }))
        }
        Request::GetXattr { target, name } => on_proc_path(session, &target, Doing::Look, |path| {
            Root::get_xattr(path, &name)
        })
        .map(|value| Reply::Data(value.into())),
        Request::ListXattr { target } => {
            on_proc_path(session, &target, Doing::Look, Root::list_xattr)
                .map(|names| Reply::Data(names.into()))
        }
        Request::SetXattr {
            target,
            name,
            value,
            mode,
        } => {
            let writable = session.share.writable()?;
            on_proc_path(session, &target, Doing::Change, |path| {
                writable.set_xattr(path, &name, &value, mode)
            })?;
            Ok(Reply::ok())
        }
        Request::RemoveXattr { target, name } => {
            let writable = session.share.writable()?;
            on_proc_path(session, &target, Doing::Change, |path| {
                writable.remove_xattr(path, &name)
            })?;
            Ok(Reply::ok())
        }
        Request::Watch { path } => {
            let place = at(session, &path, Doing::Look)?;
            let node = session.share.root.hold(&place)?;
            let found = node.metadata()?;
            if found.kind() != FileKind::Directory {
                return Err(Errno::NotADirectory);
            }
            session.watches.add(node.as_fd(), place, found.id)?;
            // Looked at again, so that nothing falls between the look and the watch.
            tell(session, &node)
        }
        Request::Allocate {
            handle,
            mode,
            offset,
            length,
        } => {
            let writable = session.share.writable()?;
            let file = session.handles.file(&handle)?;
            writable.allocate(file.fd.as_fd(), mode, offset, length)?;
            Ok(Reply::ok())
        }
        _ => Err(Errno::Unsupported),
    }
}

fn tell(session: &Session, node: &Node) -> Served {
    Ok(Reply::extended(&session.share.see(node)?))
}

fn with_fd<T>(
    session: &Session,
    handle: &Bytes,
    f: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match session.handles.get(handle)? {
        Held::File(file) => f(file.fd.as_fd()),
        Held::Directory(cursor) => f(cursor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_fd()),
    }
}

fn limits(session: &Session) -> Reply {
    let (frame, payload) = match session.dialect {
        Dialect::Stock => (MAX_STOCK_FRAME, MAX_STOCK_PAYLOAD),
        Dialect::Ours => (crate::sftp::MAX_FRAME, MAX_PAYLOAD),
    };
    let numbers = [frame, payload, payload, session.limits.handles];
    let body: Vec<u8> = numbers
        .iter()
        .flat_map(|number| (*number as u64).to_be_bytes())
        .collect();
    Reply::Extended(body.into())
}
