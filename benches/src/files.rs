//! Work on files, timed where it is done: the same program on every mount and every file system.
//!
//! [`make`] lays out what is read; [`run`] reads it, and writes, makes and removes files beside it. First and
//! second use of the same files are measured apart, so that a mount has to be new when it begins.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, UNIX_EPOCH},
};

use rustix::fs::{Advice, fadvise};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// For a processor.
    Whole,
    /// A third of the files, for an emulated one; files are as large.
    Third,
}

impl Amount {
    /// As it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Third => "third",
        }
    }

    /// The amount of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Whole, Self::Third]
            .into_iter()
            .find(|amount| amount.name() == name)
    }

    const fn of(self, count: usize) -> usize {
        match self {
            Self::Whole => count,
            Self::Third => count / 3,
        }
    }

    /// Files that are found.
    #[must_use]
    pub const fn found(self) -> usize {
        self.of(2847)
    }

    /// Small files that are read, and that git has.
    #[must_use]
    pub const fn small(self) -> usize {
        self.of(900)
    }

    /// Files that are unpacked; directories and links come to it.
    #[must_use]
    pub const fn unpacked(self) -> usize {
        self.of(1200)
    }

    /// Reads at random places.
    #[must_use]
    pub const fn reads(self) -> usize {
        self.of(600)
    }

    /// Transactions.
    #[must_use]
    pub const fn commits(self) -> usize {
        self.of(60)
    }
}

/// Bytes of the large files.
pub const LARGE: u64 = 64 << 20;
/// Bytes of a read at a random place, and of a database's page.
const PAGE: usize = 4096;
/// Bytes per system call where much is moved.
const BLOCK: usize = 1 << 20;
/// Files in one directory.
const TOGETHER: usize = 20;

/// One piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Every directory listed, and looked at.
    FindFirst,
    /// Once more.
    FindAgain,
    /// Metadata of every file.
    Stat,
    /// Small files read.
    ReadFirst,
    /// Once more.
    ReadAgain,
    /// The median of reads at random places.
    RandomRead,
    /// Files made as `tar` makes them.
    Unpack,
    /// And removed.
    Remove,
    /// A large file written, and synced.
    Write,
    /// And read, from where it was written to.
    ReadBack,
    /// Transactions as SQLite's with a rollback journal.
    Commit,
    /// `git status` on a mount that git has not seen.
    StatusFirst,
    /// Once more.
    StatusAgain,
    /// `git clone` to the mount.
    Clone,
}

impl Work {
    /// All of it, in the order in which it is done.
    pub const ALL: [Self; 14] = [
        Self::FindFirst,
        Self::FindAgain,
        Self::Stat,
        Self::ReadFirst,
        Self::ReadAgain,
        Self::RandomRead,
        Self::Unpack,
        Self::Remove,
        Self::Write,
        Self::ReadBack,
        Self::Commit,
        Self::StatusFirst,
        Self::StatusAgain,
        Self::Clone,
    ];

    /// As it is printed with its time.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FindFirst => "find-first",
            Self::FindAgain => "find-again",
            Self::Stat => "stat",
            Self::ReadFirst => "read-first",
            Self::ReadAgain => "read-again",
            Self::RandomRead => "random-read",
            Self::Unpack => "unpack",
            Self::Remove => "remove",
            Self::Write => "write",
            Self::ReadBack => "read-back",
            Self::Commit => "commit",
            Self::StatusFirst => "status-first",
            Self::StatusAgain => "status-again",
            Self::Clone => "clone",
        }
    }
}

/// A small file, as large as sources are.
const fn small_size(index: usize) -> usize {
    200 + index * 997 % 8000
}

/// Bytes that nothing compresses, another sequence for each seed. Xorshift64; its state must not be zero.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The places of files below a directory, a few in each of nested directories.
fn places(below: &Path, count: usize) -> impl Iterator<Item = PathBuf> {
    (0..count).map(move |index| {
        let directory = index / TOGETHER;
        below.join(format!("d{}/e{directory}/file-{index}.txt", directory / 10))
    })
}

fn write_tree(below: &Path, count: usize, size: fn(usize) -> usize) -> io::Result<()> {
    for (index, path) in places(below, count).enumerate() {
        if index % TOGETHER == 0 {
            fs::create_dir_all(path.parent().unwrap_or(below))?;
        }
        fs::write(path, noise(index, size(index)))?;
    }
    Ok(())
}

