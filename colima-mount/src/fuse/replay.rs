//! What the host did is done once more on the mount, for whoever watches it there.
//!
//! The kernel tells watchers (inotify, fanotify) only of what is done through it. So a thread makes, moves,
//! touches and removes names on the mount, and what the kernel asks because of that is answered here, by
//! what the server said before, and never forwarded. Which requests those are is known by the thread, and
//! each of its calls may do one thing, which is armed before. Everything else that it asks for fails.
//!
//! What comes from outside of what is known, or leaves it, is moved from and to a directory that only this
//! thread finds, so that the watchers hear of one half, as they would on the host.

mod stage;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::stage::tell;
use super::inodes::{Entry, Inodes};
use crate::sftp::{Child, Errno, FileKind, Metadata};

/// The directory that only the replaying thread finds.
pub(super) const OUTSIDE: u64 = u64::MAX - 1;
/// Replays that may wait; beyond them watchers are only told to look again.
const WAITING: usize = 4096;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parent: u64,
    pub(crate) name: Bytes,
}

/// What is known of a file that something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// What the server says that it is.
    Is(Metadata),
    /// What it was when it was last heard of.
    Was(u64),
    /// Only what kind of thing it was; it never had a number here.
    Unknown(Child),
}

/// How a file is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Its content.
    Content,
    /// Its attributes.
    Attributes,
}

/// Something that is done once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// A name is made.
    Make(Place, Who),
    /// A name is removed.
    Remove(Place, Who, Child),
    /// A name is moved; at most one end is outside of what is known.
    Move {
        from: Option<Place>,
        to: Option<Place>,
        who: Who,
    },
    /// Something is touched.
    Touch(Place, Metadata, Touch),
    /// A directory is touched, because what happened in it was missed.
    LookAgain(u64),
}

impl Replay {
    /// The directories that it is about.
    fn directories(&self) -> Vec<u64> {
        match self {
            Self::Make(place, _) | Self::Remove(place, ..) | Self::Touch(place, ..) => {
                vec![place.parent]
            }
            Self::Move { from, to, .. } => {
                let both = [from, to].into_iter().flatten();
                both.map(|place| place.parent).collect()
            }
            Self::LookAgain(directory) => vec![*directory],
        }
    }
}

/// The one thing that the thread may do now.
#[derive(Clone, Debug)]
enum Deed {
    Make(Place, Who),
    Remove(Place, Child),
    Move(Place, Place, Who),
    Touch(u64, Metadata),
}

#[derive(Debug, Default)]
struct Armed {
    /// What names are to the thread; `None` for nothing.
    names: Vec<(Place, Option<Who>)>,
    deed: Option<Deed>,
}

/// What the replaying thread and those who answer it share.
///
/// Its lock is held by none of them across a system call or a wait.
#[derive(Debug)]
pub(crate) struct Replays {
    /// The name of the directory that only the thread finds. Nobody else can guess it.
    outside: Bytes,
    /// The thread as the kernel numbers it; zero until it has shown itself.
    thread: AtomicU32,
    armed: Mutex<Armed>,
    waiting: AtomicUsize,
    missed: Mutex<BTreeSet<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something without a file behind it.
fn nothing(kind: Child) -> Metadata {
    Metadata {
        mode: match kind {
            Child::Directory => 0o040_700,
            Child::Other => 0o100_600,
        },
        links: 1,
        ..Metadata::default()
    }
}

fn kind(metadata: &Metadata) -> Child {
    if metadata.kind() == FileKind::Directory {
        Child::Directory
    } else {
        Child::Other
    }
}

impl Replays {
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let nonce = RandomState::new().hash_one(std::process::id());
        Self {
            outside: format!(".colima-replay-{nonce:016x}").into(),
            thread: AtomicU32::new(0),
            armed: Mutex::default(),
            waiting: AtomicUsize::new(0),
            missed: Mutex::default(),
        }
    }

