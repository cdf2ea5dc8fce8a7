//! Programs that work on a mount while parts of it die: what they were told is so at the end.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{fs::FileExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use crate::{
    child_processes::{bound, mountpoint, share},
    mounted::eventually,
};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;

/// Bytes that say which file, block and round they are of.
fn block(file: u64, at: u64, round: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        for number in [file, at, round] {
            block.extend(number.to_ne_bytes());
        }
    }
    block.truncate(BLOCK);
    block
}

/// Errors that a program may see.
fn permitted(error: &io::Error) {
    let io_error = rustix::io::Errno::IO.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(io_error), "{error}");
}

/// What was done, and how often it was told that it may not have been.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicUsize,
    failed: AtomicUsize,
}

struct Work {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    workers: Vec<JoinHandle<Verdict>>,
}

/// What has to be on the host.
type Verdict = Box<dyn FnOnce(&Path) + Send>;

impl Work {
    /// Begins to work in a directory of the mount.
    fn begin(place: &Path) -> Self {
        fs::write(place.join("constant"), block(0, 0, 0).repeat(32)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let jobs: [fn(&Path, u64, &Job) -> Verdict; 4] = [write, write, read, make];
        let workers = (1..).zip(jobs).map(|(number, job)| {
            let (place, state) = (
                place.to_owned(),
                Job(Arc::clone(&stop), Arc::clone(&counts)),
            );
            std::thread::spawn(move || job(&place, number, &state))
        });
        Self {
            workers: workers.collect(),
            stop,
            counts,
        }
    }

    /// Ends it, and compares with the host.
    fn end(self, host: &Path) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().unwrap()(host);
        }
    }
}

struct Job(Arc<AtomicBool>, Arc<Counts>);

impl Job {
    fn goes_on(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    fn count<T>(&self, result: &io::Result<T>) -> bool {
        match result {
            Ok(_) => self.1.done.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                permitted(error);
                self.1.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        result.is_ok()
    }
}

/// Overwrites a file that stays open, block by block, with a sync for each round.
fn write(place: &Path, number: u64, job: &Job) -> Verdict {
    let name = format!("written{number}");
    let file = (OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false))
    .open(place.join(&name))
    .unwrap();
    let mut synced = None;
    let mut round = 0;
    while job.goes_on() {
        round += 1;
        let pass = || -> io::Result<()> {
            for at in 0..BLOCKS {
                file.write_all_at(&block(number, at, round), at * BLOCK as u64)?;
            }
            file.sync_all()
        };
        let result = pass();
        if job.count(&result) {
            synced = Some(round);
            let mut got = vec![0; BLOCK];
            let at = round % BLOCKS;
            let read = file.read_exact_at(&mut got, at * BLOCK as u64);
            if job.count(&read) {
                assert!(
                    got == block(number, at, round),
                    "block {at} of round {round} has {:?}",
                    &got[8..24]
                );
            }
        }
    }
    // One round that is not disturbed.
    round += 1;
    for at in 0..BLOCKS {
        let data = block(number, at, round);
        while !job.count(&file.write_all_at(&data, at * BLOCK as u64)) {}
    }
    let last = job.count(&file.sync_all());
    drop(file);
    Box::new(move |host| {
        assert!(synced.is_some(), "no round was ever synced");
        assert!(last, "nothing dies any more");
        let content = fs::read(host.join(name)).unwrap();
        for (at, got) in (0..).zip(content.chunks(BLOCK)) {
            assert!(got == block(number, at, round), "block {at}");
        }
    })
}

/// Reads a file that stays open and one that is opened each time.
fn read(place: &Path, _: u64, job: &Job) -> Verdict {
    let path = place.join("constant");
    let file = File::open(&path).unwrap();
    let mut got = vec![0; BLOCK];
    while job.goes_on() {
        if job.count(&file.read_exact_at(&mut got, 8 * BLOCK as u64)) {
            assert!(got == block(0, 0, 0));
        }
        let whole = fs::read(&path);
        if job.count(&whole) {
            assert!(whole.unwrap() == block(0, 0, 0).repeat(32));
        }
    }
    Box::new(|_| {})
}

/// Makes, renames, lists and removes files.
fn make(place: &Path, number: u64, job: &Job) -> Verdict {
    let directory = place.join("made");
    fs::create_dir(&directory).unwrap();
    // What has to be there; what is in neither may be.
    let mut there: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut perhaps: Vec<PathBuf> = Vec::new();
    let mut round = 0;
    while job.goes_on() {
        round += 1;
        let name = PathBuf::from(format!("f{round}"));
        let renamed = PathBuf::from(format!("g{round}"));
        let content = block(number, 0, round);
        let made = fs::write(directory.join(&name), &content);
        if !job.count(&made) {
            perhaps.push(name);
            continue;
        }
        let moved = fs::rename(directory.join(&name), directory.join(&renamed));
        if !job.count(&moved) {
            perhaps.extend([name, renamed]);
            continue;
        }
        there.insert(renamed, content);
        let names = fs::read_dir(&directory).and_then(|names| {
            names
                .map(|name| Ok(PathBuf::from(name?.file_name())))
                .collect::<io::Result<Vec<_>>>()
        });
        if job.count(&names) {
            let names = names.unwrap();
            assert!(
                there.keys().all(|name| names.contains(name)),
                "{names:?} of {there:?}"
            );
        }
        if there.len() > 20 {
            let (gone, _) = there.pop_first().unwrap();
            if !job.count(&fs::remove_file(directory.join(&gone))) {
                perhaps.push(gone);
            }
        }
    }
    Box::new(move |host| {
        let host = host.join("made");
        for (name, content) in &there {
            assert!(&fs::read(host.join(name)).unwrap() == content, "{name:?}");
        }
        for entry in fs::read_dir(&host).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            assert!(
                there.contains_key(&name) || perhaps.contains(&name),
                "{name:?}"
            );
        }
    })
}

/// The work as a process of its own: goes on for a while (`p`), makes something new (`n`), ends (`e`).
pub(crate) fn work(mut control: UnixStream, place: &Path) {
    let (mount, share) = (mountpoint(place), share(place));
    let work = Work::begin(&mount);
    let mut word = [0];
    let mut new = 0;
    while control.read_exact(&mut word).is_ok() {
        match word[0] {
            b'p' => {
                let done = || work.counts.done.load(Ordering::Relaxed);
                let before = done();
                eventually("work", || done() > before + 20);
            }
            b'n' => {
                new += 1;
                let bound = bound(place);
                let place = if bound.exists() { &bound } else { &mount };
                let new = place.join(format!("new{new}"));
                fs::write(&new, "new").unwrap();
                assert_eq!(fs::read(&new).unwrap(), b"new");
            }
            _ => break,
        }
        control.write_all(&word).unwrap();
    }
    work.end(&share);
    control.write_all(b"e").unwrap();
}
