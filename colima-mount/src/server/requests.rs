//! What each request does. Everything here may block.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rustix::io::Errno as Raw;

use super::{
    handles::{Held, OpenFile, Room},
    listing::Cursor,
    path::{self, Beneath},
    root::{self, Masking, Node, Removal, Root},
    session::{Dialect, Session},
};
use crate::sftp::{
    Attributes, Code, Creation, Errno, FileKind, MAX_PAYLOAD, MAX_STOCK_FRAME, MAX_STOCK_PAYLOAD,
    Metadata, Name, NewNode, NewTime, OpenFlags, Opened, Rename, Reply, Request, Statvfs, Target,
    Timestamp, Update, Version, Written,
};

/// Serves a request. `room` is there for those that open something.
pub(crate) fn serve(session: &Session, request: Request, room: Option<Room>) -> Reply {
    let served = match room {
        Some(room) => open(session, request, room),
        None => stock(session, request),
    };
    served.unwrap_or_else(|errno| session.failure(errno))
}

/// Bytes of content that come with an open, at most.
const FIRST: usize = 128 * 1024;

type Served = Result<Reply, Errno>;

fn eof() -> Reply {
    Reply::Status {
        status: Code::Eof as u32,
        text: Bytes::from_static(b"end of file"),
    }
}

fn at(path: &Bytes) -> Result<Beneath, Errno> {
    Beneath::new(path)
}

fn opened_by(path: &Bytes) -> Bytes {
    path::join(&path::normalise(path)).into()
}

fn open(session: &Session, request: Request, room: Room) -> Served {
    let root = &session.share.root;
    match request {
        Request::Opendir { path } => {
            let node = root.hold(&at(&path)?)?;
            let found = node.metadata()?;
            match found.kind() {
                FileKind::Directory => {}
                FileKind::Symlink => return Err(Errno::Symlink),
                _ => return Err(Errno::NotADirectory),
            }
            let cursor = Cursor::new(root.open_to_read(&node, &found)?)?;
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
    let path = at(path)?;
    let fd = if flags.changes() || creation.is_some() {
        session.share.writable()?.open(&path, flags, creation)?
    } else {
        let node = session.share.root.hold(&path)?;
        session.share.root.open_to_read(&node, &node.metadata()?)?
    };
    let metadata = root::metadata(fd.as_fd())?;
    let file = OpenFile { fd };
    Ok((Held::File(Arc::new(file)), metadata))
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
        Request::Lstat { path } => attributes(root, &path, Links::Themselves),
        Request::Stat { path } => attributes(root, &path, Links::Refused),
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
        Request::Readlink { path } => readlink(root, &path),
        Request::Rename { from, to } => rename(session, &from, &to, Rename::Keep),
        Request::PosixRename { from, to } => rename(session, &from, &to, Rename::Replace),
        Request::Hardlink { from, to } => link(session, &Target::Path(from), &to),
        Request::Statvfs { path } => at(&path).and_then(|path| statvfs(&root.hold(&path)?)),
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
            Ok(Reply::extended(&cursor.list(from, budget)?))
        }
        Request::Make {
            path,
            node,
            creation,
        } => {
            let place = at(&path)?;
            session
                .share
                .writable()?
                .make(&place, &node, creation, Masking::Exact)?;
            tell(&session.share.root.hold(&place)?)
        }
        Request::Link { from, to } => {
            link(session, &from, &to)?;
            tell(&session.share.root.hold(&at(&to)?)?)
        }
        Request::Set { target, update } => {
            match &target {
                Target::Path(path) => {
                    let writable = session.share.writable()?;
                    let node = session.share.root.hold(&at(path)?)?;
                    writable.set(&node, &update)?;
                    return tell(&node);
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
                after: root::metadata(file.fd.as_fd())?,
            }))
        }
        Request::GetXattr { target, name } => {
            on_proc_path(session, &target, |path| Root::get_xattr(path, &name))
                .map(|value| Reply::Data(value.into()))
        }
        Request::ListXattr { target } => {
            on_proc_path(session, &target, Root::list_xattr).map(|names| Reply::Data(names.into()))
        }
        Request::SetXattr {
            target,
            name,
            value,
            mode,
        } => {
            let writable = session.share.writable()?;
            on_proc_path(session, &target, |path| {
                writable.set_xattr(path, &name, &value, mode)
            })?;
            Ok(Reply::ok())
        }
        Request::RemoveXattr { target, name } => {
            let writable = session.share.writable()?;
            on_proc_path(session, &target, |path| writable.remove_xattr(path, &name))?;
            Ok(Reply::ok())
        }
        Request::Watch { path } => {
            let place = at(&path)?;
            let node = session.share.root.hold(&place)?;
            let found = node.metadata()?;
            if found.kind() != FileKind::Directory {
                return Err(Errno::NotADirectory);
            }
            session.watches.add(node.as_fd(), place, found.id)?;
            // Looked at again, so that nothing falls between the look and the watch.
            tell(&node)
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

fn tell(node: &Node) -> Served {
    Ok(Reply::extended(&node.metadata()?))
}

fn read(session: &Session, handle: &Bytes, offset: u64, length: u32) -> Served {
    let file = session.handles.file(handle)?;
    let limit = match session.dialect {
        Dialect::Stock => MAX_STOCK_PAYLOAD,
        Dialect::Ours => MAX_PAYLOAD,
    };
    let length = (length as usize).min(limit);
    if offset > i64::MAX as u64 {
        return Err(Errno::Invalid);
    }
    let data = read_at(&file, offset, length)?;
    if data.is_empty() && length > 0 {
        return Ok(eof());
    }
    Ok(Reply::Data(data.into()))
}

fn read_at(file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    // Zeros of a large size come from the kernel as they are touched.
    let mut data = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let position = offset.saturating_add(filled as u64);
        match rustix::io::pread(&file.fd, &mut data[filled..], position) {
            Err(Raw::INTR) => {}
            Err(error) if filled == 0 => return Err(error.into()),
            // What was read before the error is told now, the error when it is met again.
            Err(_) | Ok(0) => break,
            Ok(got) => filled += got,
        }
    }
    data.truncate(filled);
    Ok(data)
}

fn write(
    session: &Session,
    handle: &Bytes,
    offset: u64,
    data: &[u8],
) -> Result<(Arc<OpenFile>, Metadata), Errno> {
    let writable = session.share.writable()?;
    let file = session.handles.file(handle)?;
    if offset
        .checked_add(data.len() as u64)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Errno::TooBig);
    }
    let before = root::metadata(file.fd.as_fd())?;
    writable.write(file.fd.as_fd(), &before, offset, data)?;
    Ok((file, before))
}

