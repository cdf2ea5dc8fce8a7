//! Names of a directory, a piece at a time.

use std::{
    fmt,
    os::fd::{AsFd as _, OwnedFd},
};

use bytes::Bytes;
use rustix::fs::{Dir, FileType};

use super::Share;
use crate::sftp::{Attributes, DirectoryEntry, Errno, Listing, Metadata, Name};

/// An open directory and how far it has been read.
pub(crate) struct Cursor {
    directory: OwnedFd,
    names: Dir,
    /// A name that was read but had no room in the last answer.
    left: Option<(Bytes, u64)>,
    /// Names that nobody sees.
    hidden: Vec<Bytes>,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// Bytes of an entry of a [`Listing`] besides its name.
const ENTRY: usize = 4 + 8 + 1 + 24 + 7 * 4 + 16 + 36;

impl Cursor {
    pub(crate) fn new(directory: OwnedFd, hidden: Vec<Bytes>) -> Result<Self, Errno> {
        let names = Dir::read_from(&directory)?;
        Ok(Self {
            directory,
            names,
            left: None,
            hidden,
        })
    }

    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn next(&mut self) -> Option<Result<(Bytes, u64), Errno>> {
        if let Some(left) = self.left.take() {
            return Some(Ok(left));
        }
        loop {
            let entry = match self.names.read()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = Bytes::copy_from_slice(entry.file_name().to_bytes());
            if !self.hidden.contains(&name) {
                return Some(Ok((name, entry.offset().cast_unsigned())));
            }
        }
    }

    /// The next entries that take at most `budget` bytes, one at least; none at the end.
    pub(crate) fn list(
        &mut self,
        share: &Share,
        from: Option<u64>,
        budget: u32,
    ) -> Result<Listing, Errno> {
        if let Some(cookie) = from {
            self.left = None;
            match cookie {
                0 => self.names.rewind(),
                cookie => self.names.seek(cookie.cast_signed())?,
            }
        }
        let budget = (budget as usize).min(Listing::MAX);
        let mut listing = Listing::default();
        let mut taken = 4;
        while let Some(next) = self.next() {
            let (name, cookie) = next?;
            taken += ENTRY + name.len();
            if taken > budget && !listing.entries.is_empty() {
                self.left = Some((name, cookie));
                break;
            }
            // Gone since it was read, or not for us to look at: the name is told all the same.
            let metadata = share.see_name(self.directory.as_fd(), &name).ok();
            listing.entries.push(DirectoryEntry {
                name,
                cookie,
                metadata,
            });
        }
        Ok(listing)
    }

    /// The next entries for a client of version 3; none at the end.
    pub(crate) fn names(&mut self, share: &Share) -> Result<Vec<Name>, Errno> {
        let mut names = Vec::new();
        // As many as OpenSSH sends.
        while names.len() < 100 {
            let Some(name) = self.next() else { break };
            let (name, _) = name?;
            let Ok(metadata) = share.see_name(self.directory.as_fd(), &name) else {
                continue;
            };
            names.push(Name {
                line: line(&name, &metadata),
                attributes: Attributes::from(&metadata),
                name,
            });
        }
        Ok(names)
    }
}

/// Whether a directory has a name for an inode; one that has more than so many names is not read to its end.
pub(super) fn has_inode(directory: &OwnedFd, inode: u64, most: usize) -> Result<bool, Errno> {
    for (count, entry) in Dir::read_from(directory)?.enumerate() {
        if entry?.ino() == inode || count >= most {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The line of `ls -l`, with numbers for owners: names of the host's users are nobody's business.
fn line(name: &[u8], metadata: &Metadata) -> Bytes {
    let kind = match FileType::from_raw_mode(metadata.mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '-',
    };
    let mut text = String::from(kind);
    for shift in [6, 3, 0] {
        let bits = metadata.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(if bits & 1 == 0 { '-' } else { 'x' });
    }
    let (year, month, day) = date(metadata.modified.seconds);
    let mut line = format!(
        "{text} {:4} {:<8} {:<8} {:8} {month} {day:2} {year:5} ",
        metadata.links, metadata.user, metadata.group, metadata.size
    )
    .into_bytes();
    line.extend_from_slice(name);
    line.into()
}

/// The date of a time, in UTC: there is no time zone to ask without reading the environment.
///
/// From Howard Hinnant's
/// [`civil_from_days`](https://howardhinnant.github.io/date_algorithms.html#civil_from_days).
fn date(seconds: i64) -> (i64, &'static str, i64) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = year + era * 400 + i64::from(month < 2);
    (year, MONTHS[usize::try_from(month).unwrap_or(0)], day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, "Jan", 1));
        assert_eq!(date(951_782_400), (2000, "Feb", 29));
        assert_eq!(date(1_767_225_599), (2025, "Dec", 31));
        assert_eq!(date(-1), (1969, "Dec", 31));
    }
}
