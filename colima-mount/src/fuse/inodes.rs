//! What the kernel knows of, by number, by identity and by name.
//!
//! All of it is behind one lock that is never held across a wait.

use std::{
    collections::HashMap,
    sync::Weak,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    echoes::Echoes,
    journal::{Journal, Record},
    replay::Replay,
};
use crate::{
    client::File,
    sftp::{Errno, FileId, FileKind, Metadata, Timestamp, Told, Version},
};

/// The number of the root, as the kernel has it.
pub(crate) const ROOT: u64 = 1;
/// How long the kernel may believe what is watched.
const LONG: Duration = Duration::from_secs(3600);
/// How long it may believe anything else.
const SHORT: Duration = Duration::from_secs(1);
/// Names that are not there and are remembered.
const NEGATIVES: usize = 64 * 1024;

/// Whether changes of a directory are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nobody asked.
    Not,
    /// Asked, not answered.
    Asked,
    /// They are.
    Told,
    /// The server has too many; worth asking again then.
    Refused(Instant),
}

/// Something the kernel holds a number of.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) id: FileId,
    /// Directories and the names in them, the newest last.
    pub(crate) names: Vec<(u64, Bytes)>,
    lookups: u64,
    pub(crate) known: Metadata,
    /// Until when `known` needs no question.
    fresh: Option<Instant>,
    /// The content that the kernel's pages are of.
    pub(crate) pages: Option<Version>,
    pub(crate) watch: Watch,
    /// Rises with every change in the directory that is told.
    pub(crate) epoch: u64,
    /// Whether the kernel's copy of the listing is right.
    pub(crate) listed: bool,
    pub(crate) files: Vec<Weak<File>>,
    /// What watchers in the kernel have heard of.
    pub(crate) heard: Heard,
    /// Operations of the client itself that are not answered and change it.
    pub(crate) busy: u32,
    /// Whether its changes are to be told for as long as the kernel knows of it.
    wanted: bool,
}

/// The last state of a file that watchers in the kernel have heard of: from the kernel itself, which did
/// it, or by a replay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) changed: Timestamp,
    pub(crate) content: bool,
    pub(crate) attributes: bool,
}

/// Something the kernel is told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) ino: u64,
    pub(crate) metadata: Metadata,
    /// How long the name may be believed.
    pub(crate) name_valid: Duration,
    /// How long the metadata may be.
    pub(crate) valid: Duration,
}

/// Something the kernel is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A name.
    Name(u64, Bytes),
    /// That a name needs no question: it is mostly right, and what is mounted there stays.
    NameDoubted(u64, Bytes),
    /// Metadata.
    Metadata(u64),
    /// Metadata and content, or listing.
    Content(u64),
    /// What is not to be forgotten but done once more.
    Replay(Replay),
}

/// Whether what was learned was learned while changes were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A change after it would be told.
    Told,
    /// It may be old by now.
    Guess,
}

#[derive(Debug)]
pub(crate) struct Inodes {
    by_number: HashMap<u64, Inode>,
    by_id: HashMap<FileId, u64>,
    /// `None` for a name that is known not to be there.
    names: HashMap<(u64, Bytes), Option<u64>>,
    negatives: usize,
    device: u64,
    pub(crate) notices: Vec<Notice>,
    /// Where it is written down, if somebody is to go on with it.
    pub(crate) journal: Option<Journal>,
    pub(crate) echoes: Echoes,
    /// Whether somebody may watch directories, which nobody tells us.
    pub(crate) watchers: bool,
    /// Numbers below it were never told.
    unused: u64,
}

impl Inodes {
    pub(crate) fn new(root: Metadata) -> Self {
        let mut inodes = Self {
            by_number: HashMap::new(),
            by_id: HashMap::new(),
            names: HashMap::new(),
            negatives: 0,
            device: root.id.device,
            notices: Vec::new(),
            journal: None,
            echoes: Echoes::default(),
            watchers: false,
            unused: u64::MAX - 2,
        };
        inodes.by_number.insert(ROOT, Inode::new(root));
        inodes.by_id.insert(root.id, ROOT);
        inodes
    }