/// What a request does about a path that is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// It is about the link.
    Themselves,
    /// It would be about what the link points to, which nobody but the client can know.
    Refused,
}

fn hold(root: &Root, path: &Bytes, links: Links) -> Result<Node, Errno> {
    let node = root.hold(&at(path)?)?;
    if links == Links::Refused && node.metadata()?.kind() == FileKind::Symlink {
        return Err(Errno::Symlink);
    }
    Ok(node)
}

fn attributes(root: &Root, path: &Bytes, links: Links) -> Served {
    let found = hold(root, path, links)?.metadata()?;
    Ok(Reply::Attributes(Attributes::from(&found)))
}

fn look(session: &Session, target: &Target) -> Result<Metadata, Errno> {
    match target {
        Target::Path(path) => session.share.root.hold(&at(path)?)?.metadata(),
        Target::Handle(handle) => match session.handles.get(handle)? {
            Held::File(file) => root::metadata(file.fd.as_fd()),
            Held::Directory(cursor) => cursor
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .metadata(),
        },
    }
}

fn update(attributes: &Attributes) -> Update {
    let time = |seconds: u32| {
        NewTime::At(Timestamp {
            seconds: seconds.into(),
            nanoseconds: 0,
        })
    };
    Update {
        size: attributes.size,
        mode: attributes.mode,
        user: attributes.owner.map(|(user, _)| user),
        group: attributes.owner.map(|(_, group)| group),
        accessed: attributes.times.map(|times| time(times.accessed)),
        modified: attributes.times.map(|times| time(times.modified)),
    }
}

fn set_path(session: &Session, path: &Bytes, update: &Update, links: Links) -> Served {
    let writable = session.share.writable()?;
    writable.set(&hold(&session.share.root, path, links)?, update)?;
    Ok(Reply::ok())
}

fn set_handle(session: &Session, handle: &Bytes, update: &Update) -> Served {
    let writable = session.share.writable()?;
    with_fd(session, handle, |fd| writable.set_open(fd, update))?;
    Ok(Reply::ok())
}

fn with_fd<T>(
    session: &Session,
    handle: &Bytes,
    f: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match session.handles.get(handle)? {
        Held::File(file) => f(file.fd.as_fd()),
        Held::Directory(cursor) => f(cursor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_fd()),
    }
}

fn on_proc_path<T>(
    session: &Session,
    target: &Target,
    f: impl FnOnce(&str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match target {
        Target::Path(path) => {
            let node = session.share.root.hold(&at(path)?)?;
            // Links have no such attributes, and pipes and devices are not asked.
            match node.metadata()?.kind() {
                FileKind::Regular | FileKind::Directory => f(&Root::proc_path(node.as_fd())),
                _ => Err(Errno::NotSupported),
            }
        }
        Target::Handle(handle) => with_fd(session, handle, |fd| f(&Root::proc_path(fd))),
    }
}

fn names(session: &Session, handle: &Bytes) -> Served {
    let cursor = session.handles.directory(handle)?;
    let names = cursor
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .names()?;
    Ok(if names.is_empty() {
        eof()
    } else {
        Reply::Names(names)
    })
}

fn remove(session: &Session, path: &Bytes, kind: Removal) -> Served {
    session.share.writable()?.remove(&at(path)?, kind)?;
    Ok(Reply::ok())
}

fn make(session: &Session, path: &Bytes, node: &NewNode, mode: u32) -> Served {
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

fn realpath(path: &Bytes) -> Served {
    if path.contains(&0) {
        return Err(Errno::Invalid);
    }
    Ok(one_name(path::absolute(path)))
}

fn readlink(root: &Root, path: &Bytes) -> Served {
    let text = root.hold(&at(path)?)?.readlink()?;
    Ok(one_name(text.into()))
}

fn rename(session: &Session, from: &Bytes, to: &Bytes, how: Rename) -> Served {
    session
        .share
        .writable()?
        .rename(&at(from)?, &at(to)?, how)?;
    Ok(Reply::ok())
}

fn link(session: &Session, from: &Target, to: &Bytes) -> Served {
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

fn fsync(session: &Session, handle: &Bytes) -> Served {
    with_fd(session, handle, |fd| Ok(rustix::fs::fsync(fd)?))?;
    Ok(Reply::ok())
}

fn statvfs(fd: &impl std::os::fd::AsFd) -> Served {
    let found = rustix::fs::fstatvfs(fd)?;
    let mut flags = 0;
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        flags |= 1;
    }
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        flags |= 2;
    }
    Ok(Reply::extended(&Statvfs {
        block_size: found.f_bsize,
        fragment_size: found.f_frsize,
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_available: found.f_bavail,
        files: found.f_files,
        files_free: found.f_ffree,
        files_available: found.f_favail,
        id: found.f_fsid,
        flags,
        name_max: found.f_namemax,
    }))
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
