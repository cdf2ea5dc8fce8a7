//! The same random requests to our server and to OpenSSH's, on two copies of a tree.
//!
//! Replies and trees are equal but for this list: our server follows no symbolic link, so requests
//! that would be about what a link points to are left out; `..` and trailing slashes are not generated;
//! texts of errors differ; times that the clock of the host gives are not compared.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use bytes::Bytes;
use colima_mount::{
    Access, Root,
    server::Limits,
    sftp::{Attributes, Errno, OpenFlags, Reply, Request, Seconds},
};
use proptest::{collection::vec, option, prelude::*, test_runner::Config};

use crate::peers::{self, Raw};

const SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Names are few, so that requests meet.
fn path() -> impl Strategy<Value = String> {
    let name =
        || prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("\u{e4} \n")];
    prop_oneof![
        5 => name().prop_map(String::from),
        4 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        2 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
        1 => Just("n".repeat(300)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Open(String, OpenFlags, Option<u32>),
    Close(usize),
    Read(usize, u64, u32),
    Write(usize, u64, Vec<u8>),
    Fstat(usize),
    Fsetstat(usize, Attributes),
    Fsync(usize),
    ByPath(Request),
    List(String),
}

fn bytes(path: String) -> Bytes {
    path.into_bytes().into()
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let modes = prop_oneof![Just(0o600), Just(0o755), Just(0o644), Just(0o1777)];
    let times = (0u32..2_000_000_000, 0u32..2_000_000_000);
    // With nothing to set OpenSSH does not look at the file at all.
    let something = |set: &(Option<u64>, Option<u32>, Option<(u32, u32)>)| {
        set.0.is_some() || set.1.is_some() || set.2.is_some()
    };
    let set = (
        option::of(0u64..100_000),
        option::of(modes),
        option::of(times),
    );
    set.prop_filter("something to set", something)
        .prop_map(|(size, mode, times)| Attributes {
            size,
            mode,
            times: times.map(|(accessed, modified)| Seconds { accessed, modified }),
            ..Attributes::default()
        })
}

fn flags() -> impl Strategy<Value = OpenFlags> {
    use OpenFlags as F;
    prop_oneof![
        Just(F::READ),
        Just(F::READ | F::WRITE),
        Just(F::WRITE | F::CREATE),
        Just(F::READ | F::WRITE | F::CREATE | F::TRUNCATE),
        Just(F::WRITE | F::CREATE | F::EXCLUSIVE),
        Just(F::WRITE | F::APPEND | F::CREATE),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let modes = option::of(prop_oneof![Just(0o600u32), Just(0o755), Just(0o666)]);
    prop_oneof![
        6 => (path(), flags(), modes).prop_map(|(p, f, m)| Step::Open(p, f, m)),
        3 => (0usize..8).prop_map(Step::Close),
        4 => (0usize..8, 0u64..70_000, 0u32..70_000).prop_map(|(h, o, l)| Step::Read(h, o, l)),
        5 => (0usize..8, 0u64..70_000, vec(any::<u8>(), 0..300))
            .prop_map(|(h, o, d)| Step::Write(h, o, d)),
        2 => (0usize..8).prop_map(Step::Fstat),
        2 => (0usize..8, attributes()).prop_map(|(h, a)| Step::Fsetstat(h, a)),
        1 => (0usize..8).prop_map(Step::Fsync),
        2 => path().prop_map(Step::List),
        24 => by_path().prop_map(Step::ByPath),
    ]
}

fn by_path() -> impl Strategy<Value = Request> {
    // With two things wrong there are two right answers.
    let short = || path().prop_filter("short enough", |path| path.len() < 256);
    let two = move || (short(), short());
    prop_oneof![
        2 => path().prop_map(|p| Request::Lstat { path: bytes(p) }),
        2 => path().prop_map(|p| Request::Stat { path: bytes(p) }),
        2 => (path(), attributes())
            .prop_map(|(p, attributes)| Request::Setstat { path: bytes(p), attributes }),
        4 => (path(), option::of(Just(0o750u32))).prop_map(|(p, mode)| Request::Mkdir {
            path: bytes(p),
            attributes: Attributes { mode, ..Attributes::default() },
        }),
        2 => path().prop_map(|p| Request::Rmdir { path: bytes(p) }),
        2 => path().prop_map(|p| Request::Remove { path: bytes(p) }),
        2 => two().prop_map(|(a, b)| Request::Rename { from: bytes(a), to: bytes(b) }),
        2 => two().prop_map(|(a, b)| Request::PosixRename { from: bytes(a), to: bytes(b) }),
        2 => two().prop_map(|(a, b)| Request::Hardlink { from: bytes(a), to: bytes(b) }),
        2 => two().prop_map(|(a, b)| Request::Symlink { target: bytes(a), path: bytes(b) }),
        2 => path().prop_map(|p| Request::Readlink { path: bytes(p) }),
    ]
}

/// Whether the request would follow a link, which ours never does.
fn follows_a_link(directory: &Path, step: &Step) -> bool {
    let link =
        |path: &Path| std::fs::symlink_metadata(directory.join(path)).is_ok_and(|m| m.is_symlink());
    let above = |path: &Bytes| {
        let path = PathBuf::from(String::from_utf8(path.to_vec()).unwrap());
        path.ancestors().skip(1).any(&link)
    };
    let at = |path: &Bytes| above(path) || link(Path::new(std::str::from_utf8(path).unwrap()));
    match step {
        Step::Open(path, ..) | Step::List(path) => at(&bytes(path.clone())),
        Step::ByPath(request) => match request {
            Request::Stat { path } | Request::Setstat { path, .. } => at(path),
            Request::Lstat { path }
            | Request::Readlink { path }
            | Request::Remove { path }
            | Request::Rmdir { path }
            | Request::Mkdir { path, .. }
            | Request::Symlink { path, .. } => above(path),
            // The OpenSSH server looks through a link before it renames onto it.
            Request::Rename { from, to } => at(from) || at(to),
            Request::PosixRename { from, to } => above(from) || above(to),
            // link(2) itself is about the link, but the library's is not on every system.
            Request::Hardlink { from, to } => at(from) || above(to),
            _ => false,
        },
        _ => false,
    }
}

/// What of a reply has to be the same.
fn essence(reply: &Reply) -> String {
    let attributes = |attributes: &Attributes| {
        let size = attributes.size.filter(|_| {
            // The size of a directory is the file system's business.
            attributes
                .mode
                .is_none_or(|mode| mode & 0o170_000 != 0o040_000)
        });
        format!("{:?} {:?} {:?}", size, attributes.owner, attributes.mode)
    };
    match reply {
        Reply::Status { status, .. } => format!("status {status}"),
        Reply::Handle(_) => "handle".into(),
        Reply::Data(data) => format!("data {data:?}"),
        Reply::Attributes(found) => format!("attributes {}", attributes(found)),
        Reply::Names(names) => {
            let mut names: Vec<_> = names
                .iter()
                .map(|name| format!("{:?} {}", name.name, attributes(&name.attributes)))
                .collect();
            names.sort();
            format!("names {names:?}")
        }
        Reply::Extended(body) => format!("extended {body:?}"),
    }
}

struct Peer<R, W> {
    raw: Raw<R, W>,
    handles: Vec<Option<Bytes>>,
}

impl<R, W> Peer<R, W>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    fn has(&self, slot: usize) -> Option<Bytes> {
        self.handles.get(slot).cloned().flatten()
    }

    fn handle(&self, slot: usize) -> Bytes {
        self.has(slot)
            .unwrap_or_else(|| Bytes::from_static(b"no such handle"))
    }

    async fn run(&mut self, step: &Step) -> Reply {
        let request = match step {
            Step::Open(path, flags, mode) => Request::Open {
                path: bytes(path.clone()),
                flags: *flags,
                attributes: Attributes {
                    mode: *mode,
                    ..Attributes::default()
                },
            },
            Step::Close(slot) => {
                let handle = self.handle(*slot);
                if let Some(slot) = self.handles.get_mut(*slot) {
                    *slot = None;
                }
                Request::Close { handle }
            }
            Step::Read(slot, offset, length) => Request::Read {
                handle: self.handle(*slot),
                offset: *offset,
                length: *length,
            },
            Step::Write(slot, offset, data) => Request::Write {
                handle: self.handle(*slot),
                offset: *offset,
                data: data.clone().into(),
            },
            Step::Fstat(slot) => Request::Fstat {
                handle: self.handle(*slot),
            },
            Step::Fsetstat(slot, attributes) => Request::Fsetstat {
                handle: self.handle(*slot),
                attributes: attributes.clone(),
            },
            Step::Fsync(slot) => Request::Fsync {
                handle: self.handle(*slot),
            },
            Step::ByPath(request) => request.clone(),
            Step::List(path) => return self.list(path).await,
        };
        let reply = self.raw.ask(&request).await;
        if let (Step::Open(..), Reply::Handle(handle)) = (step, &reply) {
            match self.handles.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some(handle.clone()),
                None => self.handles.push(Some(handle.clone())),
            }
        }
        reply
    }

    async fn list(&mut self, path: &str) -> Reply {
        let path = bytes(path.to_owned());
        let handle = match self.raw.ask(&Request::Opendir { path }).await {
            Reply::Handle(handle) => handle,
            failure => return failure,
        };
        let mut all = Vec::new();
        let readdir = Request::Readdir {
            handle: handle.clone(),
        };
        while let Reply::Names(names) = self.raw.ask(&readdir).await {
            all.extend(names);
        }
        assert_eq!(
            essence(&self.raw.ask(&Request::Close { handle }).await),
            "status 0"
        );
        Reply::Names(all)
    }
}

