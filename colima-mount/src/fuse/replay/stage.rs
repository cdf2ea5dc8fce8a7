//! The thread that replays, and tells the kernel what to forget in between, in one order.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Weak,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError},
    },
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, mkdirat, mknodat,
        openat, renameat, symlinkat, unlinkat, utimensat,
    },
    io::Errno as Raw,
    mount::{OpenTreeFlags, open_tree},
};

use super::{Child, Deed, OUTSIDE, Place, Replay, Replays, Touch, Who, kind, lock, nothing};
use crate::{
    fuse::{
        adapter::Notifier,
        inodes::{Notice, ROOT},
        volume::Volume,
    },
    sftp::{FileKind, Metadata, Timestamp},
};

/// How often a name that somebody looked up meanwhile is taken back.
const ATTEMPTS: usize = 3;
/// Directories that are held open at most.
const HELD: usize = 64;

/// The mount, for the thread only: a mount of its own of the same file system, with nothing mounted in it.
///
/// It is there while there is something to replay, so that it keeps nobody from unmounting.
#[derive(Debug)]
struct Stage {
    root: OwnedFd,
    outside: OwnedFd,
    held: HashMap<u64, OwnedFd>,
    /// Of the next name outside.
    next: u64,
}

impl Stage {
    /// Opens the mount. The look for the name that only the thread knows tells those who answer of the
    /// thread; where it arrives at another file system, nothing is replayed.
    fn open(path: &Path, replays: &Replays) -> io::Result<Self> {
        replays.thread.store(0, Ordering::Relaxed);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(CWD, path, flags)?;
        let outside = directory(root.as_fd(), &replays.outside)?;
        if replays.thread.load(Ordering::Relaxed) == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self {
            root,
            outside,
            held: HashMap::new(),
            next: 0,
        })
    }

    fn at(&mut self, ino: u64, volume: &Volume) -> io::Result<BorrowedFd<'_>> {
        match ino {
            ROOT => Ok(self.root.as_fd()),
            OUTSIDE => Ok(self.outside.as_fd()),
            ino => {
                if !self.held.contains_key(&ino) {
                    let gone = |_| io::Error::from(io::ErrorKind::NotFound);
                    let path = volume.with(|inodes| inodes.path(ino)).map_err(gone)?;
                    let directory = directory(self.root.as_fd(), &path)?;
                    if self.held.len() >= HELD {
                        self.held.clear();
                    }
                    self.held.insert(ino, directory);
                }
                Ok(self.held[&ino].as_fd())
            }
        }
    }
}

fn directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(root, path, flags, Mode::empty())?)
}

/// Tells the kernel what to forget and replays, until there is nobody left who would know.
///
/// On a thread of its own: the kernel may keep a notice waiting until requests are answered.
pub(crate) fn tell(
    notifier: &Notifier,
    noted: &Receiver<Notice>,
    path: &Path,
    volume: &Weak<Volume>,
) {
    let mut teller = Teller {
        notifier,
        path,
        volume,
        stage: None,
    };
    loop {
        let notice = match noted.try_recv() {
            Ok(notice) => notice,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                teller.catch_up();
                teller.stage = None;
                match noted.recv() {
                    Ok(notice) => notice,
                    Err(_) => return,
                }
            }
        };
        match notice {
            Notice::Replay(replay) => teller.replay(&replay),
            // That the kernel does not know what it is to forget is as good.
            notice => drop(notifier.tell(&notice)),
        }
    }
}

struct Teller<'a> {
    notifier: &'a Notifier,
    path: &'a Path,
    volume: &'a Weak<Volume>,
    stage: Option<Stage>,
}