    /// What an earlier process has written down.
    pub(crate) fn restore(root: Metadata, records: &[Record], journal: Journal) -> Self {
        let mut inodes = Self::new(root);
        for record in records {
            match record {
                Record::Node { ino, id, mode } => {
                    let known = Metadata {
                        id: *id,
                        mode: *mode,
                        ..Metadata::default()
                    };
                    inodes.place(*ino, known);
                }
                Record::Bind { parent, name, ino } => inodes.bind(*parent, name, *ino),
                Record::Unbind { parent, name } => inodes.unbind(*parent, name),
                Record::Told { ino, times } => inodes.told(*ino, *times),
                Record::Untold { ino, times } => inodes.untell(*ino, *times),
                // Of handles, which the journal itself keeps.
                _ => {}
            }
        }
        inodes.journal = Some(journal);
        inodes
    }

    /// All that would have to be written down to restore it.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (ino, inode) in self.by_number.iter().filter(|(ino, _)| **ino != ROOT) {
            let (ino, times) = (*ino, inode.lookups);
            let (id, mode) = (inode.id, inode.known.mode);
            records.push(Record::Node { ino, id, mode });
            records.push(Record::Told { ino, times });
            for (parent, name) in &inode.names {
                let (parent, name) = (*parent, name.clone());
                records.push(Record::Bind { parent, name, ino });
            }
        }
        records
    }

    pub(crate) fn note(&mut self, record: impl FnOnce() -> Record) {
        if let Some(journal) = &mut self.journal {
            journal.note(&record());
        }
    }

    pub(crate) fn get(&self, ino: u64) -> Result<&Inode, Errno> {
        self.by_number.get(&ino).ok_or(Errno::Stale)
    }

    pub(crate) fn get_mut(&mut self, ino: u64) -> Result<&mut Inode, Errno> {
        self.by_number.get_mut(&ino).ok_or(Errno::Stale)
    }

    pub(crate) fn by_id(&self, id: FileId) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// What the name is known to be; `None` when nothing is known.
    pub(crate) fn named(&self, parent: u64, name: &Bytes) -> Option<Option<u64>> {
        self.names.get(&(parent, name.clone())).copied()
    }

    /// All names that are known in a directory.
    pub(crate) fn names_in(&self, parent: u64) -> Vec<(Bytes, Option<u64>)> {
        let inside = self.names.iter().filter(|((at, _), _)| *at == parent);
        inside
            .map(|((_, name), child)| (name.clone(), *child))
            .collect()
    }

    /// The path of an inode by its newest names.
    pub(crate) fn path(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        let mut components = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let (parent, name) = self.get(at)?.names.last().ok_or(Errno::Stale)?;
            components.push(&name[..]);
            at = *parent;
            // Deeper than any path may be: the host has moved things around meanwhile.
            if components.len() > 4096 {
                return Err(Errno::Stale);
            }
        }
        components.reverse();
        Ok(components.join(&b'/'))
    }

    pub(crate) fn path_of(&self, parent: u64, name: &[u8]) -> Result<Bytes, Errno> {
        let mut path = self.path(parent)?;
        path.push(b'/');
        path.extend_from_slice(name);
        Ok(path.into())
    }

    fn number(&self, id: FileId) -> u64 {
        let mut number = if id.device == self.device {
            id.inode
        } else {
            // Another device in the share: its numbers are moved out of the way of the first one's.
            id.inode ^ id.device.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63
        };
        while number <= ROOT
            || self
                .by_number
                .get(&number)
                .is_some_and(|other| (other.id.device, other.id.inode) != (id.device, id.inode))
        {
            number = number.wrapping_add(1 << 40 | 1);
        }
        number
    }

    /// The number that a file has, or would be given.
    pub(crate) fn number_of(&self, metadata: &Metadata) -> u64 {
        self.by_id(metadata.id)
            .unwrap_or_else(|| self.number(metadata.id))
    }

    /// Tells the kernel of a file without a name.
    pub(crate) fn introduce(&mut self, metadata: Metadata) -> u64 {
        let ino = self.number_of(&metadata);
        if self.by_id(metadata.id).is_none() {
            self.place(ino, metadata);
        }
        self.told(ino, 1);
        ino
    }

    /// Tells the kernel of a file once more as it was.
    pub(crate) fn introduce_again(&mut self, ino: u64) -> Option<Metadata> {
        let known = self.get(ino).ok()?.known;
        self.told(ino, 1);
        Some(known)
    }

    /// A number without a file.
    pub(crate) fn unused(&mut self) -> u64 {
        while self.by_number.contains_key(&self.unused) {
            self.unused -= 1;
        }
        self.unused -= 1;
        self.unused + 1
    }

    /// Directories whose changes are wanted and not told.
    pub(crate) fn deaf(&self) -> Vec<u64> {
        let all = self.by_number.iter();
        all.filter(|(_, inode)| inode.wanted && inode.watch == Watch::Not)
            .map(|(ino, _)| *ino)
            .collect()
    }

    /// Notes what a name is, and counts that the kernel was told.
    pub(crate) fn found(
        &mut self,
        parent: u64,
        name: &Bytes,
        metadata: Metadata,
        trust: Trust,
    ) -> Entry {
        let ino = self.by_id(metadata.id).unwrap_or_else(|| {
            let ino = self.number(metadata.id);
            self.place(ino, metadata);
            ino
        });
        self.bind(parent, name, ino);
        self.learn(ino, metadata, trust);
        self.told(ino, 1);
        Entry {
            ino,
            metadata,
            name_valid: self.name_validity(ino, trust),
            valid: self.validity(ino, trust),
        }
    }

    /// How long a name may be believed. That of a directory that is not watched is looked for again by who
    /// comes to watch it.
    pub(crate) fn name_validity(&self, ino: u64, trust: Trust) -> Duration {
        let deaf =
            |inode: &Inode| inode.known.kind() == FileKind::Directory && inode.watch == Watch::Not;
        match trust {
            _ if self.watchers && self.get(ino).is_ok_and(deaf) => Duration::ZERO,
            Trust::Told => LONG,
            Trust::Guess => SHORT,
        }
    }

    /// Gives a file a number.
    fn place(&mut self, ino: u64, metadata: Metadata) {
        let mut inode = Inode::new(metadata);
        // The number was another file's that is gone. The kernel tells the two apart by their
        // generation, but gives both back by number.
        if let Some(old) = self.by_number.remove(&ino) {
            self.by_id.remove(&old.id);
            inode.lookups = old.lookups;
            for (parent, name) in old.names {
                self.names.remove(&(parent, name));
            }
        }
        self.by_number.insert(ino, inode);
        self.by_id.insert(metadata.id, ino);
        self.note(|| Record::Node {
            ino,
            id: metadata.id,
            mode: metadata.mode,
        });
    }

    /// The kernel is told of the inode, so many times more.
    fn told(&mut self, ino: u64, times: u64) {
        if let Ok(inode) = self.get_mut(ino) {
            inode.lookups += times;
            self.note(|| Record::Told { ino, times });
        }
    }

    /// Notes that a name is not there. Gives how long the kernel may believe it.
    pub(crate) fn missing(&mut self, parent: u64, name: &Bytes, trust: Trust) -> Option<Duration> {
        self.unbind(parent, name);
        if trust == Trust::Guess || self.negatives >= NEGATIVES {
            return None;
        }
        self.names.insert((parent, name.clone()), None);
        self.negatives += 1;
        Some(LONG)
    }

    /// The kernel has been told of the inode one time less.
    pub(crate) fn untell(&mut self, ino: u64, times: u64) {
        let Some(inode) = self.by_number.get_mut(&ino) else {
            return;
        };
        inode.lookups = inode.lookups.saturating_sub(times);
        let left = inode.lookups;
        self.note(|| Record::Untold { ino, times });
        if left > 0 || ino == ROOT {
            return;
        }
        if let Some(inode) = self.by_number.remove(&ino) {
            self.by_id.remove(&inode.id);
            for key in inode.names {
                self.names.remove(&key);
            }
            // What was not in it is of no use without it.
            if inode.known.kind() == FileKind::Directory {
                let before = self.names.len();
                self.names
                    .retain(|(parent, _), child| *parent != ino || child.is_some());
                self.negatives -= before - self.names.len();
            }
        }
    }

    pub(crate) fn bind(&mut self, parent: u64, name: &Bytes, ino: u64) {
        let key = (parent, name.clone());
        if self.names.get(&key) == Some(&Some(ino)) {
            return;
        }
        self.unbind(parent, name);
        self.names.insert(key.clone(), Some(ino));
        if let Ok(inode) = self.get_mut(ino) {
            inode.names.push(key);
        }
        self.note(|| Record::Bind {
            parent,
            name: name.clone(),
            ino,
        });
    }

    /// Forgets what is known of a name.
    pub(crate) fn unbind(&mut self, parent: u64, name: &Bytes) {
        match self.names.remove(&(parent, name.clone())) {
            Some(Some(ino)) => {
                self.note(|| Record::Unbind {
                    parent,
                    name: name.clone(),
                });
                if let Ok(inode) = self.get_mut(ino) {
                    inode
                        .names
                        .retain(|(at, called)| (*at, called) != (parent, name));
                    inode.fresh = None;
                }
            }
            Some(None) => self.negatives -= 1,
            None => {}
        }
    }

    /// Notes that the client itself has renamed. What had the new name is gone, or has the old one.
    pub(crate) fn renamed(
        &mut self,
        from: (u64, &Bytes),
        to: (u64, &Bytes),
        rename: crate::sftp::Rename,
    ) {
        let moved = self.named(from.0, from.1).flatten();
        let replaced = self.named(to.0, to.1).flatten();
        self.unbind(from.0, from.1);
        self.unbind(to.0, to.1);
        if let Some(ino) = moved {
            self.bind(to.0, to.1, ino);
        }
        if rename == crate::sftp::Rename::Exchange {
            if let Some(ino) = replaced {
                self.bind(from.0, from.1, ino);
            }
        } else {
            let trust = self.trust(from.0);
            self.missing(from.0, from.1, trust);
        }
        for ino in [Some(from.0), Some(to.0), moved, replaced]
            .into_iter()
            .flatten()
        {
            self.doubt(ino);
        }
    }

    /// Changes may have been missed: nothing that is known of anything can be believed.
    pub(crate) fn void(&mut self) {
        self.echoes.heard(Told::Missed);
        for (key, child) in &self.names {
            let (parent, name) = key.clone();
            self.notices.push(match child {
                Some(_) => Notice::NameDoubted(parent, name),
                None => Notice::Name(parent, name),
            });
        }
        self.names.retain(|_, child| child.is_some());
        self.negatives = 0;
        for (ino, inode) in &mut self.by_number {
            inode.epoch += 1;
            inode.fresh = None;
            inode.forget_ahead();
            // One that is asked for sees the epoch.
            if inode.watch != Watch::Asked {
                inode.watch = Watch::Not;
            }
            let directory = inode.known.kind() == FileKind::Directory;
            let content = inode.pages.take().is_some() || (directory && inode.listed);
            inode.listed = false;
            self.notices.push(if content {
                Notice::Content(*ino)
            } else {
                Notice::Metadata(*ino)
            });
        }
    }

    /// What a name is by all that is known, for when nobody can be asked.
    pub(crate) fn remembered(&mut self, parent: u64, name: &Bytes) -> Option<Entry> {
        let ino = self.named(parent, name).flatten()?;
        let metadata = self.get(ino).ok()?.known;
        self.told(ino, 1);
        Some(Entry {
            ino,
            metadata,
            name_valid: Duration::ZERO,
            valid: Duration::ZERO,
        })
    }

    /// What the file of a name is known to be.
    pub(crate) fn id_of(&self, parent: u64, name: &Bytes) -> Option<FileId> {
        let ino = self.named(parent, name).flatten()?;
        Some(self.get(ino).ok()?.id)
    }

    /// Notes metadata of an inode. Pages of another content are dropped.
    pub(crate) fn learn(&mut self, ino: u64, metadata: Metadata, trust: Trust) {
        let valid = self.validity(ino, trust);
        let Some(inode) = self.by_number.get_mut(&ino) else {
            return;
        };
        inode.known = metadata;
        inode.fresh = Some(Instant::now() + valid);
        let version = Version::from(&metadata);
        // While the client itself writes, versions follow each other, and the writes tell of others.
        if inode.pages.is_some_and(|pages| pages != version) && !inode.is_behind() {
            inode.pages = None;
            inode.forget_ahead();
            self.notices.push(Notice::Content(ino));
        }
    }

    /// What is known of the inode is to be asked for again.
    pub(crate) fn doubt(&mut self, ino: u64) {
        if let Ok(inode) = self.get_mut(ino) {
            inode.fresh = None;
        }
    }

    /// Whether a change in the directory would be told.
    pub(crate) fn trust(&self, directory: u64) -> Trust {
        match self.get(directory).map(|inode| inode.watch) {
            Ok(Watch::Told) => Trust::Told,
            _ => Trust::Guess,
        }
    }

    /// How long the metadata of an inode may be believed.
    pub(crate) fn validity(&self, ino: u64, trust: Trust) -> Duration {
        let Ok(inode) = self.get(ino) else {
            return Duration::ZERO;
        };
        // Times of a directory change with what is in it, and no event of the one above says so.
        // A file with more names may be changed by one that is in no watched directory.
        let told = match inode.known.kind() {
            FileKind::Directory => inode.watch == Watch::Told,
            _ => {
                inode.known.links <= 1
                    && (inode.names.iter()).any(|(parent, _)| self.trust(*parent) == Trust::Told)
            }
        };
        if told && trust == Trust::Told {
            LONG
        } else {
            SHORT
        }
    }
}

