//! A client whose streams are cut anywhere: what it says is what is so.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use colima_mount::{
    Client, Patience,
    client::File,
    sftp::{Creation, Errno, NewNode, OpenFlags, Rename, Reply, Request, Update},
};

use crate::{
    cut_streams::{Reach, dial},
    peers,
    server_differential::tree,
};

const FILE: Creation = Creation {
    mode: 0o644,
    owner: None,
};
const DIRECTORY: Creation = Creation {
    mode: 0o755,
    owner: None,
};
const NAMES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "e/a"];

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// A thing to do, on names beneath some directory.
#[derive(Clone, Debug)]
enum Op {
    Mkdir(&'static str),
    Rmdir(&'static str),
    New(&'static str),
    Write(usize, u64, Vec<u8>),
    Append(&'static str, Vec<u8>),
    Read(usize),
    Resize(usize, u64),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Remove(&'static str),
    Link(&'static str, &'static str),
    List,
}

fn random_op(random: &mut Random, open: usize) -> Op {
    let mut name = || NAMES[random.below(NAMES.len())];
    let (one, other) = (name(), name());
    let data = |random: &mut Random| {
        let byte = u8::try_from(random.below(250)).unwrap();
        vec![byte; random.below(3000) + 1]
    };
    match random.below(16) {
        0 => Op::Mkdir(["d", "e"][random.below(2)]),
        1 => Op::Rmdir(["d", "e"][random.below(2)]),
        2..=4 => Op::New(one),
        5..=7 if open > 0 => Op::Write(random.below(open), random.below(9000) as u64, data(random)),
        8 => Op::Append(one, data(random)),
        9 if open > 0 => Op::Read(random.below(open)),
        10 if open > 0 => Op::Resize(random.below(open), random.below(9000) as u64),
        11 => Op::Rename(one, other),
        12 => Op::Exchange(one, other),
        13 => Op::Remove(one),
        14 => Op::Link(one, other),
        _ => Op::List,
    }
}

/// The same directory twice: behind the client, and as it should be.
struct Twins {
    client: Client,
    here: String,
    there: PathBuf,
    model: tempfile::TempDir,
    open: Vec<Twin>,
    doubts: usize,
    stale: usize,
}

/// A file that is open on both.
struct Twin {
    file: File,
    model: fs::File,
    /// Where it is; `None` when it has lost its name, and may not survive.
    name: Option<String>,
}

fn errno(result: &std::io::Result<()>) -> Option<Errno> {
    result
        .as_ref()
        .err()
        .map(|error| rustix::io::Errno::from_io_error(error).map_or(Errno::Io, Errno::from))
}

impl Twins {
    fn new(client: Client, share: &Path, name: &str) -> Self {
        let there = share.join(name);
        fs::create_dir(&there).unwrap();
        Self {
            client,
            here: name.to_owned(),
            there,
            model: tempfile::tempdir().unwrap(),
            open: Vec::new(),
            doubts: 0,
            stale: 0,
        }
    }

    fn path(&self, name: &str) -> Vec<u8> {
        format!("{}/{name}", self.here).into_bytes()
    }

    async fn open_new(&mut self, name: &'static str) -> Result<(), Errno> {
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::EXCLUSIVE;
        let file = self
            .client
            .open(&self.path(name), flags, Some(FILE))
            .await?;
        let model = (fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true))
        .open(self.model.path().join(name))
        .unwrap();
        let name = Some(name.to_owned());
        self.open.push(Twin { file, model, name });
        Ok(())
    }

    async fn done(&mut self, op: &Op) -> Result<(), Errno> {
        let client = self.client.clone();
        match op {
            Op::Mkdir(name) => client
                .make(&self.path(name), NewNode::Directory, DIRECTORY)
                .await
                .map(drop),
            Op::Rmdir(name) => client.remove_directory(&self.path(name)).await,
            Op::New(name) => self.open_new(name).await,
            Op::Write(at, offset, data) => {
                let file = &self.open[*at].file;
                file.write_at(*offset, data).await?;
                file.flush().await
            }
            Op::Append(name, data) => {
                let flags = OpenFlags::WRITE | OpenFlags::APPEND;
                let file = client.open(&self.path(name), flags, None).await?;
                file.write_at(0, data).await?;
                file.close().await
            }
            Op::Read(at) => {
                let Twin { file, model, .. } = &self.open[*at];
                let got = file.read_at(0, 20_000).await?;
                let mut expected = vec![0; 20_000];
                let length = model.read_at(&mut expected, 0).unwrap();
                assert!(
                    got[..] == expected[..length],
                    "{at} is not what was written"
                );
                Ok(())
            }
            Op::Resize(at, size) => {
                let update = Update {
                    size: Some(*size),
                    ..Update::default()
                };
                self.open[*at].file.set(update).await.map(drop)
            }
            Op::Rename(from, to) => {
                client
                    .rename(&self.path(from), &self.path(to), Rename::Replace)
                    .await
            }
            Op::Exchange(from, to) => {
                client
                    .rename(&self.path(from), &self.path(to), Rename::Exchange)
                    .await
            }
            Op::Remove(name) => client.remove(&self.path(name)).await,
            Op::Link(from, to) => {
                let (from, to) = (self.path(from).into(), self.path(to).into());
                client.call(&Request::Hardlink { from, to }).await.map(drop)
            }
            Op::List => {
                let path = self.here.clone().into();
                let Reply::Handle(handle) = client.call(&Request::Opendir { path }).await? else {
                    return Err(Errno::BadMessage);
                };
                let request = Request::List {
                    handle: handle.clone(),
                    from: Some(0),
                    budget: 100_000,
                };
                let listed = client.ask::<colima_mount::sftp::Listing>(&request).await;
                client.command(&Request::Close { handle }).await?;
                let count = match listed {
                    Ok(listing) => listing.entries.len() - 2,
                    // The server that had it open is gone.
                    Err(Errno::Stale) => return Ok(()),
                    Err(error) => return Err(error),
                };
                assert_eq!(count, fs::read_dir(self.model.path()).unwrap().count());
                Ok(())
            }
        }
    }

    /// Does it to the model.
    fn model(&mut self, op: &Op) -> std::io::Result<()> {
        let at = |name: &str| self.model.path().join(name);
        match op {
            Op::Mkdir(name) => fs::create_dir(at(name)),
            Op::Rmdir(name) => fs::remove_dir(at(name)),
            Op::New(name) => fs::File::create_new(at(name)).map(drop),
            Op::Write(open, offset, data) => self.open[*open].model.write_all_at(data, *offset),
            Op::Append(name, data) => (fs::OpenOptions::new().append(true))
                .open(at(name))
                .and_then(|mut file| file.write_all(data)),
            Op::Read(_) | Op::List => Ok(()),
            Op::Resize(open, size) => self.open[*open].model.set_len(*size),
            Op::Rename(from, to) => fs::rename(at(from), at(to)),
            Op::Exchange(from, to) => {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                Ok(renameat_with(
                    CWD,
                    at(from),
                    CWD,
                    at(to),
                    RenameFlags::EXCHANGE,
                )?)
            }
            Op::Remove(name) => rustix::fs::unlink(at(name)).map_err(Into::into),
            Op::Link(from, to) => fs::hard_link(at(from), at(to)),
        }
    }

    /// Forgets the names that open files had and an operation took, or may have taken.
    fn unnamed(&mut self, op: &Op) {
        for twin in &mut self.open {
            let Some(name) = &twin.name else { continue };
            twin.name = match op {
                Op::Rename(from, _) if name == from => None,
                Op::Rename(_, to) if name == to => None,
                Op::Remove(gone) if name == gone => None,
                Op::Exchange(one, other) if name == one || name == other => None,
                _ => continue,
            };
        }
    }

    /// Follows the names of open files.
    fn renamed(&mut self, op: &Op) {
        let was = |twin: &Twin, name: &str| twin.name.as_deref() == Some(name);
        let known: Vec<bool> = match op {
            Op::Rename(from, _) => self.open.iter().map(|twin| was(twin, from)).collect(),
            _ => Vec::new(),
        };
        self.unnamed(op);
        // What was renamed is found again, but not what had two names that became one, and not by a name
        // that it was not opened by.
        if let Op::Rename(from, to) = op {
            let moved = self.model.path().join(to);
            for (twin, _) in self.open.iter_mut().zip(known).filter(|(_, known)| *known) {
                use std::os::unix::fs::MetadataExt as _;
                let same = fs::metadata(&moved).is_ok_and(|it| {
                    it.ino() == twin.model.metadata().unwrap().ino() && it.nlink() == 1
                });
                if same && twin.name.is_none() && from != to {
                    twin.name = Some((*to).to_owned());
                }
            }
        }
    }

    /// Which file is at the first of two names that are exchanged: of two that are alike the tree does not tell.
    fn exchanged(&self, op: &Op) -> Option<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let Op::Exchange(one, _) = op else {
            return None;
        };
        let there = fs::symlink_metadata(self.there.join(one));
        there.ok().map(|it| it.ino())
    }

    async fn step(&mut self, op: &Op) {
        let before = self.exchanged(op);
        let result = self.done(op).await;
        let opened = matches!((op, &result), (Op::New(_), Ok(())));
        match result {
            Err(Errno::Io) => {
                self.doubts += 1;
                // Nothing of it is under way any more: it was done, or it was not.
                let exchanged = self.exchanged(op) != before;
                if exchanged || tree(&self.there) != tree(self.model.path()) {
                    let (there, model) = (tree(&self.there), tree(self.model.path()));
                    let done = self.model(op);
                    assert!(done.is_ok(), "{op:?}: {done:?}, {there:?}, {model:?}");
                    assert_eq!(tree(&self.there), tree(self.model.path()), "{op:?}");
                }
                // The client does not know it either.
                self.unnamed(op);
            }
            Err(Errno::Stale) => {
                let (Op::Write(at, ..) | Op::Read(at) | Op::Resize(at, _)) = op else {
                    unreachable!("{op:?} has no file");
                };
                // Lost before it was asked again; what was sent before that may have been done.
                if tree(&self.there) != tree(self.model.path()) {
                    self.model(op).unwrap();
                }
                let twin = self.open.swap_remove(*at);
                assert_eq!(twin.name, None, "{op:?}");
                twin.file.close().await.unwrap();
                self.stale += 1;
            }
            _ if opened => {}
            result => {
                let expected = self.model(op);
                assert_eq!(result.err(), errno(&expected), "{op:?}");
                if expected.is_ok() {
                    self.renamed(op);
                }
            }
        }
        // Told at once, and not when another operation stumbles over it.
        assert_eq!(tree(&self.there), tree(self.model.path()), "{op:?}");
        if self.open.len() > 6 {
            let twin = self.open.swap_remove(0);
            twin.file.close().await.unwrap();
        }
    }

    async fn finish(self) -> (usize, usize) {
        for twin in self.open {
            twin.file.close().await.unwrap();
        }
        assert_eq!(tree(&self.there), tree(self.model.path()));
        (self.doubts, self.stale)
    }
}

fn torture() -> Option<Duration> {
    let seconds = std::env::var("COLIMA_TORTURE_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

/// Something of everything, in an order in which all of it works.
fn script() -> Vec<Op> {
    vec![
        Op::Mkdir("d"),
        Op::New("a"),
        Op::Write(0, 0, vec![b'x'; 300]),
        Op::New("d/a"),
        Op::Write(1, 100, vec![b'y'; 50]),
        Op::Rename("a", "b"),
        Op::Write(0, 200, vec![b'z'; 200]),
        Op::Read(0),
        Op::Append("b", vec![b'w'; 40]),
        Op::Link("b", "c"),
        Op::Exchange("b", "d/a"),
        Op::List,
        Op::Remove("c"),
        Op::Resize(1, 70),
        Op::Remove("b"),
        Op::Mkdir("e"),
        Op::Rmdir("e"),
    ]
}

async fn run_script(reach: Reach) -> usize {
    let share = tempfile::tempdir().unwrap();
    let client = Client::over(dial(share.path(), [reach])).await.unwrap();
    let mut twins = Twins::new(client, share.path(), "t");
    let mut lost = false;
    for op in script() {
        // What failed in doubt may leave nothing to work on for the rest.
        let possible = match &op {
            Op::Write(at, ..) | Op::Read(at) | Op::Resize(at, _) => *at < twins.open.len(),
            _ => true,
        };
        if possible {
            twins.step(&op).await;
        } else {
            lost = true;
        }
    }
    assert!(!lost || twins.doubts > 0 || twins.stale > 0);
    twins.finish().await.0
}

#[test]
fn a_cut_at_any_byte_is_survived_or_told() {
    let began = Instant::now();
    peers::runtime().block_on(async {
        assert_eq!(run_script(Reach::Endless).await, 0);
        // Each prime step meets other bytes of the packets.
        let (step, all) = torture().map_or((13, None), |limit| (1, Some(limit)));
        let mut doubts = 0;
        for at in (0..2600).step_by(step) {
            doubts += run_script(Reach::Sent(at)).await;
            doubts += run_script(Reach::Got(at)).await;
            if all.is_some_and(|limit| began.elapsed() > limit) {
                break;
            }
        }
        assert!(doubts > 0, "some of it cannot be known");
    });
}

#[test]
fn random_work_over_random_cuts_is_what_the_client_says() {
    let limit = torture();
    let began = Instant::now();
    let mut seed = 1;
    while seed <= 6 || limit.is_some_and(|limit| began.elapsed() < limit) {
        peers::runtime().block_on(random_work(seed));
        seed += 1;
    }
}

async fn random_work(seed: u64) {
    let share = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let cuts: Vec<_> = (0..40)
        .map(|_| {
            let at = random.below(12_000);
            if random.below(2) == 0 {
                Reach::Sent(at)
            } else {
                Reach::Got(at)
            }
        })
        .collect();
    let client = Client::over(dial(share.path(), cuts)).await.unwrap();
    // Several at the same time over one stream, each with a directory of its own.
    let workers = (0..4).map(|worker| {
        let twins = Twins::new(client.clone(), share.path(), &format!("w{worker}"));
        let mut random = Random(seed * 31 + worker);
        tokio::spawn(async move {
            let mut twins = twins;
            for _ in 0..120 {
                let op = random_op(&mut random, twins.open.len());
                twins.step(&op).await;
            }
            twins.finish().await
        })
    });
    let workers: Vec<_> = workers.collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[test]
fn without_a_server_operations_fail_in_time_and_work_again_with_one() {
    let share = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let mut patience = Patience::default();
        patience.operations = Duration::from_millis(300);
        let (gate, opened) = tokio::sync::watch::channel(true);
        let mut real = dial(share.path(), [Reach::Got(3000)]);
        let gated = move || {
            let (stream, mut opened) = (real(), opened.clone());
            Box::pin(async move {
                let _ = opened.wait_for(|open| *open).await;
                stream.await
            })
        };
        let client = Client::over_with(gated, patience).await.unwrap();
        gate.send(false).unwrap();
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let file = client.open(b"f", flags, Some(FILE)).await.unwrap();
        // Until the stream is used up.
        let failed = loop {
            if let Err(error) = client.metadata(b"f").await {
                break error;
            }
        };
        assert_eq!(failed, Errno::Io);
        assert!(!client.is_connected());
        file.write_at(0, b"behind").await.unwrap();
        assert_eq!(file.flush().await, Err(Errno::Io), "it is told");
        assert_eq!(client.metadata(b"f").await.map(drop), Err(Errno::Io));
        gate.send(true).unwrap();
        // An operation that finds a connection again is all that is to be waited for.
        while !client.is_connected() {
            tokio::task::yield_now().await;
        }
        file.write_at(0, b"again").await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(fs::read(share.path().join("f")).unwrap(), b"again");
        client.open(b"g", flags, Some(FILE)).await.unwrap();
    });
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_stale() {
    let share = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = Client::over(dial(share.path(), [Reach::Sent(400)]))
            .await
            .unwrap();
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let kept = client.open(b"kept", flags, Some(FILE)).await.unwrap();
        let replaced = client.open(b"replaced", flags, Some(FILE)).await.unwrap();
        let gone = client.open(b"gone", flags, Some(FILE)).await.unwrap();
        fs::write(share.path().join("new"), "new").unwrap();
        fs::rename(share.path().join("new"), share.path().join("replaced")).unwrap();
        fs::remove_file(share.path().join("gone")).unwrap();
        // Until the stream is used up, and the next one is there.
        while replaced.metadata().await.is_ok() {}
        assert_eq!(replaced.read_at(0, 10).await, Err(Errno::Stale));
        assert_eq!(gone.metadata().await.map(drop), Err(Errno::Stale));
        gone.write_at(0, b"x").await.unwrap();
        assert_eq!(gone.sync().await, Err(Errno::Stale));
        assert_eq!(replaced.close().await, Ok(()));
        assert_eq!(fs::read(share.path().join("replaced")).unwrap(), b"new");
        kept.write_at(0, b"kept").await.unwrap();
        kept.close().await.unwrap();
        assert_eq!(fs::read(share.path().join("kept")).unwrap(), b"kept");
    });
}
