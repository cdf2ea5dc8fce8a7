//! A volume that another process has begun.

use std::sync::{Arc, Mutex, atomic::AtomicU64, mpsc::Sender};

use super::{Volume, lock, open_files::Held};
use crate::{
    client::{Client, File, Known, Sending},
    fuse::{
        inodes::{Inodes, Notice},
        journal::{Journal, Kept, Record},
        listing::Directory,
    },
    sftp::{Errno, Metadata, OpenFlags},
};

impl Volume {
    /// Goes on with what is written down. What is open is to be opened again then.
    pub(crate) fn resume(
        client: Client,
        root: Metadata,
        notices: Sender<Notice>,
        journal: Journal,
        records: &[Record],
    ) -> Self {
        let last = journal.handles.0.keys().max().copied().unwrap_or(0);
        Self {
            client,
            inodes: Mutex::new(Inodes::restore(root, records, journal)),
            notices: Mutex::new(notices),
            handles: Mutex::default(),
            next: AtomicU64::new(last + 1),
            // What an earlier process was replaying would be asked again as if it were to be done.
            replays: None,
            quiet: tokio::sync::Notify::new(),
        }
    }

    /// Opens what the kernel holds open.
    pub(crate) async fn reopen(self: &Arc<Self>) {
        let kept: Vec<_> = self.with(|inodes| {
            let kept = inodes.journal.as_ref().map(|journal| &journal.handles.0);
            let kept = kept.into_iter().flatten();
            kept.map(|(handle, kept)| (*handle, *kept)).collect()
        });
        for (handle, kept) in kept {
            let held = match kept {
                Kept::Directory { ino } => {
                    Held::Directory(Arc::new(tokio::sync::Mutex::new(Directory::new(ino))))
                }
                Kept::File {
                    ino,
                    flags,
                    unflushed,
                    ..
                } => match self.reopen_file(ino, flags).await {
                    Ok(file) => {
                        if unflushed {
                            // What was written may have died with the process.
                            file.fail(Errno::Io);
                        }
                        Held::File(file, ino)
                    }
                    Err(_) => Held::Lost,
                },
            };
            lock(&self.handles).insert(handle, held);
        }
        // Whatever changed meanwhile was told to nobody.
        self.with(Inodes::void);
    }

    async fn reopen_file(self: &Arc<Self>, ino: u64, flags: OpenFlags) -> Result<Arc<File>, Errno> {
        let (path, id) = self.with(|inodes| {
            let id = inodes.get(ino)?.id;
            Ok::<_, Errno>((inodes.path(ino)?, id))
        })?;
        let known = Known::default();
        let opened = self.client.open_with(&path, flags, None, 0, known).await?;
        if opened.metadata.id != id {
            drop(File::new(self.client.clone(), opened, |_| {}));
            return Err(Errno::Stale);
        }
        Ok(self.file_of(ino, opened).0)
    }

    /// Notes that something is written. What may have been appended already is refused.
    pub(super) fn begin_write(&self, handle: u64, sending: Sending) -> Result<(), Errno> {
        self.with(|inodes| {
            let Some(journal) = &mut inodes.journal else {
                return Ok(());
            };
            let Some(Kept::File {
                flags,
                unflushed,
                writes,
                ..
            }) = journal.handles.0.get_mut(&handle)
            else {
                return Ok(());
            };
            if sending == Sending::Again && flags.has(OpenFlags::APPEND) {
                return Err(Errno::Io);
            }
            *writes += 1;
            if !*unflushed {
                journal.note(&Record::Unflushed { handle });
            }
            Ok(())
        })
    }

    /// How often something was written.
    pub(super) fn writes(&self, handle: u64) -> u64 {
        self.with(|inodes| {
            let journal = inodes.journal.as_ref();
            match journal.and_then(|journal| journal.handles.0.get(&handle)) {
                Some(Kept::File { writes, .. }) => *writes,
                _ => 0,
            }
        })
    }

    /// Notes that everything of so many writes is at the server.
    pub(super) fn flushed(&self, handle: u64, by: u64) {
        self.with(|inodes| {
            let Some(journal) = &mut inodes.journal else {
                return;
            };
            if let Some(Kept::File {
                unflushed: true,
                writes,
                ..
            }) = journal.handles.0.get(&handle)
                && *writes == by
            {
                journal.note(&Record::Flushed { handle });
            }
        });
    }
}

impl Inodes {
    /// Writes down what has become so, before the kernel is told of it.
    pub(super) fn write_down(&mut self) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        let mut written = journal.commit();
        if written.is_ok() && journal.is_full() {
            written = journal.compact(&self.records());
        }
        match written {
            Ok(()) => self.journal = Some(journal),
            // This process goes on; another must not go on from something that is not so.
            Err(_) => journal.spoil(),
        }
    }
}
