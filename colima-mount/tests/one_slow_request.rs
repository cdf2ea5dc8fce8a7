//! A request that takes as long as the test wants holds up no other.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use colima_mount::{
    Access, Client, Root,
    server::Limits,
    sftp::{Creation, NewNode, OpenFlags, Rename, Request, Target},
};

use crate::{
    mounted::Mounted,
    peers::{self, Gate},
};

const SIZE: usize = 300_000;

fn prepare(directory: &Path) {
    fs::write(directory.join("slow"), vec![b's'; SIZE]).unwrap();
    fs::write(directory.join("fast"), "fast").unwrap();
    fs::create_dir(directory.join("d")).unwrap();
}

fn mounted(test: &str, stops: fn(&Request) -> bool) -> Option<(Mounted, Gate)> {
    let (access, limits) = (Access::ReadWrite, Limits::default());
    Mounted::through(test, access, limits, prepare, |stream| {
        peers::gated(stream, stops)
    })
}

fn looks(request: &Request) -> bool {
    matches!(request, Request::Look { target: Target::Path(path) } if path.ends_with(b"slow"))
}

fn opens(request: &Request) -> bool {
    matches!(request, Request::OpenFile { path, .. } if path.ends_with(b"slow"))
}

fn reads(request: &Request) -> bool {
    matches!(request, Request::Read { .. })
}

fn writes(request: &Request) -> bool {
    matches!(request, Request::WriteTell { .. })
}

fn syncs(request: &Request) -> bool {
    matches!(request, Request::Fsync { .. })
}

fn read_slow(path: &Path) {
    let mut piece = [0; 100];
    let file = File::open(path).unwrap();
    file.read_exact_at(&mut piece, 200_000).unwrap();
    assert_eq!(piece, [b's'; 100]);
}

fn write_slow(path: &Path) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
}

/// Runs `slow`, and `others` while it is stopped.
fn beside(gate: Gate, slow: impl FnOnce() + Send, others: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let slow = scope.spawn(slow);
        // Whatever fails here drops the gate, so that nothing waits for ever.
        let gate = gate;
        gate.wait();
        let (done, finished) = mpsc::channel();
        scope.spawn(move || {
            others();
            let _ = done.send(());
        });
        let result = finished.recv_timeout(Duration::from_secs(60));
        assert!(!slow.is_finished(), "what was to be slow was not");
        drop(gate);
        assert_eq!(result, Ok(()), "the others wait for the slow one");
        slow.join().unwrap();
    });
}

#[test]
fn a_slow_request_of_the_mount_holds_up_no_other() {
    type Case = (fn(&Request) -> bool, fn(&Path));
    let cases: [Case; 5] = [
        (looks, read_slow),
        (opens, read_slow),
        (reads, read_slow),
        (writes, write_slow),
        (syncs, write_slow),
    ];
    for (stops, slow) in cases {
        let test = "a_slow_request_of_the_mount_holds_up_no_other";
        let Some((mount, gate)) = mounted(test, stops) else {
            return;
        };
        let others = || {
            assert_eq!(fs::read(mount.here("fast")).unwrap(), b"fast");
            fs::create_dir(mount.here("d/e")).unwrap();
            let mut new = File::create(mount.here("d/e/new")).unwrap();
            new.write_all(b"new").unwrap();
            new.sync_all().unwrap();
            fs::rename(mount.here("d/e/new"), mount.here("d/newer")).unwrap();
            assert_eq!(fs::read_dir(mount.here("d")).unwrap().count(), 2);
            assert_eq!(fs::read(mount.here("d/newer")).unwrap(), b"new");
            fs::remove_file(mount.here("d/newer")).unwrap();
        };
        beside(gate, || slow(&mount.here("slow")), others);
        mount.close();
    }
}

/// Not even to learn that nothing follows.
#[test]
fn a_small_file_comes_with_its_open() {
    let Some((mount, gate)) = mounted("a_small_file_comes_with_its_open", reads) else {
        return;
    };
    let (path, (done, read)) = (mount.here("fast"), mpsc::channel());
    let reader = std::thread::spawn(move || done.send(fs::read(path)));
    let content = read.recv_timeout(Duration::from_secs(60));
    // What has asked after all goes on.
    drop(gate);
    reader.join().unwrap().ok();
    let content = content.expect("the server was asked for more");
    assert_eq!(content.unwrap(), b"fast");
    mount.close();
}

/// The server's own file system is one that takes its time: a mount with a gate.
#[test]
fn a_slow_file_system_of_the_host_holds_up_only_who_asks_for_the_file() {
    for stops in [opens, reads] {
        let test = "a_slow_file_system_of_the_host_holds_up_only_who_asks_for_the_file";
        let Some((host, gate)) = mounted(test, stops) else {
            return;
        };
        // A runtime of its own, as the two are two programs.
        let runtime = peers::runtime();
        let (client, session) = runtime.block_on(async {
            let root = Root::open(host.here("")).unwrap();
            let (stream, session) = peers::serve(root, Access::ReadWrite, Limits::default());
            (Client::connect(stream).await.unwrap(), session)
        });
        let slow = async {
            let file = client.open(b"slow", OpenFlags::READ, None).await.unwrap();
            let piece = file.read_at(200_000, 100).await.unwrap();
            assert_eq!(piece, Bytes::from_static(&[b's'; 100]));
        };
        let others = async {
            assert_eq!(client.metadata(b"fast").await.unwrap().size, 4);
            // What only looks at the file itself does not wait either.
            assert_eq!(client.metadata(b"slow").await.unwrap().size, SIZE as u64);
            let file = client.open(b"fast", OpenFlags::READ, None).await.unwrap();
            assert_eq!(file.read_at(0, 10).await.unwrap(), &b"fast"[..]);
            let new = Creation {
                mode: 0o755,
                owner: None,
            };
            client.make(b"d/e", NewNode::Directory, new).await.unwrap();
            client.rename(b"d/e", b"d/f", Rename::Keep).await.unwrap();
            client.remove_directory(b"d/f").await.unwrap();
        };
        let handle = runtime.handle();
        beside(gate, || handle.block_on(slow), || handle.block_on(others));
        drop(client);
        runtime.block_on(session).unwrap();
        drop(runtime);
        host.close();
    }
}
