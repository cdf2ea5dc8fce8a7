//! The operations of a file system, by number, over a [`Client`].

mod open_files;
mod resumption;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64, mpsc::Sender},
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::open_files::Held;
pub(crate) use self::open_files::Open;
use super::{
    coherence::trust_since,
    echoes::Doing,
    inodes::{Entry, Inodes, Notice, Trust, Watch},
    replay::Replays,
};
use crate::{
    client::{Client, Follow, Known, Sending},
    sftp::{
        Creation, Errno, FileId, FileKind, Happening, Metadata, NewNode, Rename, Request, Statvfs,
        Target, Update, Version, XattrMode,
    },
};

/// How long a server that has too many watches is not asked for more.
const REFUSED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) client: Client,
    inodes: Mutex<Inodes>,
    notices: Mutex<Sender<Notice>>,
    handles: Mutex<HashMap<u64, Held>>,
    next: AtomicU64,
    /// Host changes are done once more for watchers, if they are.
    pub(crate) replays: Option<Replays>,
    /// An operation that changes a file is over.
    quiet: tokio::sync::Notify,
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// An empty directory.
    Directory,
    /// Anything else.
    Other,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follow for Volume {
    fn lost(&self) {
        self.with(Inodes::void);
    }

    fn path(&self, id: FileId) -> Option<Bytes> {
        self.with(|inodes| Some(inodes.path(inodes.by_id(id)?).ok()?.into()))
    }
}

impl Volume {
    pub(crate) fn new(
        client: Client,
        root: Metadata,
        notices: Sender<Notice>,
        replays: Option<Replays>,
    ) -> Self {
        let mut inodes = Inodes::new(root);
        inodes.watchers = replays.is_some();
        Self {
            client,
            inodes: Mutex::new(inodes),
            notices: Mutex::new(notices),
            handles: Mutex::default(),
            next: AtomicU64::new(1),
            replays,
            quiet: tokio::sync::Notify::new(),
        }
    }