impl Teller<'_> {
    fn replay(&mut self, replay: &Replay) {
        let Some(volume) = self.volume.upgrade() else {
            return;
        };
        let Some(replays) = &volume.replays else {
            return;
        };
        replays.waiting.fetch_sub(1, Ordering::Relaxed);
        // What cannot be replayed is forgotten by the kernel all the same.
        let _ = self.perform(replay, &volume, replays);
        replays.disarm();
    }

    /// Has watchers of what was missed look again.
    fn catch_up(&mut self) {
        let Some(volume) = self.volume.upgrade() else {
            return;
        };
        let Some(replays) = &volume.replays else {
            return;
        };
        let missed = std::mem::take(&mut *lock(&replays.missed));
        for directory in missed {
            let _ = self.perform(&Replay::LookAgain(directory), &volume, replays);
            replays.disarm();
        }
    }

    fn forget(&self, place: &Place) {
        let notice = Notice::Name(place.parent, place.name.clone());
        let _ = self.notifier.tell(&notice);
    }

    fn perform(&mut self, replay: &Replay, volume: &Volume, replays: &Replays) -> io::Result<()> {
        if self.stage.is_none() {
            self.stage = Some(Stage::open(self.path, replays)?);
        }
        match replay {
            Replay::Make(place, who) => {
                let made = self.attempt(&[place], replays, |stage| {
                    replays.arm(vec![(place.clone(), None)], Deed::Make(place.clone(), *who));
                    make(stage.at(place.parent, volume)?, place, who)
                });
                if made.is_err() || !matches!(who, Who::Is(_)) {
                    self.forget(place);
                }
                made
            }
            Replay::Remove(place, who, child) => self.attempt(&[place], replays, |stage| {
                replays.arm(
                    vec![(place.clone(), Some(*who))],
                    Deed::Remove(place.clone(), *child),
                );
                let flags = match child {
                    Child::Directory => AtFlags::REMOVEDIR,
                    Child::Other => AtFlags::empty(),
                };
                unlinkat(stage.at(place.parent, volume)?, &place.name[..], flags)
                    .map_err(io::Error::from)
            }),
            Replay::Move { from, to, who } => {
                self.shift(from.as_ref(), to.as_ref(), *who, volume, replays)
            }
            Replay::Touch(place, metadata, touch) => {
                let times = times(metadata, *touch);
                self.attempt(&[place], replays, |stage| {
                    let ino = volume.with(|inodes| inodes.number_of(metadata));
                    replays.arm(
                        vec![(place.clone(), Some(Who::Is(*metadata)))],
                        Deed::Touch(ino, *metadata),
                    );
                    let directory = stage.at(place.parent, volume)?;
                    utimensat(
                        directory,
                        &place.name[..],
                        &times,
                        AtFlags::SYMLINK_NOFOLLOW,
                    )
                    .map_err(io::Error::from)
                })
            }
            Replay::LookAgain(ino) => {
                let Some(stage) = &mut self.stage else {
                    return Ok(());
                };
                let known = volume.with(|inodes| inodes.get(*ino).map(|inode| inode.known));
                let Ok(known) = known else {
                    return Ok(());
                };
                replays.arm(Vec::new(), Deed::Touch(*ino, known));
                let directory = stage.at(*ino, volume)?;
                let times = times(&known, Touch::Attributes);
                utimensat(directory, "", &times, AtFlags::EMPTY_PATH)?;
                // What was touched is known less well than before.
                let _ = self.notifier.tell(&Notice::Metadata(*ino));
                Ok(())
            }
        }
    }

    /// Does it until the kernel's idea of the names is not in the way.
    fn attempt(
        &mut self,
        places: &[&Place],
        replays: &Replays,
        mut act: impl FnMut(&mut Stage) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let Some(stage) = &mut self.stage else {
                return result;
            };
            result = act(stage);
            replays.disarm();
            let raw = result.as_ref().err().and_then(io::Error::raw_os_error);
            let in_the_way = [Raw::EXIST, Raw::ISDIR, Raw::NOTDIR, Raw::IO, Raw::NOENT];
            if !in_the_way.iter().any(|it| Some(it.raw_os_error()) == raw) {
                break;
            }
            places.iter().for_each(|place| self.forget(place));
        }
        result
    }

    fn shift(
        &mut self,
        from: Option<&Place>,
        to: Option<&Place>,
        who: Who,
        volume: &Volume,
        replays: &Replays,
    ) -> io::Result<()> {
        let Some(stage) = &mut self.stage else {
            return Ok(());
        };
        stage.next += 1;
        let outside = Place {
            parent: OUTSIDE,
            name: stage.next.to_string().into(),
        };
        let (a, b) = (from.unwrap_or(&outside), to.unwrap_or(&outside));
        let replaced = volume.with(|inodes| {
            let moved = match &who {
                Who::Is(metadata) => inodes.by_id(metadata.id),
                Who::Was(ino) => Some(*ino),
                Who::Unknown(_) => None,
            };
            let there = inodes.named(b.parent, &b.name).flatten();
            (there, there.is_some() && there == moved)
        });
        if replaced.1 {
            // Somebody was quicker to look at the new name; the move would be none.
            self.forget(b);
        }
        let there = replaced.0.filter(|_| !replaced.1).map(Who::Was);
        let moved = self.attempt(&[a, b], replays, |stage| {
            replays.arm(
                vec![(a.clone(), Some(who)), (b.clone(), there)],
                Deed::Move(a.clone(), b.clone(), who),
            );
            let source = stage.at(a.parent, volume)?.try_clone_to_owned()?;
            let target = stage.at(b.parent, volume)?;
            renameat(source, &a.name[..], target, &b.name[..]).map_err(io::Error::from)
        });
        if let Some(to) = to {
            let notice = Notice::NameDoubted(to.parent, to.name.clone());
            let _ = self.notifier.tell(&notice);
        }
        if moved.is_err() || to.is_none() || !matches!(who, Who::Is(_)) {
            self.forget(a);
            self.forget(b);
        } else if let Who::Is(metadata) = who {
            let ino = volume.with(|inodes| inodes.by_id(metadata.id));
            if let Some(ino) = ino {
                let _ = self.notifier.tell(&Notice::Metadata(ino));
            }
        }
        moved
    }
}

fn make(directory: BorrowedFd<'_>, place: &Place, who: &Who) -> io::Result<()> {
    let metadata = match who {
        Who::Is(metadata) => *metadata,
        Who::Was(_) => nothing(Child::Other),
        Who::Unknown(child) => nothing(*child),
    };
    let (name, mode) = (&place.name[..], Mode::RUSR);
    let node = |kind| mknodat(directory, name, kind, mode, 0);
    match metadata.kind() {
        FileKind::Directory => mkdirat(directory, name, mode),
        FileKind::Symlink => symlinkat("-", directory, name),
        FileKind::Fifo => node(FileType::Fifo),
        FileKind::Socket => node(FileType::Socket),
        FileKind::CharacterDevice => node(FileType::CharacterDevice),
        FileKind::BlockDevice => node(FileType::BlockDevice),
        FileKind::Regular => node(FileType::RegularFile),
    }?;
    debug_assert!(matches!(kind(&metadata), Child::Directory | Child::Other));
    Ok(())
}

/// One time alone is a write to watchers, both are attributes: `fsnotify_change` of linux/fsnotify.h.
fn times(metadata: &Metadata, touch: Touch) -> Timestamps {
    let time = |time: Timestamp| Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: match touch {
            Touch::Content => omit,
            Touch::Attributes => time(metadata.accessed),
        },
        last_modification: time(metadata.modified),
    }
}
