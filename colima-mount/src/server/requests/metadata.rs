//! What is known about files, and changed about them.

use std::{os::fd::AsFd as _, sync::PoisonError};

use bytes::Bytes;

use super::{Served, at, check_handle, with_fd};
use crate::{
    server::{
        handles::Held,
        protection::Doing,
        root::{self, Node, Root},
        session::Session,
    },
    sftp::{
        Attributes, Errno, FileKind, Metadata, NewTime, Reply, Statvfs, Target, Timestamp, Update,
    },
};

/// What a request does about a path that is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// It is about the link.
    Themselves,
    /// It would be about what the link points to, which nobody but the client can know.
    Refused,
}

fn hold(session: &Session, path: &Bytes, links: Links, doing: Doing) -> Result<Node, Errno> {
    let node = session.share.root.hold(&at(session, path, doing)?)?;
    if links == Links::Refused && node.metadata()?.kind() == FileKind::Symlink {
        return Err(Errno::Symlink);
    }
    Ok(node)
}

pub(super) fn attributes(session: &Session, path: &Bytes, links: Links) -> Served {
    let node = hold(session, path, links, Doing::Look)?;
    let found = session.share.see(&node)?;
    Ok(Reply::Attributes(Attributes::from(&found)))
}

pub(super) fn look(session: &Session, target: &Target) -> Result<Metadata, Errno> {
    match target {
        Target::Path(path) => {
            let node = hold(session, path, Links::Themselves, Doing::Look)?;
            session.share.see(&node)
        }
        Target::Handle(handle) => match session.handles.get(handle)? {
            Held::File(file) => session.share.see(&file.fd),
            Held::Directory(cursor) => {
                let cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                session.share.see(&cursor.as_fd())
            }
        },
    }
}

pub(super) fn update(attributes: &Attributes) -> Update {
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

pub(super) fn set_path(session: &Session, path: &Bytes, update: &Update, links: Links) -> Served {
    let writable = session.share.writable()?;
    let node = hold(session, path, links, Doing::Change)?;
    session.share.check_names(&node.metadata()?)?;
    writable.set(&node, update)?;
    Ok(Reply::ok())
}

pub(super) fn set_handle(session: &Session, handle: &Bytes, update: &Update) -> Served {
    let writable = session.share.writable()?;
    check_handle(session, handle, Doing::Change)?;
    with_fd(session, handle, |fd| {
        session.share.check_names(&root::metadata(fd)?)?;
        writable.set_open(fd, update)
    })?;
    Ok(Reply::ok())
}

pub(super) fn on_proc_path<T>(
    session: &Session,
    target: &Target,
    doing: Doing,
    f: impl FnOnce(&str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match target {
        Target::Path(path) => {
            let node = hold(session, path, Links::Themselves, doing)?;
            if doing != Doing::Look {
                session.share.check_names(&node.metadata()?)?;
            }
            // Links have no such attributes, and pipes and devices are not asked.
            match session.share.see(&node)?.kind() {
                FileKind::Regular | FileKind::Directory => f(&Root::proc_path(node.as_fd())),
                _ => Err(Errno::NotSupported),
            }
        }
        Target::Handle(handle) => {
            check_handle(session, handle, doing)?;
            with_fd(session, handle, |fd| f(&Root::proc_path(fd)))
        }
    }
}

pub(super) fn statvfs(fd: &impl std::os::fd::AsFd) -> Served {
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
