//! The only module that knows fuser: requests of the kernel to a [`Volume`], each as a task of its own.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fuser::{
    Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags as KernelFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, SessionACL, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::{
    MountOptions, Who,
    inodes::{Entry, Notice, Trust},
    volume::{Open, Removed, Volume},
};
use crate::sftp::{
    Creation, Errno, FileKind, Metadata, NewNode, NewTime, OpenFlags, Owner, Rename, Timestamp,
    Update, XattrMode,
};

pub(super) use fuser::{BackgroundSession, Notifier};

/// Bytes of one write of the kernel, and of one read.
const PIECE: u32 = 1024 * 1024;

/// Mounts, and serves the kernel on threads of its own.
pub(super) fn mount(
    volume: Arc<Volume>,
    runtime: Handle,
    path: &Path,
    options: &MountOptions,
) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.name.clone()),
        MountOption::Subtype("colima".into()),
        MountOption::DefaultPermissions,
        // Never for what another machine stores.
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = match options.who {
        Who::Everybody => SessionACL::All,
        Who::Owner => SessionACL::Owner,
    };
    // Threads only take requests over; more than two would wait for each other.
    config.n_threads = Some(2);
    config.clone_fd = true;
    let adapter = Adapter { volume, runtime };
    fuser::Session::new(adapter, path, &config)?.spawn()
}

/// Tells the kernel what to forget, until there is nobody left who would know.
///
/// On a thread of its own: the kernel may keep a notice waiting until requests are answered.
pub(super) fn notify(notifier: &Notifier, notices: &std::sync::mpsc::Receiver<Notice>) {
    while let Ok(notice) = notices.recv() {
        // That the kernel does not know what it is to forget is as good.
        let _ = match notice {
            Notice::Name(parent, name) => {
                notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name))
            }
            Notice::Metadata(ino) => notifier.inval_inode(INodeNo(ino), -1, 0),
            Notice::Content(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
        };
    }
}

struct Adapter {
    volume: Arc<Volume>,
    runtime: Handle,
}

fn bytes(name: &OsStr) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.number().into())
}

fn time(time: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(time.nanoseconds.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    if time.seconds < 0 {
        UNIX_EPOCH - seconds + nanoseconds
    } else {
        UNIX_EPOCH + seconds + nanoseconds
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timestamp {
                    seconds,
                    nanoseconds: 0,
                },
                nanoseconds => Timestamp {
                    seconds: seconds - 1,
                    nanoseconds: 1_000_000_000 - nanoseconds,
                },
            }
        }
    }
}

fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(timestamp(time)),
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A device number as the kernel's FUSE protocol has it: `new_encode_dev` of linux/kdev_t.h.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

fn major_minor(device: u32) -> (u32, u32) {
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    )
}

fn attributes(ino: u64, metadata: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: metadata.size,
        blocks: metadata.blocks,
        atime: time(metadata.accessed),
        mtime: time(metadata.modified),
        ctime: time(metadata.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(metadata.kind()),
        perm: u16::try_from(metadata.mode & 0o7777).unwrap_or(0),
        nlink: metadata.links,
        uid: metadata.user,
        gid: metadata.group,
        rdev: device(metadata.device_major, metadata.device_minor),
        blksize: metadata.block_size,
        flags: 0,
    }
}

fn generation(metadata: &Metadata) -> Generation {
    Generation(metadata.id.birth)
}

fn open_flags(flags: i32) -> OpenFlags {
    let mut open = match flags & libc_flags::ACCMODE {
        libc_flags::WRONLY => OpenFlags::WRITE,
        libc_flags::RDWR => OpenFlags::READ | OpenFlags::WRITE,
        _ => OpenFlags::READ,
    };
    for (bit, flag) in [
        (libc_flags::APPEND, OpenFlags::APPEND),
        (libc_flags::TRUNC, OpenFlags::TRUNCATE),
        (libc_flags::EXCL, OpenFlags::EXCLUSIVE),
    ] {
        if flags & bit != 0 {
            open = open | flag;
        }
    }
    open
}

/// The numbers that the kernel's requests carry, from asm-generic/fcntl.h; they are the same on every
/// architecture that this runs on.
mod libc_flags {
    pub(super) const ACCMODE: i32 = 0o3;
    pub(super) const WRONLY: i32 = 0o1;
    pub(super) const RDWR: i32 = 0o2;
    pub(super) const EXCL: i32 = 0o200;
    pub(super) const TRUNC: i32 = 0o1000;
    pub(super) const APPEND: i32 = 0o2000;
}

