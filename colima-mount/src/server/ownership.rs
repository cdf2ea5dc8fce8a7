//! Owners, modes and special nodes that the host's user cannot make, kept beside the file.
//!
//! A record ([`record`]) is in the extended attribute [`ATTRIBUTE`] of a regular file or directory, and
//! in a database beside the share ([`side`]) of anything that cannot carry one. What a client asks for is
//! decided here without I/O ([`Beside::plan`]); the server does it to the host and keeps the difference.
//! The host never gets a setuid bit, a device or a mode that would lock the server's user out: a
//! file with a record is readable and writable for its owner on the host, a directory searchable too.

mod record;
mod side;

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::fs::XattrFlags;

use self::{
    record::{Mode, Record, Special},
    side::Side,
};
use crate::sftp::{Errno, FileKind, Metadata, NewNode, Owner};

/// Extended attributes of this crate: no client sees or sets one.
pub(super) const OURS: &[u8] = b"user.colima.";
/// The one that has the record.
const ATTRIBUTE: &str = "user.colima.node";

/// Whose files clients see.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Ownership {
    /// Those of the host: what its user may not do fails, or, for the owner of a new file, is left out.
    #[default]
    Host,
    /// What clients ask for, kept beside the file where the host cannot have it so.
    Beside(Beside),
}

/// How records are kept, and who owns what has none.
#[derive(Clone, Debug)]
pub struct Beside {
    /// What is on the host the server's own.
    owner: Owner,
    /// The server's user and group on the host.
    server: Owner,
    side: Option<Arc<Side>>,
}

/// What a file is to be for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) user: u32,
    pub(super) group: u32,
    /// Permission bits.
    pub(super) mode: u32,
    special: Option<Special>,
}

impl Wanted {
    pub(super) fn new(owner: Owner, mode: u32, node: &NewNode) -> Self {
        let special = match *node {
            NewNode::Fifo => Some(Special::Fifo),
            NewNode::Socket => Some(Special::Socket),
            NewNode::CharacterDevice { major, minor } => {
                Some(Special::CharacterDevice { major, minor })
            }
            NewNode::BlockDevice { major, minor } => Some(Special::BlockDevice { major, minor }),
            NewNode::Directory | NewNode::Symlink { .. } | NewNode::Regular => None,
        };
        Self {
            user: owner.user,
            group: owner.group,
            mode: mode & 0o7777,
            special,
        }
    }
}

impl From<&Metadata> for Wanted {
    fn from(seen: &Metadata) -> Self {
        let (major, minor) = (seen.device_major, seen.device_minor);
        Self {
            user: seen.user,
            group: seen.group,
            mode: seen.mode & 0o7777,
            special: match seen.kind() {
                FileKind::Fifo => Some(Special::Fifo),
                FileKind::Socket => Some(Special::Socket),
                FileKind::CharacterDevice => Some(Special::CharacterDevice { major, minor }),
                FileKind::BlockDevice => Some(Special::BlockDevice { major, minor }),
                FileKind::Regular | FileKind::Directory | FileKind::Symlink => None,
            },
        }
    }
}

/// Where a file is: what a system call on extended attributes finds it by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// Held or open.
    Fd(BorrowedFd<'a>),
    /// A name in a directory.
    Name(BorrowedFd<'a>, &'a [u8]),
}

impl Place<'_> {
    fn path(self) -> Vec<u8> {
        match self {
            Place::Fd(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(),
            Place::Name(directory, name) => {
                let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
                path.extend_from_slice(name);
                path
            }
        }
    }
}

