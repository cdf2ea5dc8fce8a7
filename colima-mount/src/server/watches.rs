//! Directories that a client wants to hear about.
//!
//! A change is told as what has the name now, looked up when it is told: events are hints, and a client
//! that knows the same already is not disturbed by the echo of its own doing.

use std::{
    collections::{HashMap, HashSet},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno as Raw,
};
use tokio::io::unix::AsyncFd;

use super::{
    Share,
    path::Beneath,
    root::{self, Root},
};
use crate::sftp::{Change, ChangeSet, Errno, FileId};

/// The watched directories of one client.
#[derive(Debug)]
pub(crate) struct Watches {
    state: Mutex<State>,
    limit: usize,
    /// Wakes the one who waits when the first watch is there.
    begun: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    inotify: Option<std::sync::Arc<AsyncFd<OwnedFd>>>,
    directories: HashMap<i32, Watched>,
}

#[derive(Debug)]
struct Watched {
    path: Beneath,
    id: FileId,
}

/// What events said, each thing once.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    names: HashSet<(i32, Bytes)>,
    order: Vec<(i32, Bytes)>,
    lost: Vec<FileId>,
}

impl Noted {
    fn name(&mut self, watch: i32, name: Bytes) {
        if self.names.insert((watch, name.clone())) {
            self.order.push((watch, name));
        }
    }
}

fn mask() -> WatchFlags {
    WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MODIFY
        | WatchFlags::MOVE
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::EXCL_UNLINK
}

impl Watches {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
            begun: tokio::sync::Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory. Once more for one that is watched renews the path that it is found by.
    ///
    /// # Errors
    ///
    /// There are too many, here or on the host.
    pub(crate) fn add(
        &self,
        directory: BorrowedFd<'_>,
        path: Beneath,
        id: FileId,
    ) -> Result<(), Errno> {
        let mut state = self.state();
        if state.directories.len() >= self.limit {
            return Err(Errno::NoSpace);
        }
        if state.inotify.is_none() {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe; the descriptor is owned and never changed"
            )]
            let inotify = AsyncFd::new(inotify).map_err(Errno::from)?;
            state.inotify = Some(std::sync::Arc::new(inotify));
            self.begun.notify_one();
        }
        let Some(inotify) = &state.inotify else {
            return Err(Errno::Io);
        };
        let watch = inotify::add_watch(inotify.get_ref(), Root::proc_path(directory), mask())?;
        state.directories.insert(watch, Watched { path, id });
        Ok(())
    }

    /// Waits for events and takes those that are there.
    ///
    /// # Cancel safety
    ///
    /// No event is lost.
    pub(crate) async fn changed(&self) -> Result<Noted, Errno> {
        let inotify = loop {
            if let Some(inotify) = self.state().inotify.clone() {
                break inotify;
            }
            self.begun.notified().await;
        };
        loop {
            let mut ready = inotify.readable().await.map_err(Errno::from)?;
            let noted = self.read(ready.get_inner())?;
            if !noted.order.is_empty() || !noted.lost.is_empty() {
                return Ok(noted);
            }
            ready.clear_ready();
        }
    }

    fn read(&self, inotify: &OwnedFd) -> Result<Noted, Errno> {
        let mut noted = Noted::default();
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut state = self.state();
        // More than this many are told in the next answer.
        while noted.order.len() < 1024 {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Raw::AGAIN) => break,
                Err(Raw::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (watch, flags) = (event.wd(), event.events());
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                // What was missed is unknown, so everything is.
                for (watch, watched) in state.directories.drain() {
                    let _ = inotify::remove_watch(inotify, watch);
                    noted.lost.push(watched.id);
                }
                continue;
            }
            if flags.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF)
            {
                if let Some(watched) = state.directories.remove(&watch) {
                    noted.lost.push(watched.id);
                    if !flags.contains(ReadFlags::IGNORED) {
                        let _ = inotify::remove_watch(inotify, watch);
                    }
                }
                continue;
            }
            if !state.directories.contains_key(&watch) {
                continue;
            }
            let name = event
                .file_name()
                .map(|name| Bytes::copy_from_slice(name.to_bytes()));
            let name = name.unwrap_or_default();
            let names =
                ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
            noted.name(watch, name);
            if flags.intersects(names) {
                // A name that comes or goes changes the times of the directory, which no event says.
                noted.name(watch, Bytes::new());
            }
        }
        Ok(noted)
    }

    /// Looks at what events were about. May block.
    pub(crate) fn describe(&self, noted: Noted, share: &Share) -> ChangeSet {
        let mut set = ChangeSet {
            lost: noted.lost,
            changes: Vec::new(),
        };
        let mut held = HashMap::new();
        let mut hidden = HashMap::new();
        for (watch, name) in noted.order {
            let directory = held
                .entry(watch)
                .or_insert_with(|| self.find(watch, &share.root));
            let Some((node, id)) = directory else {
                continue;
            };
            if hidden
                .entry(watch)
                .or_insert_with(|| self.hidden(watch, share))
                .contains(&name)
            {
                continue;
            }
            let now = if name.is_empty() {
                share.see(node)
            } else {
                share.see_name(std::os::fd::AsFd::as_fd(node), &name)
            };
            set.changes.push(Change {
                directory: *id,
                name,
                now: now.ok(),
            });
        }
        for (watch, directory) in held {
            if directory.is_none() {
                let mut state = self.state();
                if let Some(watched) = state.directories.remove(&watch) {
                    if let Some(inotify) = &state.inotify {
                        let _ = inotify::remove_watch(inotify.get_ref(), watch);
                    }
                    set.lost.push(watched.id);
                }
            }
        }
        set
    }

    /// The names in a watched directory that nobody sees.
    fn hidden(&self, watch: i32, share: &Share) -> Vec<Bytes> {
        let state = self.state();
        let watched = state.directories.get(&watch);
        watched.map_or_else(Vec::new, |watched| {
            let path = watched.path.whole();
            let path = if watched.path.is_root() {
                &[][..]
            } else {
                &path
            };
            share.protection.hidden_in(path)
        })
    }

    /// A watched directory, if it is still where it was: a directory above it may have been renamed.
    fn find(&self, watch: i32, root: &Root) -> Option<(root::Node, FileId)> {
        let (path, id) = {
            let state = self.state();
            let watched = state.directories.get(&watch)?;
            (watched.path.clone(), watched.id)
        };
        let node = root.hold(&path).ok()?;
        (node.metadata().ok()?.id == id).then_some((node, id))
    }
}
