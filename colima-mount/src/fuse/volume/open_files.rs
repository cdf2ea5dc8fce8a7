//! Files and directories that the kernel holds open, by handle.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::{Volume, lock};
use crate::{
    client::{File, Known, Sending},
    fuse::{
        inodes::{Entry, Notice, Trust},
        journal::Record,
        listing::Directory,
    },
    sftp::{Creation, Errno, Happening, OpenFlags, Opened, Reply, Request, Version, Written},
};

/// Bytes that come with an open, in the hope that the file has no more.
const FIRST: u32 = 64 * 1024;

#[derive(Clone, Debug)]
pub(super) enum Held {
    File(Arc<File>, u64),
    /// A file that could not be had again.
    Lost,
    Directory(Arc<tokio::sync::Mutex<Directory>>),
}

/// An open file as the kernel is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) handle: u64,
    /// Whether the kernel's pages, or its copy of the listing, are still right.
    pub(crate) keep: bool,
}

impl Volume {
    fn hold(&self, held: Held, record: impl FnOnce(u64) -> Record) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.handles).insert(handle, held);
        self.with(|inodes| inodes.note(|| record(handle)));
        handle
    }

    pub(super) fn file(&self, handle: u64) -> Result<(Arc<File>, u64), Errno> {
        match lock(&self.handles).get(&handle) {
            Some(Held::File(file, ino)) => Ok((Arc::clone(file), *ino)),
            Some(Held::Lost) => Err(Errno::Io),
            _ => Err(Errno::BadHandle),
        }
    }

    pub(crate) fn directory(
        &self,
        handle: u64,
    ) -> Result<Arc<tokio::sync::Mutex<Directory>>, Errno> {
        match lock(&self.handles).get(&handle) {
            Some(Held::Directory(directory)) => Ok(Arc::clone(directory)),
            _ => Err(Errno::BadHandle),
        }
    }

    /// Drops a handle. What was written is at the server already: every close flushes.
    pub(crate) fn release(&self, handle: u64) {
        let held = lock(&self.handles).remove(&handle);
        self.with(|inodes| inodes.note(|| Record::Release { handle }));
        if let Some(Held::File(file, ino)) = held {
            drop(file);
            self.with(|inodes| {
                if let Ok(inode) = inodes.get_mut(ino) {
                    inode.files.retain(|file| file.strong_count() > 0);
                }
            });
        }
    }

    /// Waits until the server has everything that was written to an inode, through whichever handle.
    pub(crate) async fn settle(&self, ino: u64) {
        let files: Vec<_> = self.with(|inodes| {
            inodes
                .get(ino)
                .map(|inode| inode.open_files().collect())
                .unwrap_or_default()
        });
        for file in files {
            file.settle().await;
        }
    }

    fn keep_file(self: &Arc<Self>, ino: u64, opened: Opened, flags: OpenFlags) -> (u64, bool) {
        let (file, keep) = self.file_of(ino, opened);
        let flags = flags.lasting();
        let handle = self.hold(Held::File(file, ino), |handle| Record::Open {
            handle,
            ino,
            flags,
        });
        (handle, keep)
    }

    /// Begins to use what was opened. Gives whether the kernel's pages are still right.
    pub(super) fn file_of(self: &Arc<Self>, ino: u64, opened: Opened) -> (Arc<File>, bool) {
        let metadata = opened.metadata;
        let volume = Arc::downgrade(self);
        let file = Arc::new(File::new(self.client.clone(), opened, move |written| {
            if let Some(volume) = volume.upgrade() {
                volume.written(ino, written);
            }
        }));
        let keep = self.with(|inodes| {
            let Ok(inode) = inodes.get_mut(ino) else {
                return false;
            };
            let version = Version::from(&metadata);
            let keep = inode.pages == Some(version);
            // Without the flag the kernel drops its pages now.
            inode.pages = Some(version);
            inode.files.push(Arc::downgrade(&file));
            keep
        });
        (file, keep)
    }

    /// A write of the client itself was done.
    fn written(&self, ino: u64, written: &Written) {
        self.with(|inodes| {
            let trust = {
                let Ok(inode) = inodes.get_mut(ino) else {
                    return;
                };
                inode.did(written.after.changed);
                let known = Version::from(&inode.known);
                if written.after.changed < inode.known.changed {
                    // The answer of an earlier one.
                    return;
                }
                if known == written.before && inode.pages == Some(known) {
                    inode.pages = Some(Version::from(&written.after));
                } else if inode.pages.is_some() {
                    // Somebody else wrote in between.
                    inode.pages = None;
                    inodes.notices.push(Notice::Content(ino));
                }
                let above = inodes
                    .get(ino)
                    .ok()
                    .and_then(|inode| inode.names.last().cloned());
                above.map_or(Trust::Guess, |(parent, _)| inodes.trust(parent))
            };
            if trust == Trust::Told {
                let doing = (ino, Bytes::new(), Happening::Modified);
                inodes.echoes.note(doing);
            }
            let pages = inodes.get(ino).ok().and_then(|inode| inode.pages);
            if let Ok(inode) = inodes.get_mut(ino) {
                inode.pages = None;
            }
            inodes.learn(ino, written.after, trust);
            if let Ok(inode) = inodes.get_mut(ino) {
                inode.pages = pages;
            }
        });
    }

    pub(crate) async fn open(self: &Arc<Self>, ino: u64, flags: OpenFlags) -> Result<Open, Errno> {
        self.settle(ino).await;
        let (path, id, first) = self.with(|inodes| {
            let inode = inodes.get(ino)?;
            let cached = inode.pages.is_some() && inode.fresh().is_some();
            let wanted = !cached && !flags.changes() && inode.known.size > 0;
            Ok::<_, Errno>((inodes.path(ino), inode.id, if wanted { FIRST } else { 0 }))
        })?;
        let opened = self
            .client
            .open_with(&path?, flags, None, first, Known::default())
            .await?;
        if opened.metadata.id != id {
            drop(File::new(self.client.clone(), opened, |_| {}));
            return Err(Errno::Stale);
        }
        let metadata = opened.metadata;
        let (handle, keep) = self.keep_file(ino, opened, flags);
        if flags.has(OpenFlags::TRUNCATE) {
            self.with(|inodes| inodes.learn(ino, metadata, Trust::Guess));
        }
        Ok(Open { handle, keep })
    }

    pub(crate) async fn create(
        self: &Arc<Self>,
        parent: u64,
        name: Bytes,
        flags: OpenFlags,
        creation: Creation,
        sending: Sending,
    ) -> Result<(Entry, Open), Errno> {
        let path = self.with(|inodes| inodes.path_of(parent, &name))?;
        let known = Known::new(sending);
        let opened = self.own(
            vec![(parent, name.clone(), Happening::Created)],
            (self.client).open_with(&path, flags, Some(creation), 0, known),
        );
        let opened = opened.await?;
        let entry = self.made(parent, &name, opened.metadata);
        let (handle, keep) = self.keep_file(entry.ino, opened, flags);
        Ok((entry, Open { handle, keep }))
    }

    pub(crate) async fn read(
        &self,
        handle: u64,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, Errno> {
        let (file, ino) = self.file(handle)?;
        self.settle(ino).await;
        file.read_at(offset, length).await
    }

    pub(crate) async fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        sending: Sending,
    ) -> Result<(), Errno> {
        let (file, ino) = self.file(handle)?;
        self.begin_write(handle, sending)?;
        // What others that are open have read ahead is old now.
        self.with(|inodes| {
            if let Ok(inode) = inodes.get(ino) {
                inode.forget_ahead();
            }
        });
        file.write_at(offset, data).await
    }

    pub(crate) async fn flush(&self, handle: u64) -> Result<(), Errno> {
        let (file, _) = self.file(handle)?;
        let writes = self.writes(handle);
        let result = file.flush().await;
        if result.is_ok() {
            self.flushed(handle, writes);
        }
        result
    }

    pub(crate) async fn sync(&self, handle: u64) -> Result<(), Errno> {
        let (file, ino) = self.file(handle)?;
        self.settle(ino).await;
        let writes = self.writes(handle);
        let result = file.sync().await;
        // An error stays written down: if this process dies before the kernel has the answer, the kernel asks the
        // next one again, which has to tell it too.
        if result.is_ok() {
            self.flushed(handle, writes);
        }
        result
    }

    pub(crate) async fn allocate(
        &self,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
        sending: Sending,
    ) -> Result<(), Errno> {
        let (file, ino) = self.file(handle)?;
        self.settle(ino).await;
        let request = Request::Allocate {
            handle: file.handle().clone(),
            mode,
            offset,
            length,
        };
        file.forget_ahead();
        let known = Known::new(sending);
        let result = self.own(
            vec![(ino, Bytes::new(), Happening::Modified)],
            self.client.command_knowing(&request, known),
        );
        let result = result.await;
        self.with(|inodes| {
            if let Ok(inode) = inodes.get_mut(ino) {
                inode.pages = None;
            }
            inodes.doubt(ino);
        });
        result
    }

    pub(crate) async fn open_directory(&self, ino: u64) -> Result<Open, Errno> {
        // The names that come now are right for as long as changes are told.
        self.watch(ino).await?;
        let keep = self.with(|inodes| {
            let trust = inodes.trust(ino);
            let inode = inodes.get_mut(ino)?;
            let keep = trust == Trust::Told && inode.listed;
            inode.listed = trust == Trust::Told;
            Ok::<_, Errno>(keep)
        })?;
        let directory = Directory::new(ino);
        let held = Held::Directory(Arc::new(tokio::sync::Mutex::new(directory)));
        Ok(Open {
            handle: self.hold(held, |handle| Record::OpenDirectory { handle, ino }),
            keep,
        })
    }

    pub(crate) async fn sync_directory(&self, ino: u64) -> Result<(), Errno> {
        // The directory is opened again when the server that had it open is gone.
        const ATTEMPTS: usize = 4;
        let mut result = Err(Errno::Io);
        for _ in 0..ATTEMPTS {
            let path = self.with(|inodes| inodes.path(ino))?.into();
            let Reply::Handle(handle) = self.client.call(&Request::Opendir { path }).await? else {
                return Err(Errno::BadMessage);
            };
            let fsync = Request::Fsync {
                handle: handle.clone(),
            };
            result = self.client.command(&fsync).await;
            drop(self.client.call(&Request::Close { handle }));
            if result != Err(Errno::Stale) {
                break;
            }
        }
        result
    }
}
