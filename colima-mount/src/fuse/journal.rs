//! What the kernel holds numbers of, written down where it outlives the process that serves it.
//!
//! The journal is a file without a name (`memfd_create`) that the keeper of the mount holds too: a
//! header, and records behind each other. A record is written before the kernel is told of what it is
//! about. A process that is killed while it writes leaves a record that is cut off, of which the
//! kernel was told nothing.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::{FallocateFlags, MemfdFlags, fallocate, fstat, ftruncate, memfd_create},
    io::{pread, pwrite},
};

use crate::sftp::{Field, FileId, Frame, Malformed, OpenFlags};

/// The first bytes of a journal, and its version.
const MAGIC: u64 = u64::from_be_bytes(*b"colimaj1");
/// Where records begin at first; before it there is the header.
const RECORDS: u64 = 4096;
/// Bytes of records before it is worth writing down anew what is left of them.
const WORTH: u64 = 4 * 1024 * 1024;

/// Something that has become so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A number stands for a file.
    Node {
        ino: u64,
        id: FileId,
        mode: u32,
    },
    Bind {
        parent: u64,
        name: Bytes,
        ino: u64,
    },
    Unbind {
        parent: u64,
        name: Bytes,
    },
    /// The kernel was told of a number, so many times.
    Told {
        ino: u64,
        times: u64,
    },
    /// And has forgotten.
    Untold {
        ino: u64,
        times: u64,
    },
    Open {
        handle: u64,
        ino: u64,
        flags: OpenFlags,
    },
    OpenDirectory {
        handle: u64,
        ino: u64,
    },
    Release {
        handle: u64,
    },
    /// Something was written that may not be at the server.
    Unflushed {
        handle: u64,
    },
    /// Nothing is any more.
    Flushed {
        handle: u64,
    },
}

macro_rules! records {
    ($($number:literal $name:ident { $($field:ident),* })*) => {
        impl Record {
            fn frame(&self) -> Frame {
                match self {
                    $(Self::$name { $($field),* } => {
                        let mut frame = Frame::new($number);
                        $($field.put(&mut frame);)*
                        frame
                    })*
                }
            }

            fn take(bytes: &mut Bytes) -> Result<Self, Malformed> {
                match u8::take(bytes)? {
                    $($number => Ok(Self::$name { $($field: Field::take(bytes)?),* }),)*
                    _ => Err(Malformed),
                }
            }
        }
    };
}

records! {
    1 Node { ino, id, mode }
    2 Bind { parent, name, ino }
    3 Unbind { parent, name }
    4 Told { ino, times }
    5 Untold { ino, times }
    6 Open { handle, ino, flags }
    7 OpenDirectory { handle, ino }
    8 Release { handle }
    9 Unflushed { handle }
    10 Flushed { handle }
}

/// Something that the kernel holds open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// How it was opened, and whether something that was written may not be at the server.
    File {
        ino: u64,
        flags: OpenFlags,
        unflushed: bool,
        /// How often this process wrote.
        writes: u64,
    },
    Directory {
        ino: u64,
    },
}

/// What is held open, by handle.
#[derive(Debug, Default)]
pub(crate) struct KeptHandles(pub(crate) HashMap<u64, Kept>);

impl KeptHandles {
    pub(crate) fn apply(&mut self, record: &Record) {
        let unflushed_now = |handle: &u64, now: bool, kept: &mut HashMap<u64, Kept>| {
            if let Some(Kept::File { unflushed, .. }) = kept.get_mut(handle) {
                *unflushed = now;
            }
        };
        match record {
            Record::Open { handle, ino, flags } => {
                let (ino, flags) = (*ino, *flags);
                let (unflushed, writes) = (false, 0);
                self.0.insert(
                    *handle,
                    Kept::File {
                        ino,
                        flags,
                        unflushed,
                        writes,
                    },
                );
            }
            Record::OpenDirectory { handle, ino } => {
                self.0.insert(*handle, Kept::Directory { ino: *ino });
            }
            Record::Release { handle } => {
                self.0.remove(handle);
            }
            Record::Unflushed { handle } => unflushed_now(handle, true, &mut self.0),
            Record::Flushed { handle } => unflushed_now(handle, false, &mut self.0),
            _ => {}
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.0.iter().flat_map(|(handle, kept)| {
            let handle = *handle;
            let (open, unflushed) = match *kept {
                Kept::File {
                    ino,
                    flags,
                    unflushed,
                    ..
                } => (Record::Open { handle, ino, flags }, unflushed),
                Kept::Directory { ino } => (Record::OpenDirectory { handle, ino }, false),
            };
            let unflushed = unflushed.then_some(Record::Unflushed { handle });
            std::iter::once(open).chain(unflushed)
        })
    }
}

/// The journal, open at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: OwnedFd,
    start: u64,
    end: u64,
    /// Where it is worth writing it anew.
    full: u64,
    pending: Vec<u8>,
    pub(crate) handles: KeptHandles,
}

/// A new journal without records.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let file = memfd_create("colima-mount", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, RECORDS)?;
    put_header(&file, RECORDS)?;
    Ok(file)
}

