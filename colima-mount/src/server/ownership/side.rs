//! Records of files that cannot carry them: symbolic links, files of others, file systems without
//! extended attributes.
//!
//! One file, which changes are appended to, each with a checksum, and which is written anew, with
//! `fsync` and `rename`, when most of it is history. A torn end, as a loss of power leaves it, is dropped.
//! Files are known by inode and time of birth, so that one that comes after another under the same number
//! is not taken for it. What is removed through the server is forgotten at once; of the rest, which the
//! host may have removed, those that were looked at longest ago go first when there are too many.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read as _},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::record::Record;
use crate::sftp::{Errno, FileId};

/// Records at most; each takes some 100 bytes of memory.
const CAPACITY: usize = 65_536;
const HEADER: &[u8; 16] = b"colima records1\n";
/// Inode, birth, tick, record, checksum.
const ENTRY: usize = 8 + 8 + 8 + Record::LENGTH + 4;

type Key = (u64, u64);

/// The database. One process at a time has it.
#[derive(Debug)]
pub(super) struct Side {
    directory: OwnedFd,
    /// Held for as long as this lives.
    _lock: OwnedFd,
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    log: OwnedFd,
    /// Entries in the log, those that were overtaken by later ones too.
    written: usize,
    /// Counts uses; what has the lowest was used longest ago.
    tick: u64,
    records: HashMap<Key, (Record, u64)>,
}

fn key(id: &FileId) -> Key {
    (id.inode, id.birth)
}

/// FNV-1a, folded: it finds what is torn, and is no protection against malice.
fn checksum(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    #[expect(clippy::cast_possible_truncation, reason = "folded")]
    let folded = (hash ^ hash >> 32) as u32;
    folded
}

/// An entry; a record that is empty is one that was forgotten.
fn entry(key: Key, record: &Record, tick: u64) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&key.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&key.1.to_be_bytes());
    bytes[16..24].copy_from_slice(&tick.to_be_bytes());
    bytes[24..ENTRY - 4].copy_from_slice(&record.encode());
    let sum = checksum(&bytes[..ENTRY - 4]);
    bytes[ENTRY - 4..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8; ENTRY]) -> Option<(Key, Record, u64)> {
    let long = |at: usize| {
        let mut long = [0; 8];
        long.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(long)
    };
    let (body, sum) = bytes.split_at(ENTRY - 4);
    if checksum(body).to_be_bytes() != sum {
        return None;
    }
    let record = Record::decode(&body[24..])?;
    Some(((long(0), long(8)), record, long(16)))
}

impl State {
    fn apply(&mut self, key: Key, record: Record, tick: u64) {
        self.tick = self.tick.max(tick);
        if record.is_empty() {
            self.records.remove(&key);
        } else {
            self.records.insert(key, (record, tick));
        }
    }

    /// Reads a log as far as it makes sense.
    fn read(log: OwnedFd) -> io::Result<Self> {
        let mut state = Self {
            log: rustix::io::fcntl_dupfd_cloexec(&log, 0)?,
            written: 0,
            tick: 0,
            records: HashMap::new(),
        };
        let mut reader = BufReader::new(std::fs::File::from(log));
        let mut header = [0; HEADER.len()];
        match reader.read_exact(&mut header) {
            Ok(()) if header == *HEADER => {}
            Ok(()) => return Err(io::ErrorKind::InvalidData.into()),
            // It was being made.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                state.written = usize::MAX;
                return Ok(state);
            }
            Err(error) => return Err(error),
        }
        let mut bytes = [0; ENTRY];
        loop {
            match reader.read_exact(&mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(state),
                Err(error) => return Err(error),
            }
            let Some((key, record, tick)) = parse(&bytes) else {
                state.written = usize::MAX;
                return Ok(state);
            };
            state.apply(key, record, tick);
            state.written += 1;
        }
    }
}

impl Side {
    /// Opens the database in a directory, or makes it there.
    ///
    /// # Errors
    ///
    /// Another process has it (`WouldBlock`), it has a form that is not known (`InvalidData`), or the
    /// directory cannot be used.
    pub(super) fn open(directory: OwnedFd) -> io::Result<Self> {
        Self::with_capacity(
            directory,
            CAPACITY,
            FlockOperation::NonBlockingLockExclusive,
        )
    }

    /// As [`Side::open`], when nobody else has it any more.
    pub(super) fn open_when_free(directory: OwnedFd) -> io::Result<Self> {
        Self::with_capacity(directory, CAPACITY, FlockOperation::LockExclusive)
    }