    /// Works on what is known, and sends the notices that come of it.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Inodes) -> T) -> T {
        let mut inodes = lock(&self.inodes);
        let result = f(&mut inodes);
        if !inodes.notices.is_empty() {
            let sender = lock(&self.notices);
            for notice in inodes.notices.drain(..) {
                // Nobody listens once the file system is gone.
                let _ = sender.send(notice);
            }
        }
        inodes.write_down();
        result
    }

    /// Has changes of a directory told, if they are not. Gives its epoch.
    pub(super) async fn watch(&self, ino: u64) -> Result<u64, Errno> {
        let (path, epoch) = {
            let asked = self.with(|inodes| {
                let path = inodes.path(ino)?;
                let inode = inodes.get_mut(ino)?;
                inode.want();
                let ask = match inode.watch {
                    Watch::Not => true,
                    Watch::Asked | Watch::Told => false,
                    Watch::Refused(until) => until <= Instant::now(),
                };
                if ask {
                    inode.watch = Watch::Asked;
                }
                Ok::<_, Errno>((ask.then_some(path), inode.epoch))
            })?;
            match asked {
                (None, epoch) => return Ok(epoch),
                (Some(path), epoch) => (path, epoch),
            }
        };
        let answer: Result<Metadata, _> =
            self.client.ask(&Request::Watch { path: path.into() }).await;
        self.with(|inodes| {
            let inode = inodes.get_mut(ino)?;
            inode.watch = match answer {
                Ok(found) if found.id == inode.id && inode.epoch == epoch => Watch::Told,
                Ok(_) | Err(Errno::NotFound | Errno::NotADirectory) => Watch::Not,
                Err(_) => Watch::Refused(Instant::now() + REFUSED),
            };
            Ok(inode.epoch)
        })
    }

    /// What a name is; `None` when it is not there, with how long that may be believed.
    pub(crate) async fn lookup(
        &self,
        parent: u64,
        name: Bytes,
    ) -> Result<Result<Entry, Option<Duration>>, Errno> {
        let epoch = self.watch(parent).await?;
        let path = self.with(|inodes| inodes.path_of(parent, &name))?;
        let child = self.with(|inodes| inodes.named(parent, &name).flatten());
        if let Some(child) = child {
            self.settle(child).await;
        }
        let target = Target::Path(path);
        let answer = self.client.ask(&Request::Look { target }).await;
        let mut found = self.with(|inodes| {
            let trust = trust_since(inodes, parent, epoch);
            match answer {
                Ok(metadata) => Ok(Ok(inodes.found(parent, &name, metadata, trust))),
                Err(Errno::NotFound) => Ok(Err(inodes.missing(parent, &name, trust))),
                // Nobody can be asked. If it failed here, the kernel would take what is mounted or worked
                // in below away; what is done with it then fails all the same.
                Err(Errno::Io) if !self.client.is_connected() => {
                    inodes.remembered(parent, &name).map(Ok).ok_or(Errno::Io)
                }
                Err(error) => Err(error),
            }
        });
        if self.replays.is_some()
            && let Ok(Ok(entry)) = &mut found
            && entry.metadata.kind() == FileKind::Directory
        {
            // Whoever looks for a directory may be about to watch it, which nobody tells us.
            let _ = self.watch(entry.ino).await;
            entry.name_valid = self.with(|inodes| {
                let trust = trust_since(inodes, parent, epoch);
                inodes.name_validity(entry.ino, trust)
            });
        }
        found
    }

    /// Does something that changes are told of to ourselves too.
    async fn own<T>(
        &self,
        doings: Vec<Doing>,
        operation: impl Future<Output = Result<T, Errno>>,
    ) -> Result<T, Errno> {
        if self.replays.is_none() {
            return operation.await;
        }
        let (number, doings) = self.with(|inodes| {
            let told =
                |inodes: &Inodes, (at, name, _): &Doing| match (name.is_empty(), inodes.get(*at)) {
                    (true, Ok(inode)) => {
                        let mut names = inode.names.iter();
                        names.any(|(parent, _)| inodes.trust(*parent) == Trust::Told)
                    }
                    _ => inodes.trust(*at) == Trust::Told,
                };
            let doings: Vec<_> = (doings.into_iter())
                .filter(|doing| told(inodes, doing))
                .collect();
            (inodes.echoes.begin(doings.clone()), doings)
        });
        let result = operation.await;
        let done = !matches!(&result, Err(errno) if *errno != Errno::Io);
        self.with(|inodes| inodes.echoes.over(number, &doings, done));
        result
    }

    /// Waits until the server has answered everything that changes a file.
    pub(crate) async fn quiet(&self, ino: u64) {
        self.settle(ino).await;
        loop {
            let mut over = std::pin::pin!(self.quiet.notified());
            over.as_mut().enable();
            if self.with(|inodes| inodes.get(ino).map_or(0, |inode| inode.busy)) == 0 {
                return;
            }
            over.await;
        }
    }

    pub(crate) fn forget(&self, ino: u64, times: u64) {
        self.with(|inodes| inodes.untell(ino, times));
    }

    /// A request about an inode: by its path, or by an open file when it has none any more.
    fn target(&self, ino: u64) -> Result<Target, Errno> {
        self.with(|inodes| match inodes.path(ino) {
            Ok(path) => Ok(Target::Path(path.into())),
            Err(error) => {
                let file = inodes.get(ino)?.open_files().next();
                file.map(|file| Target::Handle(file.handle().clone()))
                    .ok_or(error)
            }
        })
    }

    /// The open file to ask when the path has become another's.
    fn open_target(&self, ino: u64) -> Option<Target> {
        self.with(|inodes| {
            let file = inodes.get(ino).ok()?.open_files().next()?;
            Some(Target::Handle(file.handle().clone()))
        })
    }

    pub(crate) async fn metadata(&self, ino: u64) -> Result<(Metadata, Duration), Errno> {
        self.settle(ino).await;
        let known = self.with(|inodes| Ok::<_, Errno>(inodes.get(ino)?.fresh()))?;
        if let Some(known) = known {
            return Ok(known);
        }
        let above = self.with(|inodes| {
            let inode = inodes.get(ino)?;
            let directory = inode.known.kind() == FileKind::Directory;
            let above = inode.names.last().map(|(parent, _)| *parent);
            let watched = if directory { Some(ino) } else { above };
            Ok::<_, Errno>(watched.and_then(|at| Some((at, inodes.get(at).ok()?.epoch))))
        })?;
        let target = self.target(ino)?;
        let id = self.with(|inodes| inodes.get(ino).map(|inode| inode.id))?;
        let answer: Result<Metadata, _> = self.client.ask(&Request::Look { target }).await;
        let found = match answer {
            Ok(found) if found.id == id => found,
            Err(error) if !matches!(error, Errno::NotFound | Errno::NotADirectory) => {
                return Err(error);
            }
            // Its name is gone, or another's: an open file still has it.
            _ => {
                let target = self.open_target(ino).ok_or(Errno::Stale)?;
                self.client.ask(&Request::Look { target }).await?
            }
        };
        self.with(|inodes| {
            let trust = above.map_or(Trust::Guess, |(at, epoch)| trust_since(inodes, at, epoch));
            inodes.learn(ino, found, trust);
            Ok((found, inodes.validity(ino, trust)))
        })
    }

    pub(crate) async fn set(
        &self,
        ino: u64,
        handle: Option<u64>,
        update: Update,
    ) -> Result<(Metadata, Duration), Errno> {
        self.settle(ino).await;
        let held = handle.and_then(|handle| self.file(handle).ok());
        let target = match &held {
            Some((file, _)) => Target::Handle(file.handle().clone()),
            None => self.target(ino)?,
        };
        let id = self.with(|inodes| {
            let inode = inodes.get_mut(ino)?;
            inode.forget_ahead();
            inode.busy += 1;
            Ok::<_, Errno>(inode.id)
        })?;
        let mut doings = vec![(ino, Bytes::new(), Happening::Attributes)];
        if update.size.is_some() || update.modified.is_some() {
            doings.push((ino, Bytes::new(), Happening::Modified));
        }
        let set = Request::Set { target, update };
        let answer = self.own(doings, self.client.ask(&set)).await;
        let found: Result<Metadata, _> = answer.and_then(|found: Metadata| {
            let same = found.id == id;
            same.then_some(found).ok_or(Errno::Stale)
        });
        self.with(|inodes| {
            if let Ok(inode) = inodes.get_mut(ino) {
                inode.busy -= 1;
                if let Ok(found) = &found {
                    inode.did(found.changed);
                }
            }
        });
        self.quiet.notify_waiters();
        let found = found?;
        self.with(|inodes| {
            if let Ok(inode) = inodes.get_mut(ino) {
                // The kernel cuts its own pages.
                inode.pages = inode.pages.map(|_| Version::from(&found));
            }
            inodes.learn(ino, found, Trust::Guess);
            Ok((found, inodes.validity(ino, Trust::Guess)))
        })
    }

    pub(crate) async fn read_link(&self, ino: u64) -> Result<Bytes, Errno> {
        let path = self.with(|inodes| inodes.path(ino))?;
        self.client.read_link(&path).await
    }

    pub(crate) async fn make(
        &self,
        parent: u64,
        name: Bytes,
        node: NewNode,
        creation: Creation,
        sending: Sending,
    ) -> Result<Entry, Errno> {
        let request = Request::Make {
            path: self.with(|inodes| inodes.path_of(parent, &name))?,
            node,
            creation,
        };
        let known = Known::new(sending);
        let made = self.own(
            vec![(parent, name.clone(), Happening::Created)],
            self.client.ask_knowing(&request, known),
        );
        let made = made.await?;
        Ok(self.made(parent, &name, made))
    }

    /// Notes something new that the client itself has made.
    fn made(&self, parent: u64, name: &Bytes, metadata: Metadata) -> Entry {
        self.with(|inodes| {
            inodes.doubt(parent);
            let trust = inodes.trust(parent);
            let entry = inodes.found(parent, name, metadata, trust);
            if let Ok(inode) = inodes.get_mut(entry.ino) {
                inode.did(metadata.changed);
            }
            if trust == Trust::Told {
                let doing = (entry.ino, Bytes::new(), Happening::Attributes);
                inodes.echoes.note(doing);
            }
            // The echo may say more, when somebody was quicker than the answer.
            entry
        })
    }

    pub(crate) async fn link(
        &self,
        ino: u64,
        parent: u64,
        name: Bytes,
        sending: Sending,
    ) -> Result<Entry, Errno> {
        self.settle(ino).await;
        let from = self.target(ino)?;
        let to = self.with(|inodes| inodes.path_of(parent, &name))?;
        let (link, known) = (Request::Link { from, to }, Known::new(sending));
        let found = self.own(
            vec![(parent, name.clone(), Happening::Created)],
            self.client.ask_knowing(&link, known),
        );
        let found = found.await?;
        Ok(self.made(parent, &name, found))
    }

    pub(crate) async fn remove(
        &self,
        parent: u64,
        name: Bytes,
        kind: Removed,
        sending: Sending,
    ) -> Result<(), Errno> {
        let (path, first) = self.with(|inodes| {
            let path = inodes.path_of(parent, &name)?;
            Ok::<_, Errno>((path, inodes.id_of(parent, &name)))
        })?;
        let request = match kind {
            Removed::Directory => Request::Rmdir { path },
            Removed::Other => Request::Remove { path },
        };
        let known = Known {
            first,
            ..Known::new(sending)
        };
        let removed = self.own(
            vec![(parent, name.clone(), Happening::Removed)],
            self.client.command_knowing(&request, known),
        );
        let removed = removed.await;
        self.doubt_if_unknown(&removed, &[(parent, &name)]);
        removed?;
        self.with(|inodes| {
            let gone = inodes.named(parent, &name).flatten();
            let trust = inodes.trust(parent);
            inodes.missing(parent, &name, trust);
            inodes.doubt(parent);
            if let Some(ino) = gone {
                inodes.doubt(ino);
            }
        });
        Ok(())
    }

    pub(crate) async fn rename(
        &self,
        from: (u64, Bytes),
        to: (u64, Bytes),
        rename: Rename,
        sending: Sending,
    ) -> Result<(), Errno> {
        let (request, known) = self.with(|inodes| {
            let request = Request::Move {
                from: inodes.path_of(from.0, &from.1)?,
                to: inodes.path_of(to.0, &to.1)?,
                rename,
            };
            let known = Known {
                sending,
                first: inodes.id_of(from.0, &from.1),
                second: inodes.id_of(to.0, &to.1),
            };
            Ok::<_, Errno>((request, known))
        })?;
        let ends = |from: &(u64, Bytes), to: &(u64, Bytes)| {
            [
                (from.0, from.1.clone(), Happening::MovedFrom),
                (to.0, to.1.clone(), Happening::MovedTo),
            ]
        };
        let mut doings = ends(&from, &to).to_vec();
        if rename == Rename::Exchange {
            doings.extend(ends(&to, &from));
        }
        let renamed = self.own(doings, self.client.command_knowing(&request, known));
        let renamed = renamed.await;
        self.doubt_if_unknown(&renamed, &[(from.0, &from.1), (to.0, &to.1)]);
        renamed?;
        self.with(|inodes| inodes.renamed((from.0, &from.1), (to.0, &to.1), rename));
        Ok(())
    }

    /// After a failure that may be a success whose answer was lost, nothing is known of the names.
    fn doubt_if_unknown(&self, result: &Result<(), Errno>, names: &[(u64, &Bytes)]) {
        if *result != Err(Errno::Io) {
            return;
        }
        self.with(|inodes| {
            for (parent, name) in names {
                inodes
                    .notices
                    .push(Notice::NameDoubted(*parent, (*name).clone()));
                inodes.doubt(*parent);
                if let Some(ino) = inodes.named(*parent, name).flatten() {
                    inodes.doubt(ino);
                }
            }
        });
    }

    pub(crate) async fn space(&self, ino: u64) -> Result<Statvfs, Errno> {
        let path = self.with(|inodes| inodes.path(ino))?;
        self.client.space(&path).await
    }

    pub(crate) async fn get_xattr(&self, ino: u64, name: Bytes) -> Result<Bytes, Errno> {
        let target = self.target(ino)?;
        self.client.data(&Request::GetXattr { target, name }).await
    }

    pub(crate) async fn list_xattr(&self, ino: u64) -> Result<Bytes, Errno> {
        let target = self.target(ino)?;
        self.client.data(&Request::ListXattr { target }).await
    }

    pub(crate) async fn set_xattr(
        &self,
        ino: u64,
        name: Bytes,
        value: Bytes,
        mode: XattrMode,
        sending: Sending,
    ) -> Result<(), Errno> {
        let target = self.target(ino)?;
        let request = Request::SetXattr {
            target,
            name,
            value,
            mode,
        };
        let known = Known::new(sending);
        let result = self.own(
            vec![(ino, Bytes::new(), Happening::Attributes)],
            self.client.command_knowing(&request, known),
        );
        let result = result.await;
        self.with(|inodes| inodes.doubt(ino));
        result
    }

    pub(crate) async fn remove_xattr(
        &self,
        ino: u64,
        name: Bytes,
        sending: Sending,
    ) -> Result<(), Errno> {
        let target = self.target(ino)?;
        let (request, known) = (Request::RemoveXattr { target, name }, Known::new(sending));
        let result = self.own(
            vec![(ino, Bytes::new(), Happening::Attributes)],
            self.client.command_knowing(&request, known),
        );
        let result = result.await;
        self.with(|inodes| inodes.doubt(ino));
        result
    }
}