fn put_header(file: impl AsFd, start: u64) -> io::Result<()> {
    let header = [MAGIC.to_be_bytes(), start.to_be_bytes()].concat();
    write_all(file, &header, 0)
}

fn write_all(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(&file, bytes, at) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
        }
    }
    Ok(())
}

fn read_all(file: impl AsFd, start: u64) -> io::Result<Vec<u8>> {
    let end = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(&file, &mut bytes[filled..], start + filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The records in bytes, and how many bytes are whole records.
fn whole_records(bytes: &Bytes) -> Result<(Vec<Record>, usize), Malformed> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes[at..].first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let end = at + 4 + length;
        // Behind a gap is what a process wrote anew and had no time to point to.
        if length == 0 || end > bytes.len() {
            break;
        }
        records.push(Record::take(&mut bytes.slice(at + 4..end))?);
        at = end;
    }
    Ok((records, at))
}

impl Journal {
    /// Opens a journal, and gives what is written in it.
    pub(crate) fn open(file: OwnedFd) -> io::Result<(Self, Vec<Record>)> {
        let no_journal = || io::Error::from(io::ErrorKind::InvalidData);
        let mut header = [0; 16];
        let got = pread(&file, &mut header, 0)?;
        let (magic, start) = header.split_at(8);
        if got < header.len() || magic != MAGIC.to_be_bytes() {
            return Err(no_journal());
        }
        let start = u64::from_be_bytes(start.try_into().map_err(|_| no_journal())?);
        let bytes = Bytes::from(read_all(&file, start)?);
        let (records, length) = whole_records(&bytes).map_err(|_| no_journal())?;
        let end = start + length as u64;
        // The rest is a record that was cut off.
        ftruncate(&file, end)?;
        let mut handles = KeptHandles::default();
        records.iter().for_each(|record| handles.apply(record));
        let journal = Self {
            file,
            start,
            end,
            full: start + WORTH.max(2 * length as u64),
            pending: Vec::new(),
            handles,
        };
        Ok((journal, records))
    }

    /// Notes a record, to be written with the next commit.
    pub(crate) fn note(&mut self, record: &Record) {
        self.handles.apply(record);
        self.pending.extend(record.frame().into_parts().0);
    }

    /// Writes down what was noted. After a failure nothing may be told that depends on it.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        write_all(&self.file, &self.pending, self.end)?;
        self.end += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Makes sure that nobody goes on from it.
    pub(crate) fn spoil(self) {
        let _ = ftruncate(&self.file, 0);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.end > self.full
    }

    /// Writes down anew what is still so, and drops what was written before.
    pub(crate) fn compact(&mut self, nodes: &[Record]) -> io::Result<()> {
        let handles: Vec<_> = self.handles.records().collect();
        let all = nodes.iter().chain(&handles);
        let bytes: Vec<u8> = all.flat_map(|it| it.frame().into_parts().0).collect();
        let start = self.end.next_multiple_of(RECORDS);
        write_all(&self.file, &bytes, start)?;
        put_header(&self.file, start)?;
        // The space of the old ones.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, hole, RECORDS, start - RECORDS)?;
        self.start = start;
        self.end = start + bytes.len() as u64;
        self.full = start + WORTH.max(2 * bytes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Record> {
        let id = FileId {
            device: 1,
            inode: 2,
            birth: 3,
        };
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        vec![
            Record::Node {
                ino: 2,
                id,
                mode: 0o100_644,
            },
            Record::Bind {
                parent: 1,
                name: "f".into(),
                ino: 2,
            },
            Record::Told { ino: 2, times: 1 },
            Record::Open {
                handle: 7,
                ino: 2,
                flags,
            },
            Record::Unflushed { handle: 7 },
            Record::OpenDirectory { handle: 8, ino: 1 },
            Record::Release { handle: 8 },
        ]
    }

    fn again(file: &OwnedFd) -> (Journal, Vec<Record>) {
        Journal::open(file.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn what_is_cut_off_was_not_written() {
        let file = create().unwrap();
        let (mut journal, records) = again(&file);
        assert!(records.is_empty());
        some().iter().for_each(|record| journal.note(record));
        journal.commit().unwrap();
        let end = journal.end;
        for cut in (RECORDS..=end).rev() {
            ftruncate(&file, cut).unwrap();
            let (journal, records) = again(&file);
            assert_eq!(records[..], some()[..records.len()], "{cut}");
            assert!(journal.end <= cut);
        }
    }

    #[test]
    fn what_is_written_anew_is_what_was_left() {
        let file = create().unwrap();
        let (mut journal, _) = again(&file);
        some().iter().for_each(|record| journal.note(record));
        journal.commit().unwrap();
        journal.compact(&some()[..3]).unwrap();
        journal.note(&Record::Flushed { handle: 7 });
        journal.commit().unwrap();
        let (journal, records) = again(&file);
        let mut left = some()[..5].to_vec();
        left.push(Record::Flushed { handle: 7 });
        assert_eq!(records, left);
        let kept = Kept::File {
            ino: 2,
            flags: OpenFlags::READ | OpenFlags::WRITE,
            unflushed: false,
            writes: 0,
        };
        assert_eq!(journal.handles.0, HashMap::from([(7, kept)]));
    }
}