    fn with_capacity(
        directory: OwnedFd,
        capacity: usize,
        lock_as: FlockOperation,
    ) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&directory, c"lock", flags, mode)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, lock_as))?;
        let log = rustix::fs::openat(&directory, c"records", flags, mode)?;
        let side = Self {
            state: Mutex::new(State::read(log)?),
            directory,
            _lock: lock,
            capacity,
        };
        // The end of what was read is where appending may begin.
        side.write_anew(&mut side.state())?;
        Ok(side)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &FileId) -> Option<Record> {
        let mut state = self.state();
        if state.records.is_empty() {
            return None;
        }
        state.tick += 1;
        let tick = state.tick;
        let (record, used) = state.records.get_mut(&key(id))?;
        *used = tick;
        Some(*record)
    }

    /// Keeps the record of a file; an empty one is forgotten.
    pub(super) fn put(&self, id: &FileId, record: Record) -> Result<(), Errno> {
        let key = key(id);
        let mut state = self.state();
        match state.records.get(&key) {
            None if record.is_empty() => return Ok(()),
            Some((known, _)) if *known == record => return Ok(()),
            _ => {}
        }
        state.tick += 1;
        let tick = state.tick;
        let bytes = entry(key, &record, tick);
        // Less than a whole entry makes whatever comes behind it unreadable, so then all is written anew.
        let appended = rustix::io::write(&state.log, &bytes)?;
        state.apply(key, record, tick);
        state.written += 1;
        if state.records.len() > self.capacity {
            self.evict(&mut state);
        }
        let history = state.written > 2 * state.records.len() + 1024;
        if history || appended < ENTRY || state.records.len() > self.capacity {
            self.write_anew(&mut state)?;
        }
        Ok(())
    }

    /// Drops the quarter that was used longest ago.
    fn evict(&self, state: &mut State) {
        let mut ticks: Vec<u64> = state.records.values().map(|(_, tick)| *tick).collect();
        let (_, oldest, _) = ticks.select_nth_unstable(self.capacity / 4);
        let oldest = *oldest;
        state.records.retain(|_, (_, tick)| *tick > oldest);
        state.written = usize::MAX - 1;
    }

    fn write_anew(&self, state: &mut State) -> io::Result<()> {
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::APPEND
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let new = rustix::fs::openat(&self.directory, c"records.new", flags, mode)?;
        let mut bytes = HEADER.to_vec();
        for (key, (record, tick)) in &state.records {
            bytes.extend_from_slice(&entry(*key, record, *tick));
        }
        let mut left = &bytes[..];
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&new, left))?;
            left = &left[written..];
        }
        rustix::fs::fsync(&new)?;
        rustix::fs::renameat(&self.directory, c"records.new", &self.directory, c"records")?;
        rustix::fs::fsync(&self.directory)?;
        state.written = state.records.len();
        state.log = new;
        Ok(())
    }

    /// Whether there is nothing to forget.
    pub(super) fn is_empty(&self) -> bool {
        self.state().records.is_empty()
    }

    /// Makes what was kept durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        Ok(rustix::fs::fdatasync(&self.state().log)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path, capacity: usize) -> io::Result<Side> {
        let directory = std::fs::File::open(path)?;
        let lock_as = FlockOperation::NonBlockingLockExclusive;
        Side::with_capacity(directory.into(), capacity, lock_as)
    }

    fn id(inode: u64) -> FileId {
        FileId {
            device: 0,
            inode,
            birth: 7,
        }
    }

    fn owned_by(user: u32) -> Record {
        Record {
            user: Some(user),
            ..Record::default()
        }
    }

    #[test]
    fn what_is_kept_outlives_the_process_and_what_is_forgotten_does_not() {
        let place = tempfile::tempdir().unwrap();
        let side = open(place.path(), 100).unwrap();
        side.put(&id(1), owned_by(5)).unwrap();
        side.put(&id(2), owned_by(6)).unwrap();
        side.put(&id(2), Record::default()).unwrap();
        assert_eq!(
            open(place.path(), 100).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "one at a time"
        );
        drop(side);
        let side = open(place.path(), 100).unwrap();
        assert_eq!(side.get(&id(1)), Some(owned_by(5)));
        assert_eq!(side.get(&id(2)), None);
        let later = FileId { birth: 8, ..id(1) };
        assert_eq!(side.get(&later), None, "another file of the same number");
    }

    #[test]
    fn who_waits_has_what_was_kept_last() {
        let place = tempfile::tempdir().unwrap();
        let side = open(place.path(), 100).unwrap();
        let directory = std::fs::File::open(place.path()).unwrap();
        let waits = std::thread::spawn(move || Side::open_when_free(directory.into()));
        side.put(&id(1), owned_by(5)).unwrap();
        drop(side);
        let side = waits.join().unwrap().unwrap();
        assert_eq!(side.get(&id(1)), Some(owned_by(5)));
    }

    #[test]
    fn a_torn_end_costs_nothing_but_itself_and_another_form_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("records");
        let side = open(place.path(), 100).unwrap();
        side.put(&id(1), owned_by(5)).unwrap();
        side.put(&id(2), owned_by(6)).unwrap();
        drop(side);
        let whole = std::fs::read(&log).unwrap();
        for cut in HEADER.len() + ENTRY..whole.len() {
            std::fs::write(&log, &whole[..cut]).unwrap();
            let side = open(place.path(), 100).unwrap();
            assert_eq!(side.get(&id(1)), Some(owned_by(5)));
            assert_eq!(side.get(&id(2)), None);
            side.put(&id(3), owned_by(7)).unwrap();
            drop(side);
            let side = open(place.path(), 100).unwrap();
            assert_eq!(side.get(&id(3)), Some(owned_by(7)), "cut at {cut}");
        }
        std::fs::write(&log, b"colima records9\n").unwrap();
        let error = open(place.path(), 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&log).unwrap(), b"colima records9\n");
    }

    #[test]
    fn it_is_bounded_in_memory_and_on_disk() {
        let place = tempfile::tempdir().unwrap();
        let side = open(place.path(), 64).unwrap();
        for round in 0..200 {
            for inode in 0..100 {
                side.put(&id(round * 50 + inode), owned_by(5)).unwrap();
                // One that is looked at all the time stays.
                side.put(&id(u64::MAX), owned_by(9)).unwrap();
                assert_eq!(side.get(&id(u64::MAX)), Some(owned_by(9)));
            }
        }
        assert!(side.state().records.len() <= 64);
        let length = std::fs::metadata(place.path().join("records"))
            .unwrap()
            .len();
        assert!(length <= (ENTRY * (3 * 64 + 1024)) as u64, "{length} bytes");
    }
}
