//! What the kernel asks for: each request is a task of its own, so that none waits for another here.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fuser::{
    FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags as KernelFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    TimeOrNow, WriteFlags,
};

use super::{
    Adapter,
    answers::{attr, empty, entry, xattr},
    directories,
    replays::at,
    values::{
        attributes, bytes, creation, error, fopen, generation, major_minor, new_time, open_flags,
        sending,
    },
};
use crate::{
    fuse::volume::Removed,
    sftp::{Child, Errno, FileKind, Metadata, NewNode, OpenFlags, Rename, Update, XattrMode},
};

/// Bytes of one write of the kernel, and of one read.
const PIECE: u32 = 1024 * 1024;

/// What the kernel is asked for.
pub(super) fn agree(config: &mut KernelConfig) {
    for flag in [
        InitFlags::FUSE_ASYNC_READ,
        // Not FUSE_ATOMIC_O_TRUNC: with it the kernel asks us to empty a file before it looks whether it
        // is a program that runs, so that the open fails with ETXTBSY and the program is gone.
        InitFlags::FUSE_BIG_WRITES,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_MAX_PAGES,
        InitFlags::FUSE_CACHE_SYMLINKS,
        // Pages are dropped when we say so, not when the time of a file changes by our own write.
        InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        // The server clears setuid bits when it writes; the kernel need not ask before each write.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    ] {
        // An older kernel goes without.
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(PIECE);
    let _ = config.set_max_readahead(PIECE);
    let _ = config.set_max_background(128);
    let _ = config.set_congestion_threshold(96);
    let _ = config.set_time_granularity(Duration::from_nanos(1));
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        agree(config);
        Ok(())
    }

    fn lookup(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let place = at(parent, name);
        if let Some(found) = self.replayed_look(request, &place) {
            return entry(reply, found);
        }
        let name = bytes(name);
        self.spawn(request, |volume| async move {
            match volume.lookup(parent.0, name).await {
                Ok(Ok(found)) => entry(reply, Ok(found)),
                // A number of zero is a name that is not there, to be remembered for a time.
                Ok(Err(Some(valid))) => {
                    let nothing = attributes(0, &Metadata::default());
                    reply.entry_with_ttls(&valid, &valid, &nothing, Generation(0));
                }
                Ok(Err(None)) => reply.error(error(Errno::NotFound)),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn forget(&self, _: &fuser::Request, ino: INodeNo, times: u64) {
        self.volume.forget(ino.0, times);
    }

    fn getattr(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        _: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        if let Some(replays) = self.replaying(request) {
            let found = self.volume.with(|inodes| replays.attributes(inodes, ino.0));
            return attr(reply, ino.0, found.map(|found| (found, Duration::ZERO)));
        }
        self.spawn(request, |volume| async move {
            attr(reply, ino.0, volume.metadata(ino.0).await);
        });
    }

    fn setattr(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(replays) = self.replaying(request) {
            let found = self.volume.with(|inodes| replays.touch(inodes, ino.0));
            return attr(reply, ino.0, found.map(|found| (found, Duration::ZERO)));
        }
        let update = Update {
            size,
            mode: mode.map(|mode| mode & 0o7777),
            user,
            group,
            accessed: accessed.map(new_time),
            modified: modified.map(new_time),
        };
        self.spawn(request, |volume| async move {
            let handle = handle.map(|handle| handle.0);
            attr(reply, ino.0, volume.set(ino.0, handle, update).await);
        });
    }

    fn readlink(&self, request: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        self.spawn(request, |volume| async move {
            match volume.read_link(ino.0).await {
                Ok(text) => reply.data(&text),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn mknod(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        if let Some(made) = self.replayed_make(request, parent, name) {
            return entry(reply, made);
        }
        let (name, creation) = (bytes(name), creation(request, mode));
        let (major, minor) = major_minor(rdev);
        let node = match (Metadata {
            mode,
            ..Metadata::default()
        })
        .kind()
        {
            FileKind::Fifo => NewNode::Fifo,
            FileKind::Socket => NewNode::Socket,
            FileKind::CharacterDevice => NewNode::CharacterDevice { major, minor },
            FileKind::BlockDevice => NewNode::BlockDevice { major, minor },
            _ => NewNode::Regular,
        };
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            entry(
                reply,
                volume.make(parent.0, name, node, creation, sending).await,
            );
        });
    }

    fn mkdir(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        if let Some(made) = self.replayed_make(request, parent, name) {
            return entry(reply, made);
        }
        let (name, creation) = (bytes(name), creation(request, mode));
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            let made = volume
                .make(parent.0, name, NewNode::Directory, creation, sending)
                .await;
            entry(reply, made);
        });
    }

    fn unlink(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Some(removed) = self.replayed_remove(request, parent, name, Child::Other) {
            return empty(reply, removed);
        }
        let name = bytes(name);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(
                reply,
                volume.remove(parent.0, name, Removed::Other, sending).await,
            );
        });
    }

    fn rmdir(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Some(removed) = self.replayed_remove(request, parent, name, Child::Directory) {
            return empty(reply, removed);
        }
        let name = bytes(name);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(
                reply,
                volume
                    .remove(parent.0, name, Removed::Directory, sending)
                    .await,
            );
        });
    }

    fn symlink(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        if let Some(made) = self.replayed_make(request, parent, name) {
            return entry(reply, made);
        }
        let (name, target) = (bytes(name), bytes(target.as_os_str()));
        let creation = creation(request, 0o777);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            let node = NewNode::Symlink { target };
            entry(
                reply,
                volume.make(parent.0, name, node, creation, sending).await,
            );
        });
    }

    fn rename(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if let Some(replays) = self.replaying(request) {
            let (from, to) = (at(parent, name), at(new_parent, new_name));
            let renamed = self
                .volume
                .with(|inodes| replays.rename(inodes, &from, &to));
            return empty(reply, renamed);
        }
        let rename = if flags.is_empty() {
            Rename::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            Rename::Keep
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            Rename::Exchange
        } else {
            return reply.error(error(Errno::Invalid));
        };
        let (from, to) = ((parent.0, bytes(name)), (new_parent.0, bytes(new_name)));
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(reply, volume.rename(from, to, rename, sending).await);
        });
    }

    fn link(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = bytes(name);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            entry(reply, volume.link(ino.0, parent.0, name, sending).await);
        });
    }

    fn open(&self, request: &fuser::Request, ino: INodeNo, flags: KernelFlags, reply: ReplyOpen) {
        let flags = open_flags(flags.0);
        self.spawn(request, |volume| async move {
            match volume.open(ino.0, flags).await {
                Ok(open) => reply.opened(FileHandle(open.handle), fopen(flags, open)),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn create(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, flags) = (bytes(name), open_flags(flags));
        let creation = creation(request, mode);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            match volume
                .create(parent.0, name, flags, creation, sending)
                .await
            {
                Ok((entry, open)) => reply.created(
                    &entry.valid.min(entry.name_valid),
                    &attributes(entry.ino, &entry.metadata),
                    generation(&entry.metadata),
                    FileHandle(open.handle),
                    fopen(flags | OpenFlags::WRITE, open),
                ),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn read(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: KernelFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.spawn(request, |volume| async move {
            match volume.read(handle.0, offset, size as usize).await {
                Ok(data) => reply.data(&data),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn write(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: KernelFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = Bytes::copy_from_slice(data);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            match volume.write(handle.0, offset, &data, sending).await {
                Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn flush(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.spawn(request, |volume| async move {
            empty(reply, volume.flush(handle.0).await);
        });
    }

    fn fsync(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.spawn(request, |volume| async move {
            empty(reply, volume.sync(handle.0).await);
        });
    }

    fn release(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: KernelFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // The last reference may send what a mapping wrote, which needs the runtime.
        self.spawn(request, |volume| async move {
            volume.release(handle.0);
            reply.ok();
        });
    }

    fn opendir(&self, request: &fuser::Request, ino: INodeNo, _: KernelFlags, reply: ReplyOpen) {
        self.spawn(request, |volume| async move {
            match volume.open_directory(ino.0).await {
                Ok(open) => {
                    let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                    if open.keep {
                        flags |= FopenFlags::FOPEN_KEEP_CACHE;
                    }
                    reply.opened(FileHandle(open.handle), flags);
                }
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn readdir(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.spawn(request, |volume| async move {
            match directories::fill(&volume, handle.0, offset, &mut reply).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.spawn(request, |volume| async move {
            match directories::fill_with_metadata(&volume, handle.0, offset, &mut reply).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn releasedir(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: KernelFlags,
        reply: ReplyEmpty,
    ) {
        self.spawn(request, |volume| async move {
            if let Ok(directory) = volume.directory(handle.0) {
                directory.lock().await.close(&volume);
            }
            volume.release(handle.0);
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.spawn(request, |volume| async move {
            empty(reply, volume.sync_directory(ino.0).await);
        });
    }

    fn statfs(&self, request: &fuser::Request, ino: INodeNo, reply: ReplyStatfs) {
        self.spawn(request, |volume| async move {
            match volume.space(ino.0).await {
                Ok(space) => {
                    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                    reply.statfs(
                        space.blocks,
                        space.blocks_free,
                        space.blocks_available,
                        space.files,
                        space.files_free,
                        small(space.block_size),
                        small(space.name_max),
                        small(space.fragment_size),
                    );
                }
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn setxattr(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (bytes(name), Bytes::copy_from_slice(value));
        // XATTR_CREATE and XATTR_REPLACE of linux/xattr.h.
        let mode = match flags {
            0 => XattrMode::Set,
            1 => XattrMode::Create,
            2 => XattrMode::Replace,
            _ => return reply.error(error(Errno::Invalid)),
        };
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(
                reply,
                volume.set_xattr(ino.0, name, value, mode, sending).await,
            );
        });
    }

    fn getxattr(
        &self,
        request: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        // What the server would refuse is refused here: ls asks for some of these for every file.
        if !name.as_bytes().starts_with(b"user.") {
            return reply.error(error(Errno::NotSupported));
        }
        let name = bytes(name);
        self.spawn(request, |volume| async move {
            xattr(reply, size, volume.get_xattr(ino.0, name).await);
        });
    }

    fn listxattr(&self, request: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.spawn(request, |volume| async move {
            xattr(reply, size, volume.list_xattr(ino.0).await);
        });
    }

    fn removexattr(&self, request: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(reply, volume.remove_xattr(ino.0, name, sending).await);
        });
    }

    fn fallocate(
        &self,
        request: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Ok(mode) = u32::try_from(mode) else {
            return reply.error(error(Errno::NotSupported));
        };
        let sending = sending(request);
        self.spawn(request, |volume| async move {
            empty(
                reply,
                volume
                    .allocate(handle.0, mode, offset, length, sending)
                    .await,
            );
        });
    }
}
