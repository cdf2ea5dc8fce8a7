//! A mount whose server is killed again and again.

use std::{
    fs::{self, File},
    future::Future,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

use colima_mount::{Client, Patience, fuse};
use tokio::{net::UnixStream, sync::watch};

use crate::{
    child_processes::{Helper, dial, mountpoint, new_place, share},
    mounted::{self, eventually},
    peers,
};

/// Kills in the short form.
const KILLS: usize = 10;

/// Whether to go on killing.
pub(crate) fn more(killed: usize, since: Instant) -> bool {
    let seconds = std::env::var("COLIMA_TORTURE_SECONDS").ok();
    match seconds.and_then(|seconds| seconds.parse().ok()) {
        None => killed < KILLS,
        Some(seconds) => killed < KILLS || since.elapsed() < Duration::from_secs(seconds),
    }
}

type Dialled = Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>>;

/// Dials servers while the gate is open.
fn gated(place: &Path, opened: watch::Receiver<bool>) -> impl FnMut() -> Dialled + Send + 'static {
    let place = place.to_owned();
    move || {
        let (place, mut opened) = (place.clone(), opened.clone());
        Box::pin(async move {
            let _ = opened.wait_for(|open| *open).await;
            dial(place).await
        })
    }
}

#[test]
fn a_mount_outlives_its_servers() {
    if !mounted::is_possible("a_mount_outlives_its_servers") {
        return;
    }
    let _watchdog = mounted::watchdog();
    let (place, mut servers) = new_place();
    let runtime = peers::runtime();
    let guard = runtime.block_on(async {
        let at = place.path().to_owned();
        let client = Client::over(move || dial(at.clone())).await.unwrap();
        fuse::mount(client, mountpoint(place.path())).await.unwrap()
    });
    servers.hear(b's');
    let mut work = Helper::start("work", place.path());
    let began = Instant::now();
    let mut killed = 0;
    while more(killed, began) {
        // In the middle of something.
        work.ask(b'p');
        servers.tell(b'k');
        killed += 1;
        servers.hear(b's');
        // With the new server everything works.
        work.ask(b'n');
    }
    work.ask(b'e');
    drop(work);
    runtime.block_on(guard.close()).unwrap();
}

#[test]
fn a_server_that_answers_nothing_is_given_up() {
    if !mounted::is_possible("a_server_that_answers_nothing_is_given_up") {
        return;
    }
    let _watchdog = mounted::watchdog();
    let (place, mut servers) = new_place();
    let at = |name: &str| mountpoint(place.path()).join(name);
    let runtime = peers::runtime();
    let (gate, opened) = watch::channel(true);
    let guard = runtime.block_on(async {
        let mut patience = Patience::default();
        patience.operations = Duration::from_millis(500);
        patience.silence = Duration::from_secs(2);
        let client = Client::over_with(gated(place.path(), opened), patience)
            .await
            .unwrap();
        fuse::mount(client, at("")).await.unwrap()
    });
    servers.hear(b's');
    fs::write(at("before"), "before").unwrap();

    // Stopped for less than it may be: slow, and no error.
    servers.tell(b'z');
    let reading = std::thread::spawn({
        let path = at("before");
        move || fs::metadata(path.with_file_name("none")).map(drop)
    });
    servers.tell(b'c');
    let error = reading.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);

    // Stopped for good: an error, and not never.
    gate.send(false).unwrap();
    servers.tell(b'z');
    let io_error = Some(rustix::io::Errno::IO.raw_os_error());
    eventually("an error", || {
        fs::write(at("new"), "new").is_err_and(|error| error.raw_os_error() == io_error)
    });
    gate.send(true).unwrap();
    servers.hear(b's');
    eventually("a server", || fs::write(at("new"), "new").is_ok());
    assert_eq!(fs::read(at("new")).unwrap(), b"new");
    assert_eq!(fs::read(at("before")).unwrap(), b"before");
    runtime.block_on(guard.close()).unwrap();
}

#[test]
fn what_changed_while_there_was_no_server_is_seen() {
    if !mounted::is_possible("what_changed_while_there_was_no_server_is_seen") {
        return;
    }
    let _watchdog = mounted::watchdog();
    let (place, mut servers) = new_place();
    let at = |name: &str| mountpoint(place.path()).join(name);
    let there = |name: &str| share(place.path()).join(name);
    fs::create_dir(there("d")).unwrap();
    for name in ["d/kept", "d/changed", "d/gone", "d/replaced", "d/renamed"] {
        fs::write(there(name), "before").unwrap();
    }
    let runtime = peers::runtime();
    let (gate, opened) = watch::channel(true);
    let (client, guard) = runtime.block_on(async {
        let mut patience = Patience::default();
        patience.operations = Duration::from_millis(500);
        let client = Client::over_with(gated(place.path(), opened), patience)
            .await
            .unwrap();
        let guard = fuse::mount(client.clone(), at("")).await.unwrap();
        (client, guard)
    });
    let open = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .open(at(name))
            .unwrap()
    };
    let text = |file: &File| {
        let mut text = [0; 20];
        file.read_at(&mut text, 0)
            .map(|got| String::from_utf8_lossy(&text[..got]).into_owned())
    };
    let files =
        ["kept", "changed", "gone", "replaced", "renamed"].map(|it| open(&format!("d/{it}")));
    for file in &files {
        assert_eq!(text(file).unwrap(), "before");
    }
    assert!(fs::metadata(at("d/new")).is_err());
    assert_eq!(fs::read_dir(at("d")).unwrap().count(), 5);

    gate.send(false).unwrap();
    servers.tell(b'k');
    eventually("the loss", || !client.is_connected());
    let io_error = Some(rustix::io::Errno::IO.raw_os_error());
    // What the kernel remembers is dropped with the loss, and then nobody can be asked.
    eventually("an error", || {
        fs::metadata(at("d/kept")).is_err_and(|error| error.raw_os_error() == io_error)
    });
    assert_eq!(
        fs::write(at("d/none"), "x").unwrap_err().raw_os_error(),
        io_error
    );
    fs::write(there("d/changed"), "after it").unwrap();
    fs::remove_file(there("d/gone")).unwrap();
    fs::write(there("d/new"), "replaced").unwrap();
    fs::rename(there("d/new"), there("d/replaced")).unwrap();
    fs::write(there("d/new"), "new").unwrap();
    fs::rename(there("d/renamed"), there("d/other")).unwrap();
    gate.send(true).unwrap();
    eventually("a connection", || client.is_connected());

    assert_eq!(fs::read(at("d/new")).unwrap(), b"new");
    assert_eq!(fs::read(at("d/changed")).unwrap(), b"after it");
    assert!(!at("d/gone").exists());
    assert_eq!(fs::read_dir(at("d")).unwrap().count(), 5);
    assert_eq!(text(&files[0]).unwrap(), "before");
    assert_eq!(text(&files[1]).unwrap(), "after it");
    // What was removed or replaced is lost, and nobody saw where the renamed one went.
    for file in &files[2..] {
        let error = text(file).unwrap_err().raw_os_error();
        assert!(error == io_error || error == Some(rustix::io::Errno::STALE.raw_os_error()));
    }
    files[0].write_all_at(b"kept on", 0).unwrap();
    files[0].sync_all().unwrap();
    drop(files);
    assert_eq!(fs::read(there("d/kept")).unwrap(), b"kept on");
    runtime.block_on(guard.close()).unwrap();
}