fn fopen(flags: OpenFlags, open: Open) -> FopenFlags {
    let mut fopen = FopenFlags::empty();
    if open.keep {
        fopen |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    // Nothing was written through it, so its close has nothing to say.
    if !flags.changes() {
        fopen |= FopenFlags::FOPEN_NOFLUSH;
    }
    fopen
}

fn creation(request: &fuser::Request, mode: u32) -> Creation {
    Creation {
        mode: mode & 0o7777,
        owner: Some(Owner {
            user: request.uid(),
            group: request.gid(),
        }),
    }
}

fn entry(reply: ReplyEntry, result: Result<Entry, Errno>) {
    match result {
        Ok(entry) => reply.entry_with_ttls(
            &entry.valid,
            &entry.name_valid,
            &attributes(entry.ino, &entry.metadata),
            generation(&entry.metadata),
        ),
        Err(errno) => reply.error(error(errno)),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(error(errno)),
    }
}

fn attr(reply: ReplyAttr, ino: u64, result: Result<(Metadata, Duration), Errno>) {
    match result {
        Ok((metadata, valid)) => reply.attr(&valid, &attributes(ino, &metadata)),
        Err(errno) => reply.error(error(errno)),
    }
}

fn xattr(reply: ReplyXattr, size: u32, result: Result<Bytes, Errno>) {
    match result {
        Err(errno) => reply.error(error(errno)),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(error(Errno::Range)),
        },
    }
}