    /// Whether there is room for one more; if not, the directories are remembered as missed.
    pub(crate) fn admit(&self, replay: &Replay) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= WAITING {
            lock(&self.missed).extend(replay.directories());
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Watchers of the directory are to be told to look again.
    pub(crate) fn miss(&self, directory: u64) {
        lock(&self.missed).insert(directory);
    }

    /// Whether a request is of the replaying thread.
    pub(super) fn is_of(&self, thread: u32) -> bool {
        thread != 0 && self.thread.load(Ordering::Relaxed) == thread
    }

    /// Answers a look of anybody for the directory that only the thread finds. Who finds it is the thread.
    pub(super) fn find(&self, thread: u32, parent: u64, name: &[u8]) -> Option<Entry> {
        if parent != super::inodes::ROOT || name != self.outside || thread == 0 {
            return None;
        }
        self.thread.store(thread, Ordering::Relaxed);
        Some(fleeting(OUTSIDE, nothing(Child::Directory)))
    }

    /// What a name is to the thread.
    pub(super) fn look(&self, inodes: &mut Inodes, place: &Place) -> Result<Entry, Errno> {
        let armed = {
            let armed = lock(&self.armed);
            let found = armed.names.iter().find(|(at, _)| at == place);
            found.map(|(_, who)| *who)
        };
        match armed {
            Some(Some(who)) => Ok(introduce(inodes, who)),
            Some(None) => Err(Errno::NotFound),
            // On the way to a directory.
            None => inodes
                .remembered(place.parent, &place.name)
                .ok_or(Errno::NotFound),
        }
    }

    /// The attributes of something to the thread.
    pub(super) fn attributes(&self, inodes: &Inodes, ino: u64) -> Result<Metadata, Errno> {
        if ino == OUTSIDE {
            return Ok(nothing(Child::Directory));
        }
        if let Some(Deed::Touch(touched, metadata)) = &lock(&self.armed).deed
            && *touched == ino
        {
            return Ok(*metadata);
        }
        Ok(inodes.get(ino).map_err(|_| Errno::Io)?.known)
    }

    /// The thread makes something.
    pub(super) fn make(&self, inodes: &mut Inodes, place: &Place) -> Result<Entry, Errno> {
        match self.take(|deed| matches!(deed, Deed::Make(at, _) if at == place)) {
            Some(Deed::Make(_, who)) => {
                let entry = introduce(inodes, who);
                let new = |inode: &super::inodes::Inode| inode.names.is_empty();
                if inodes.named(place.parent, &place.name).flatten().is_none()
                    && inodes.get(entry.ino).is_ok_and(new)
                {
                    inodes.bind(place.parent, &place.name, entry.ino);
                }
                Ok(entry)
            }
            _ => Err(Errno::Io),
        }
    }

    /// The thread removes something.
    pub(super) fn remove(
        &self,
        inodes: &mut Inodes,
        place: &Place,
        child: Child,
    ) -> Result<(), Errno> {
        let armed =
            |deed: &Deed| matches!(deed, Deed::Remove(at, kind) if (at, *kind) == (place, child));
        self.take(armed).ok_or(Errno::Io)?;
        inodes.unbind(place.parent, &place.name);
        Ok(())
    }

    /// The thread moves something.
    pub(super) fn rename(
        &self,
        inodes: &mut Inodes,
        from: &Place,
        to: &Place,
    ) -> Result<(), Errno> {
        let armed = |deed: &Deed| matches!(deed, Deed::Move(a, b, _) if (a, b) == (from, to));
        let Some(Deed::Move(_, _, who)) = self.take(armed) else {
            return Err(Errno::Io);
        };
        let moved = match who {
            Who::Is(metadata) if from.parent == OUTSIDE => inodes.by_id(metadata.id),
            _ => inodes.named(from.parent, &from.name).flatten(),
        };
        inodes.unbind(from.parent, &from.name);
        inodes.unbind(to.parent, &to.name);
        if let (Who::Is(metadata), Some(ino)) = (who, moved)
            && to.parent != OUTSIDE
            && inodes.by_id(metadata.id) == moved
            // Otherwise it was moved on by ourselves.
            && inodes.get(ino).is_ok_and(|inode| inode.names.is_empty())
        {
            inodes.bind(to.parent, &to.name, ino);
        }
        Ok(())
    }

    /// The thread touches something.
    pub(super) fn touch(&self, inodes: &mut Inodes, ino: u64) -> Result<Metadata, Errno> {
        match self.take(|deed| matches!(deed, Deed::Touch(at, _) if *at == ino)) {
            Some(Deed::Touch(_, metadata)) => {
                let inode = inodes.get(ino).map_err(|_| Errno::Io)?;
                if inode.is_behind() || inode.busy > 0 {
                    // Older than what the kernel knows.
                    return Err(Errno::Io);
                }
                let known = inode.known;
                Ok(if known.changed > metadata.changed {
                    known
                } else {
                    metadata
                })
            }
            _ => Err(Errno::Io),
        }
    }

    /// What is armed, if it is this. It is done once.
    fn take(&self, is: impl FnOnce(&Deed) -> bool) -> Option<Deed> {
        lock(&self.armed).deed.take_if(|deed| is(deed))
    }

    fn arm(&self, names: Vec<(Place, Option<Who>)>, deed: Deed) {
        let deed = Some(deed);
        *lock(&self.armed) = Armed { names, deed };
    }

    fn disarm(&self) {
        *lock(&self.armed) = Armed::default();
    }
}

/// Something that is to be asked for at once by everybody.
fn fleeting(ino: u64, metadata: Metadata) -> Entry {
    Entry {
        ino,
        metadata,
        name_valid: Duration::ZERO,
        valid: Duration::ZERO,
    }
}

/// Tells the kernel of something. What a name is may have changed since, by ourselves too: nothing is
/// noted of it, and whoever uses it looks for it.
fn introduce(inodes: &mut Inodes, who: Who) -> Entry {
    match who {
        Who::Is(metadata) => fleeting(inodes.introduce(metadata), metadata),
        Who::Was(ino) => match inodes.introduce_again(ino) {
            Some(metadata) => fleeting(ino, metadata),
            None => fleeting(inodes.unused(), nothing(Child::Other)),
        },
        Who::Unknown(child) => fleeting(inodes.unused(), nothing(child)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &'static str) -> Place {
        let name = name.into();
        Place { parent: 1, name }
    }

    #[test]
    fn one_thing_is_armed_and_done_once() {
        let replays = Replays::new();
        let name = replays.outside.clone();
        assert!(!replays.is_of(7));
        assert!(replays.find(7, 2, &name).is_none());
        assert!(replays.find(7, 1, b"other").is_none());
        assert!(replays.find(7, 1, &name).is_some());
        assert!(replays.is_of(7) && !replays.is_of(8) && !replays.is_of(0));
        let inodes = &mut Inodes::new(Metadata::default());
        replays.arm(Vec::new(), Deed::Remove(place("a"), Child::Other));
        assert_eq!(
            replays.remove(inodes, &place("b"), Child::Other),
            Err(Errno::Io)
        );
        assert_eq!(
            replays.remove(inodes, &place("a"), Child::Directory),
            Err(Errno::Io)
        );
        assert_eq!(replays.remove(inodes, &place("a"), Child::Other), Ok(()));
        assert_eq!(
            replays.remove(inodes, &place("a"), Child::Other),
            Err(Errno::Io)
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_missed() {
        let replays = Replays::new();
        let replay = Replay::Make(place("a"), Who::Unknown(Child::Other));
        for _ in 0..WAITING {
            assert!(replays.admit(&replay));
        }
        assert!(!replays.admit(&replay));
        assert_eq!(*lock(&replays.missed), BTreeSet::from([1]));
    }
}