impl Inode {
    fn new(known: Metadata) -> Self {
        Self {
            id: known.id,
            names: Vec::new(),
            lookups: 0,
            known,
            fresh: None,
            pages: None,
            watch: Watch::Not,
            epoch: 0,
            listed: false,
            files: Vec::new(),
            heard: Heard::default(),
            busy: 0,
            wanted: false,
        }
    }

    /// The metadata, if it needs no question, and for how long.
    pub(crate) fn fresh(&self) -> Option<(Metadata, Duration)> {
        let left = self.fresh?.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some((self.known, left))
    }

    /// Open files of it.
    pub(crate) fn open_files(&self) -> impl Iterator<Item = std::sync::Arc<File>> + '_ {
        self.files.iter().filter_map(Weak::upgrade)
    }

    /// The changes are to be told.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// The kernel itself has told watchers of a state.
    pub(crate) fn did(&mut self, changed: Timestamp) {
        if changed >= self.heard.changed {
            self.heard = Heard {
                changed,
                content: true,
                attributes: true,
            };
        }
    }

    /// Whether something that the client wrote is not at the server.
    pub(crate) fn is_behind(&self) -> bool {
        self.open_files().any(|file| file.is_behind())
    }

    pub(crate) fn forget_ahead(&self) {
        self.open_files().for_each(|file| file.forget_ahead());
    }
}