impl Adapter {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, f: impl FnOnce(Arc<Volume>) -> F) {
        self.runtime.spawn(f(Arc::clone(&self.volume)));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
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
        Ok(())
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = bytes(name);
        self.spawn(|volume| async move {
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

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.spawn(|volume| async move { attr(reply, ino.0, volume.metadata(ino.0).await) });
    }

    fn setattr(
        &self,
        _: &fuser::Request,
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
        let update = Update {
            size,
            mode: mode.map(|mode| mode & 0o7777),
            user,
            group,
            accessed: accessed.map(new_time),
            modified: modified.map(new_time),
        };
        self.spawn(|volume| async move {
            let handle = handle.map(|handle| handle.0);
            attr(reply, ino.0, volume.set(ino.0, handle, update).await);
        });
    }

    fn readlink(&self, _: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        self.spawn(|volume| async move {
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
        self.spawn(|volume| async move {
            entry(reply, volume.make(parent.0, name, node, creation).await);
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
        let (name, creation) = (bytes(name), creation(request, mode));
        self.spawn(|volume| async move {
            let made = volume
                .make(parent.0, name, NewNode::Directory, creation)
                .await;
            entry(reply, made);
        });
    }

    fn unlink(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        self.spawn(|volume| async move {
            empty(reply, volume.remove(parent.0, name, Removed::Other).await);
        });
    }

    fn rmdir(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        self.spawn(|volume| async move {
            empty(
                reply,
                volume.remove(parent.0, name, Removed::Directory).await,
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
        let (name, target) = (bytes(name), bytes(target.as_os_str()));
        let creation = creation(request, 0o777);
        self.spawn(|volume| async move {
            let node = NewNode::Symlink { target };
            entry(reply, volume.make(parent.0, name, node, creation).await);
        });
    }

    fn rename(
        &self,
        _: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
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
        self.spawn(|volume| async move { empty(reply, volume.rename(from, to, rename).await) });
    }

    fn link(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = bytes(name);
        self.spawn(|volume| async move {
            entry(reply, volume.link(ino.0, parent.0, name).await);
        });
    }

    fn open(&self, _: &fuser::Request, ino: INodeNo, flags: KernelFlags, reply: ReplyOpen) {
        let flags = open_flags(flags.0);
        self.spawn(|volume| async move {
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
        self.spawn(|volume| async move {
            match volume.create(parent.0, name, flags, creation).await {
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
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: KernelFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.spawn(|volume| async move {
            match volume.read(handle.0, offset, size as usize).await {
                Ok(data) => reply.data(&data),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn write(
        &self,
        _: &fuser::Request,
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
        self.spawn(|volume| async move {
            match volume.write(handle.0, offset, &data).await {
                Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn flush(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.spawn(|volume| async move { empty(reply, volume.flush(handle.0).await) });
    }

    fn fsync(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.spawn(|volume| async move { empty(reply, volume.sync(handle.0).await) });
    }

    fn release(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: KernelFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // The last reference may send what a mapping wrote, which needs the runtime.
        self.spawn(|volume| async move {
            volume.release(handle.0);
            reply.ok();
        });
    }

    fn opendir(&self, _: &fuser::Request, ino: INodeNo, _: KernelFlags, reply: ReplyOpen) {
        self.spawn(|volume| async move {
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
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.spawn(|volume| async move {
            let result = list(&volume, handle.0, offset, |position, ino, name, found| {
                let kind =
                    found.map_or(FileType::RegularFile, |(entry, _)| file_type(entry.kind()));
                Ok(reply.add(INodeNo(ino), position, kind, OsStr::from_bytes(name)))
            });
            match result.await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.spawn(|volume| async move {
            let adding = Arc::clone(&volume);
            let directory = volume.directory(handle.0);
            let parent = match directory {
                Ok(directory) => directory.lock().await.ino,
                Err(errno) => return reply.error(error(errno)),
            };
            let result = list(&volume, handle.0, offset, |position, ino, name, found| {
                let called = OsStr::from_bytes(name);
                let Some((metadata, trust)) = found.filter(|_| !is_dots(name)) else {
                    // Told without being known of.
                    let nothing = Metadata {
                        mode: found.map_or(0, |(metadata, _)| metadata.mode),
                        ..Metadata::default()
                    };
                    let attributes = attributes(ino, &nothing);
                    return Ok(reply.add(
                        INodeNo(0),
                        position,
                        called,
                        &Duration::ZERO,
                        &attributes,
                        Generation(0),
                    ));
                };
                let name = Bytes::copy_from_slice(name);
                let entry = adding.with(|inodes| inodes.found(parent, &name, metadata, trust));
                let full = reply.add(
                    INodeNo(entry.ino),
                    position,
                    called,
                    &entry.valid.min(entry.name_valid),
                    &attributes(entry.ino, &metadata),
                    generation(&metadata),
                );
                if full {
                    adding.forget(entry.ino, 1);
                }
                Ok(full)
            });
            match result.await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(error(errno)),
            }
        });
    }

    fn releasedir(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: KernelFlags,
        reply: ReplyEmpty,
    ) {
        self.spawn(|volume| async move {
            if let Ok(directory) = volume.directory(handle.0) {
                directory.lock().await.close(&volume);
            }
            volume.release(handle.0);
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.spawn(|volume| async move { empty(reply, volume.sync_directory(ino.0).await) });
    }

    fn statfs(&self, _: &fuser::Request, ino: INodeNo, reply: ReplyStatfs) {
        self.spawn(|volume| async move {
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
        _: &fuser::Request,
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
        self.spawn(|volume| async move {
            empty(reply, volume.set_xattr(ino.0, name, value, mode).await);
        });
    }

    fn getxattr(
        &self,
        _: &fuser::Request,
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
        self.spawn(|volume| async move {
            xattr(reply, size, volume.get_xattr(ino.0, name).await);
        });
    }

    fn listxattr(&self, _: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.spawn(|volume| async move { xattr(reply, size, volume.list_xattr(ino.0).await) });
    }

    fn removexattr(&self, _: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        self.spawn(|volume| async move {
            empty(reply, volume.remove_xattr(ino.0, name).await);
        });
    }

    fn fallocate(
        &self,
        _: &fuser::Request,
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
        self.spawn(|volume| async move {
            empty(reply, volume.allocate(handle.0, mode, offset, length).await);
        });
    }
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Gives entries of a directory from `offset` on to `add`, until it says that it is full.
async fn list(
    volume: &Arc<Volume>,
    handle: u64,
    offset: u64,
    mut add: impl FnMut(u64, u64, &[u8], Option<(Metadata, Trust)>) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    let directory = volume.directory(handle)?;
    let mut directory = directory.lock().await;
    directory.seek(offset);
    loop {
        let Some((found, trust)) = directory.entry(volume).await? else {
            return Ok(());
        };
        let mut metadata = found.metadata;
        if let Some(known) = &mut metadata {
            let behind = volume.with(|inodes| {
                let ino = inodes.by_id(known.id)?;
                inodes
                    .get(ino)
                    .ok()
                    .filter(|inode| inode.is_behind())
                    .map(|_| ino)
            });
            // Listed while it is being written here: the size is older than what the kernel knows.
            if let Some(ino) = behind {
                match volume.metadata(ino).await {
                    Ok((newer, _)) => *known = newer,
                    Err(_) => metadata = None,
                }
            }
        }
        let ino = metadata.map_or(u64::MAX, |metadata| {
            volume
                .with(|inodes| inodes.by_id(metadata.id))
                .unwrap_or(metadata.id.inode)
        });
        let told = metadata.map(|metadata| (metadata, trust));
        if add(found.cookie, ino, &found.name, told)? {
            return Ok(());
        }
        directory.advance();
        // What is at hand goes first: the kernel asks again for the rest.
        if !directory.has_next() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_on_both_sides_of_1970() {
        for (seconds, nanoseconds) in [(0, 0), (5, 7), (-1, 999_999_999), (-5, 0), (-5, 1)] {
            let there = Timestamp {
                seconds,
                nanoseconds,
            };
            assert_eq!(timestamp(time(there)), there);
        }
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(1, 3), (259, 70_000), (4095, 0xf_ffff)] {
            assert_eq!(major_minor(device(major, minor)), (major, minor));
        }
    }
}
