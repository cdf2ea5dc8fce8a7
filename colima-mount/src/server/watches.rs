//! Directories that a client wants to hear about.
//!
//! A change is told as what has the name now, looked up when it is told: events are hints, and a client
//! that knows the same already is not disturbed by the echo of its own doing. Events are told in their order
//! beside it, for who replays them.

use std::{
    collections::HashMap,
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
use crate::sftp::{Child, Errno, Event, EventSet, FileId, Happening, Told};

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

/// What events said.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// The last that happened to a name.
    last: HashMap<(i32, Bytes), Happening>,
    order: Vec<Seen>,
    lost: Vec<FileId>,
    told: Told,
}

#[derive(Debug)]
struct Seen {
    watch: i32,
    name: Bytes,
    happening: Happening,
    child: Child,
    cookie: u32,
}

impl Noted {
    fn see(&mut self, seen: Seen) {
        let key = (seen.watch, seen.name.clone());
        // Writes in a row are one.
        if self.last.insert(key, seen.happening) != Some(seen.happening) {
            self.order.push(seen);
        }
    }
}

/// What an event says that happened.
fn happened(flags: ReadFlags) -> Option<Happening> {
    let all = [
        (ReadFlags::CREATE, Happening::Created),
        (ReadFlags::DELETE, Happening::Removed),
        (ReadFlags::MOVED_FROM, Happening::MovedFrom),
        (ReadFlags::MOVED_TO, Happening::MovedTo),
        (ReadFlags::MODIFY, Happening::Modified),
        (ReadFlags::ATTRIB, Happening::Attributes),
    ];
    let mut all = all.into_iter();
    all.find_map(|(flag, happening)| flags.contains(flag).then_some(happening))
}

impl State {
    /// A directory has another path, and with it what lies beneath. Gives its watches.
    fn follow(&mut self, from: &[u8], to: &[u8]) -> Vec<i32> {
        let whole = |path: &[u8]| Beneath::new(path).map(|path| path.whole());
        let (Ok(from), Ok(to)) = (whole(from), whole(to)) else {
            return Vec::new();
        };
        let mut itself = Vec::new();
        for (watch, watched) in &mut self.directories {
            let path = watched.path.whole();
            let Some(rest) = path.strip_prefix(&from[..]) else {
                continue;
            };
            if !matches!(rest.first(), None | Some(b'/')) {
                continue;
            }
            if let Ok(path) = Beneath::new(&[&to[..], rest].concat()) {
                watched.path = path;
            }
            if rest.is_empty() {
                itself.push(*watch);
            }
        }
        itself
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
        let mut moves: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut moved = std::collections::HashSet::new();
        loop {
            // More than this many are told in the next answer.
            if noted.order.len() >= 1024 {
                noted.told = Told::Part;
                break;
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Raw::AGAIN) => break,
                Err(Raw::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (watch, flags) = (event.wd(), event.events());
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                // What was missed is unknown, so everything is.
                noted.told = Told::Missed;
                for (watch, watched) in state.directories.drain() {
                    let _ = inotify::remove_watch(inotify, watch);
                    noted.lost.push(watched.id);
                }
                continue;
            }
            if flags.contains(ReadFlags::MOVE_SELF) && moved.remove(&watch) {
                // Where to was said just before.
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
            let Some(watched) = state.directories.get(&watch) else {
                continue;
            };
            let Some(happening) = happened(flags) else {
                continue;
            };
            let name = event
                .file_name()
                .map(|name| Bytes::copy_from_slice(name.to_bytes()));
            let name = name.unwrap_or_default();
            let child = if flags.contains(ReadFlags::ISDIR) {
                Child::Directory
            } else {
                Child::Other
            };
            let cookie = event.cookie();
            let path = watched.path.whole();
            noted.see(Seen {
                watch,
                name: name.clone(),
                happening,
                child,
                cookie,
            });
            if matches!(happening, Happening::Modified | Happening::Attributes) {
                continue;
            }
            // A name that comes or goes changes the times of the directory, which no event says.
            noted.see(Seen {
                watch,
                name: Bytes::new(),
                happening: Happening::Entries,
                child: Child::Directory,
                cookie: 0,
            });
            if child == Child::Directory {
                let path = [&path[..], b"/", &name[..]].concat();
                if happening == Happening::MovedFrom {
                    moves.insert(cookie, path);
                } else if happening == Happening::MovedTo
                    && let Some(from) = moves.remove(&cookie)
                {
                    moved.extend(state.follow(&from, &path));
                }
            }
        }
        Ok(noted)
    }

    /// Looks at what events were about. May block.
    pub(crate) fn describe(&self, noted: Noted, share: &Share) -> EventSet {
        let mut set = EventSet {
            lost: noted.lost,
            told: noted.told,
            events: Vec::new(),
        };
        let mut looks = HashMap::new();
        let mut held = HashMap::new();
        let mut hidden = HashMap::new();
        for seen in noted.order {
            let (watch, name) = (seen.watch, seen.name);
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
            let now = looks.entry((watch, name.clone())).or_insert_with(|| {
                if name.is_empty() {
                    share.see(node).ok()
                } else {
                    let node = std::os::fd::AsFd::as_fd(node);
                    share.see_name(node, &name).ok()
                }
            });
            set.events.push(Event {
                directory: *id,
                name,
                happening: seen.happening,
                child: seen.child,
                cookie: seen.cookie,
                now: *now,
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