impl Beside {
    /// Keeps records in extended attributes. What has none and is on the host the server's own belongs
    /// to `owner`; what is another's on the host is shown with the numbers of the host.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            server: Owner {
                user: rustix::process::geteuid().as_raw(),
                group: rustix::process::getegid().as_raw(),
            },
            side: None,
        }
    }

    /// Keeps the records of what cannot carry an attribute in a directory of the caller's: symbolic links,
    /// files of others, file systems without attributes. Without it the owner of a new link is left out,
    /// and a `chown` of one fails.
    ///
    /// One process at a time may use a directory. It should be in no share, or hidden there. May block.
    ///
    /// # Errors
    ///
    /// Another process uses it (`WouldBlock`), another version has made what is there (`InvalidData`),
    /// or it cannot be used.
    pub fn with_directory(mut self, directory: OwnedFd) -> io::Result<Self> {
        self.side = Some(Arc::new(Side::open(directory)?));
        Ok(self)
    }

    /// As [`Beside::with_directory`], but waits for the end of a process that uses the directory: the one before
    /// this. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// As [`Beside::with_directory`], without `WouldBlock`.
    pub fn with_directory_when_free(mut self, directory: OwnedFd) -> io::Result<Self> {
        self.side = Some(Arc::new(Side::open_when_free(directory)?));
        Ok(self)
    }

    /// What clients see of a file without a record.
    fn mapped(&self, mut host: Metadata) -> Metadata {
        if host.user == self.server.user {
            host.user = self.owner.user;
        }
        if host.group == self.server.group {
            host.group = self.owner.group;
        }
        host
    }

    /// What clients see of a file that the host has as `host`.
    pub(super) fn seen(&self, host: Metadata, place: Place<'_>) -> Metadata {
        let record = self.load(&host, place).unwrap_or_default();
        record.over(self.mapped(host))
    }

    /// The mode that the host is to have and the record that makes of it what is wanted.
    fn plan(&self, host: &Metadata, wanted: &Wanted) -> (u32, Record) {
        let plain = self.mapped(*host);
        let differs = |wanted: u32, plain: u32| Some(wanted).filter(|it| *it != plain);
        let mut record = Record {
            user: differs(wanted.user, plain.user),
            group: differs(wanted.group, plain.group),
            mode: None,
            // A true one of the host's needs no words.
            special: wanted.special.filter(|_| host.kind() == FileKind::Regular),
        };
        let kind = host.kind();
        if kind == FileKind::Symlink {
            return (host.mode & 0o7777, record);
        }
        // What a setgid directory of the host passes on is the host's business.
        let kept = if kind == FileKind::Directory {
            host.mode & 0o2000
        } else {
            0
        };
        let mut mode = wanted.mode & 0o1777 | kept;
        let carries = !record.is_empty() || mode != wanted.mode;
        match kind {
            FileKind::Directory => mode |= 0o700,
            // To be read and written by the guest's root in spite of its mode; one that only lacks
            // the second keeps its mode until somebody does write.
            FileKind::Regular if carries || mode & 0o400 == 0 => mode |= 0o600,
            _ => {}
        }
        if mode != wanted.mode {
            record.mode = Some(Mode {
                seen: bits(wanted.mode),
                host: bits(mode),
            });
        }
        (mode, record)
    }

    fn load(&self, host: &Metadata, place: Place<'_>) -> Option<Record> {
        if matches!(host.kind(), FileKind::Regular | FileKind::Directory) {
            // One byte more than a record has, so that what is longer is none.
            let mut bytes = [0; Record::LENGTH + 1];
            let path = place.path();
            let got = match place {
                Place::Fd(_) => rustix::fs::getxattr(&path[..], ATTRIBUTE, &mut bytes[..]),
                Place::Name(..) => rustix::fs::lgetxattr(&path[..], ATTRIBUTE, &mut bytes[..]),
            };
            if let Ok(length) = got {
                return Record::decode(bytes.get(..length)?);
            }
        }
        self.side.as_ref()?.get(&host.id)
    }

    /// Keeps a record; an empty one is dropped.
    fn store(&self, host: &Metadata, fd: BorrowedFd<'_>, record: &Record) -> Result<(), Errno> {
        use rustix::io::Errno as Raw;

        let carrier = matches!(host.kind(), FileKind::Regular | FileKind::Directory);
        let path = Place::Fd(fd).path();
        let kept = if !carrier {
            Err(Raw::OPNOTSUPP)
        } else if record.is_empty() {
            rustix::fs::removexattr(&path[..], ATTRIBUTE)
        } else {
            let bytes = record.encode();
            rustix::fs::setxattr(&path[..], ATTRIBUTE, &bytes, XattrFlags::empty())
        };
        let side = |record| match &self.side {
            Some(side) => side.put(&host.id, record),
            None if record.is_empty() => Ok(()),
            None => Err(Errno::NotPermitted),
        };
        match kept {
            // What was kept in the database while the file could not carry it is old.
            Ok(()) | Err(Raw::NODATA) => side(Record::default()),
            Err(Raw::OPNOTSUPP | Raw::ACCESS | Raw::PERM | Raw::NOSPC | Raw::DQUOT) => {
                side(*record)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file be for clients what is wanted. `chmod` does to the host what its name says.
    ///
    /// # Errors
    ///
    /// The host refuses, or cannot keep the record.
    pub(super) fn make(
        &self,
        host: &Metadata,
        fd: BorrowedFd<'_>,
        wanted: &Wanted,
        chmod: impl FnOnce(u32) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (mode, record) = self.plan(host, wanted);
        let known = self.load(host, Place::Fd(fd)).unwrap_or_default();
        // An attribute goes and comes while the file may be written to.
        if record.is_empty() && !known.is_empty() {
            self.store(host, fd, &record)?;
        }
        if mode != host.mode & 0o7777 {
            chmod(mode)?;
        }
        if !record.is_empty() && record != known {
            self.store(host, fd, &record)?;
        }
        Ok(())
    }

    /// Gives the server's user the right to read and write a file of its own whose mode withholds it, and
    /// keeps the mode for clients: who may do what there their kernel has decided.
    ///
    /// # Errors
    ///
    /// The file is another's, or as for [`Beside::make`].
    pub(super) fn lift(
        &self,
        host: &Metadata,
        fd: BorrowedFd<'_>,
        chmod: impl FnOnce(u32) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let own = host.user == self.server.user && host.kind() == FileKind::Regular;
        if !own || host.mode & 0o600 == 0o600 {
            return Err(Errno::AccessDenied);
        }
        let seen = self.seen(*host, Place::Fd(fd));
        let (_, mut record) = self.plan(host, &Wanted::from(&seen));
        let mode = host.mode & 0o1777 | 0o600;
        record.mode = Some(Mode {
            seen: bits(seen.mode),
            host: bits(mode),
        });
        chmod(mode)?;
        self.store(host, fd, &record)
    }

    /// What is wanted of a file that somebody writes to who may be anybody: it runs with nobody's rights
    /// from then on. `None` when that is so already.
    pub(super) fn written(seen: &Metadata) -> Option<Wanted> {
        let stripped = stripped(seen);
        (seen.mode != stripped.mode).then(|| Wanted::from(&stripped))
    }

    /// Whether something may have to be forgotten when a file is removed.
    pub(super) fn remembers(&self) -> bool {
        self.side.as_ref().is_some_and(|side| !side.is_empty())
    }

    /// Forgets a file that has lost a name and is gone.
    pub(super) fn forget(&self, gone: &Metadata) {
        if gone.links <= 1 || gone.kind() == FileKind::Directory {
            // What is left is one record too many, which is dropped in its time.
            let _ = self
                .side
                .as_ref()
                .map(|side| side.put(&gone.id, Record::default()));
        }
    }

    pub(super) fn sync(&self) -> Result<(), Errno> {
        self.side.as_ref().map_or(Ok(()), |side| side.sync())
    }
}

/// A file without the rights of its owner and group for whoever runs it, as the kernel takes them away at
/// a write and at a change of owner (`should_remove_suid` of linux/fs/inode.c): setgid without the right to
/// run is a mark of something else, and a directory is not run.
pub(super) fn stripped(seen: &Metadata) -> Metadata {
    let mut stripped = *seen;
    if seen.kind() != FileKind::Directory {
        stripped.mode &= !0o4000;
        if seen.mode & 0o010 != 0 {
            stripped.mode &= !0o2000;
        }
    }
    stripped
}

fn bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beside() -> Beside {
        Beside {
            owner: Owner {
                user: 501,
                group: 20,
            },
            server: Owner {
                user: 1000,
                group: 1000,
            },
            side: None,
        }
    }

    proptest! {
        /// Whatever is wanted, the host has no bit that runs with another's rights, its user is not
        /// locked out of what has a record, and clients see what is wanted.
        #[test]
        fn what_is_planned_is_seen(
            directory in any::<bool>(),
            before in 0..=0o1777u32,
            mode in 0..=0o7777u32,
            user in prop_oneof![Just(501u32), Just(0), any::<u32>().prop_map(|it| it / 2)],
            special in prop_oneof![Just(None), Just(Some(Special::Fifo))],
        ) {
            let kind = if directory { 0o040_000 } else { 0o100_000 };
            let special = special.filter(|_| !directory);
            let host = Metadata { mode: kind | before, user: 1000, group: 1000, ..Metadata::default() };
            let wanted = Wanted { user, group: 20, mode, special };
            let (planned, record) = beside().plan(&host, &wanted);
            prop_assert_eq!(planned & 0o6000, 0);
            if !record.is_empty() {
                prop_assert_eq!(planned & 0o600, 0o600);
            }
            let after = Metadata { mode: kind | planned, ..host };
            let seen = record.over(beside().mapped(after));
            prop_assert_eq!(Wanted::from(&seen), wanted);
        }
    }

    #[test]
    fn what_the_host_can_have_has_no_record() {
        let host = Metadata {
            mode: 0o100_644,
            user: 1000,
            group: 1000,
            ..Metadata::default()
        };
        for mode in [0o644, 0o444, 0o755, 0o1600, 0o555] {
            let wanted = Wanted {
                user: 501,
                group: 20,
                mode,
                special: None,
            };
            assert_eq!(beside().plan(&host, &wanted), (mode, Record::default()));
        }
    }
}