/// Makes, in a directory that is empty or not there, what [`run`] reads.
///
/// # Errors
///
/// Those of the file system, and git's.
pub fn make(directory: &Path, amount: Amount, git: &[&str]) -> io::Result<()> {
    write_tree(&directory.join("many"), amount.found(), |_| 100)?;
    write_tree(&directory.join("small"), amount.small(), small_size)?;
    let mut random = File::create(directory.join("random"))?;
    for block in 0..usize::try_from(LARGE).unwrap_or_default() / BLOCK {
        random.write_all(&noise(block, BLOCK))?;
    }
    random.sync_all()?;
    if git.is_empty() {
        return Ok(());
    }
    let repository = directory.join("repository");
    write_tree(&repository, amount.small(), small_size)?;
    run_git(git, &repository, ["init", "--quiet"])?;
    run_git(git, &repository, ["add", "--all"])?;
    run_git(git, &repository, ["commit", "--quiet", "--message=all"])?;
    Ok(())
}

fn run_git<const N: usize>(git: &[&str], at: &Path, arguments: [&str; N]) -> io::Result<Vec<u8>> {
    let (program, before) = git
        .split_first()
        .ok_or_else(|| io::Error::other("there is no git"))?;
    let done = Command::new(program)
        .args(before)
        .arg("-C")
        .arg(at)
        .args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
        .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .output()?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let words = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("git: {}", words.trim())))
}

/// Does all work in what [`make`] made, and says how long each piece took, as it is done. What fails has failed, and
/// the next is done. Without git, its part is left out; `clone_from` is a repository elsewhere.
pub fn run(
    directory: &Path,
    amount: Amount,
    git: &[&str],
    clone_from: Option<&str>,
    mut done: impl FnMut(Work, io::Result<Duration>),
) {
    for work in Work::ALL {
        let of_git = matches!(work, Work::StatusFirst | Work::StatusAgain);
        if git.is_empty() && of_git || clone_from.is_none() && work == Work::Clone {
            continue;
        }
        let elapsed = once(work, directory, amount, git, clone_from.unwrap_or_default());
        done(work, elapsed);
    }
}

fn once(
    work: Work,
    directory: &Path,
    amount: Amount,
    git: &[&str],
    clone_from: &str,
) -> io::Result<Duration> {
    let at = |name: &str| directory.join(name);
    match work {
        Work::FindFirst | Work::FindAgain => timed(|| {
            let found = find(&at("many"))?;
            exactly(found as u64, amount.found() as u64)
        }),
        Work::Stat => timed(|| {
            for path in places(&at("many"), amount.found()) {
                exactly(path.symlink_metadata()?.len(), 100)?;
            }
            Ok(())
        }),
        Work::ReadFirst | Work::ReadAgain => timed(|| {
            for (index, path) in places(&at("small"), amount.small()).enumerate() {
                exactly(fs::read(path)?.len() as u64, small_size(index) as u64)?;
            }
            Ok(())
        }),
        Work::RandomRead => random_reads(&at("random"), amount.reads()),
        Work::Unpack => timed(|| unpack(&at("unpacked"), amount.unpacked())),
        Work::Remove => timed(|| fs::remove_dir_all(at("unpacked"))),
        Work::Write => write_large(&at("large")),
        Work::ReadBack => read_back(&at("large")),
        Work::Commit => commit(&at("database"), amount.commits()),
        Work::StatusFirst | Work::StatusAgain => timed(|| {
            let said = run_git(git, &at("repository"), ["status", "--porcelain"])?;
            if said.is_empty() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&said).into_owned();
            Err(io::Error::other(format!("git sees changes: {said}")))
        }),
        Work::Clone => {
            let to = at("clone");
            let elapsed = timed(|| {
                let clone = ["clone", "--quiet", "--no-hardlinks", clone_from, "clone"];
                run_git(git, directory, clone).map(drop)
            })?;
            fs::remove_dir_all(to)?;
            Ok(elapsed)
        }
    }
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn exactly(found: u64, expected: u64) -> io::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{found} instead of {expected}")))
}

/// Files below a directory, which `find` tells from directories by what a listing says.
fn find(directory: &Path) -> io::Result<usize> {
    directory.symlink_metadata()?;
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files += find(&entry.path())?;
        } else {
            files += 1;
        }
    }
    Ok(files)
}

/// The median of reads of pages that were not read before.
fn random_reads(path: &Path, count: usize) -> io::Result<Duration> {
    /// Odd, so that it meets each of a power of two once.
    const STRIDE: u64 = 40_503;

    let file = File::open(path)?;
    let (mut page, mut elapsed) = ([0; PAGE], Vec::with_capacity(count));
    for index in 0..count as u64 {
        let offset = index * STRIDE % (LARGE / PAGE as u64) * PAGE as u64;
        elapsed.push(timed(|| file.read_exact_at(&mut page, offset))?);
    }
    elapsed.sort_unstable();
    Ok(elapsed[count / 2])
}