/// All that is in a directory, by path.
pub(crate) fn tree(directory: &Path) -> BTreeMap<PathBuf, String> {
    try_tree(directory).unwrap()
}

/// The same of one that may be changing.
pub(crate) fn try_tree(directory: &Path) -> std::io::Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            let metadata = std::fs::symlink_metadata(&path)?;
            let kind = metadata.file_type();
            let content = if kind.is_symlink() {
                format!("{:?}", std::fs::read_link(&path)?)
            } else if kind.is_dir() {
                open.push(path.clone());
                String::new()
            } else if kind.is_fifo() {
                "fifo".into()
            } else {
                let content = std::fs::read(&path)?;
                let sum = content.iter().fold(0u64, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(u64::from(*byte) + 1)
                });
                format!("{} bytes {sum}", content.len())
            };
            let text = format!(
                "{:o} {} {} links, {content}",
                metadata.mode(),
                metadata.uid(),
                metadata.nlink()
            );
            found.insert(path.strip_prefix(directory).unwrap().to_owned(), text);
        }
    }
    Ok(found)
}

fn compare(steps: &[Step]) {
    let (mine, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    peers::runtime().block_on(async {
        let root = Root::open(mine.path()).unwrap();
        let (stream, session) = peers::serve(root, Access::ReadWrite, Limits::default());
        let (read, write) = tokio::io::split(stream);
        let mut ours = Peer {
            raw: Raw::stock(read, write).await,
            handles: Vec::new(),
        };
        let mut child = tokio::process::Command::new(SERVER)
            .current_dir(theirs.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (read, write) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let mut reference = Peer {
            raw: Raw::stock(read, write).await,
            handles: Vec::new(),
        };
        for (number, step) in steps.iter().enumerate() {
            // OpenSSH has two answers to a handle that is none, depending on the request.
            let slot = match step {
                Step::Close(slot)
                | Step::Fsync(slot)
                | Step::Read(slot, ..)
                | Step::Write(slot, ..)
                | Step::Fstat(slot)
                | Step::Fsetstat(slot, _) => Some(*slot),
                _ => None,
            };
            if slot.is_some_and(|slot| reference.has(slot).is_none()) {
                continue;
            }
            if follows_a_link(theirs.path(), step) {
                continue;
            }
            let expected = essence(&reference.run(step).await);
            let got = essence(&ours.run(step).await);
            assert_eq!(got, expected, "step {number}: {step:?}");
        }
        drop((reference, ours));
        child.wait().await.unwrap();
        session.await.unwrap();
    });
    assert_eq!(tree(mine.path()), tree(theirs.path()));
}

#[test]
fn random_requests_do_what_openssh_does() {
    if !Path::new(SERVER).exists() {
        println!("skipped: random_requests_do_what_openssh_does: no {SERVER}");
        return;
    }
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(100)
    };
    proptest!(config, |(steps in vec(step(), 1..250))| {
        compare(&steps);
    });
}

#[test]
fn nothing_is_not_written_to_what_is_open_for_reading() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), b"x").unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        for (flags, expected) in [
            (OpenFlags::READ, Err(Errno::BadHandle)),
            (OpenFlags::WRITE, Ok(())),
        ] {
            let file = client.open(b"f", flags, None).await.unwrap();
            let nothing = Request::Write {
                handle: file.handle().clone(),
                offset: 0,
                data: Bytes::new(),
            };
            let answer = client.command(&nothing).await;
            assert_eq!(answer, expected);
        }
    });
}