/// As `tar` does it: new files only, mode and time by the descriptor, a link now and then.
fn unpack(directory: &Path, count: usize) -> io::Result<()> {
    let then = fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    for (index, path) in places(directory, count).enumerate() {
        let parent = path.parent().unwrap_or(directory);
        if index % TOGETHER == 0 {
            fs::create_dir_all(parent)?;
            symlink("file-0.txt", parent.join("link"))?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&noise(index, small_size(index)))?;
        file.set_times(then)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn write_large(path: &Path) -> io::Result<Duration> {
    let block = noise(7, BLOCK);
    timed(|| {
        let mut file = File::create(path)?;
        for _ in 0..usize::try_from(LARGE).unwrap_or_default() / BLOCK {
            file.write_all(&block)?;
        }
        file.sync_all()
    })
}

/// Without what this kernel remembers of it.
fn read_back(path: &Path) -> io::Result<Duration> {
    fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    let mut block = vec![0; BLOCK];
    let elapsed = timed(|| {
        let (mut file, mut arrived) = (File::open(path)?, 0);
        loop {
            match file.read(&mut block)? {
                0 => return exactly(arrived, LARGE),
                length => arrived += length as u64,
            }
        }
    })?;
    fs::remove_file(path)?;
    Ok(elapsed)
}

/// What SQLite does for each insert that is a transaction of its own: a journal with the old page, synced with its
/// directory, then the page, synced, then no journal.
fn commit(database: &Path, count: usize) -> io::Result<Duration> {
    let journal = database.with_extension("journal");
    let directory = File::open(database.parent().unwrap_or(database))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(database)?;
    file.write_all_at(&noise(1, 16 * PAGE), 0)?;
    file.sync_all()?;
    let mut page = [0; PAGE];
    let elapsed = timed(|| {
        for index in 0..count as u64 {
            let offset = index % 16 * PAGE as u64;
            file.read_exact_at(&mut page, offset)?;
            let kept = options.open(&journal)?;
            kept.write_all_at(&[0xd9; 512], 0)?;
            kept.write_all_at(&page, 512)?;
            kept.sync_data()?;
            directory.sync_all()?;
            page[0] = page[0].wrapping_add(1);
            file.write_all_at(&page, offset)?;
            file.sync_data()?;
            drop(kept);
            fs::remove_file(&journal)?;
        }
        Ok(())
    })?;
    fs::remove_file(database)?;
    Ok(elapsed)
}

/// Looks at a file as programs do that wait for an edit, and says each number that appears in it, until nobody
/// listens.
///
/// # Errors
///
/// The file cannot be read, or nobody listens any more.
pub fn watch(path: &Path, mut say: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    let (mut seen, mut last) = (None, None);
    loop {
        let now = path.metadata()?;
        let now = (now.modified()?, now.len());
        if seen.replace(now) != Some(now) {
            // It may be empty for a moment, or half of it: then there is another change to come.
            let number = fs::read_to_string(path)?.trim().parse::<u64>().ok();
            if let Some(number) = number
                && last.replace(number) != Some(number)
            {
                say(number)?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_is_done_on_a_plain_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let has_git = Command::new("git").arg("--version").output().is_ok();
        let git: &[&str] = if has_git { &["git"] } else { &[] };
        make(path, Amount::Third, git).unwrap();
        let source = path.join("repository");
        let source = has_git.then(|| source.to_str().unwrap());
        let mut done = Vec::new();
        run(path, Amount::Third, git, source, |work, elapsed| {
            assert!(elapsed.is_ok(), "{work:?}: {elapsed:?}");
            done.push(work);
        });
        let expected: &[Work] = if has_git {
            &Work::ALL
        } else {
            &Work::ALL[..11]
        };
        assert_eq!(done, expected);
        let left = fs::read_dir(path).unwrap().count();
        assert_eq!(left, 3 + usize::from(has_git), "only what was made is left");
    }

    #[test]
    fn work_that_lost_something_is_no_measurement() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), Amount::Third, &[]).unwrap();
        fs::remove_file(places(&directory.path().join("many"), 1).next().unwrap()).unwrap();
        let mut failed = Vec::new();
        run(
            directory.path(),
            Amount::Third,
            &[],
            None,
            |work, elapsed| {
                failed.extend(elapsed.is_err().then_some(work));
            },
        );
        assert_eq!(failed, [Work::FindFirst, Work::FindAgain, Work::Stat]);
    }

    #[test]
    fn random_places_are_distinct() {
        let pages = LARGE / PAGE as u64;
        let places: std::collections::HashSet<u64> =
            (0..600).map(|index| index * 40_503 % pages).collect();
        assert_eq!(places.len(), 600);
    }
}
