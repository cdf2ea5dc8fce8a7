//! This binary again, as other processes that can be killed.
//!
//! A process that starts others must have nothing open on a mount whose server it starts: between fork
//! and exec its files are closed once more, and that waits for the server.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use colima_mount::{Access, Root, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::peers;

const ROLE: &str = "COLIMA_MOUNT_TEST_ROLE";
const PLACE: &str = "COLIMA_MOUNT_TEST_PLACE";

/// A process of this binary, and the stream that is its standard input. It is killed when this is dropped.
pub(crate) struct Helper {
    child: Child,
    pub(crate) stream: UnixStream,
}

fn command(role: &str, place: &Path, input: impl Into<OwnedFd>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--exact",
            "child_processes::a_role_in_another_test",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdin(Stdio::from(input.into()))
        .stdout(Stdio::null());
    Ok(command)
}

impl Helper {
    pub(crate) fn start(role: &str, place: &Path) -> Self {
        let (stream, there) = UnixStream::pair().unwrap();
        let child = command(role, place, there).unwrap().spawn().unwrap();
        // Longer than anything that is asked may take.
        let limit = Some(Duration::from_secs(120));
        stream.set_read_timeout(limit).unwrap();
        Self { child, stream }
    }

    /// Kills the process, and does not wait until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Sends a word of one byte.
    pub(crate) fn tell(&mut self, word: u8) {
        self.stream.write_all(&[word]).unwrap();
    }

    /// Waits for a word.
    pub(crate) fn hear(&mut self, word: u8) {
        let mut heard = [0];
        self.stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [word]);
    }

    /// Sends a word, and waits for the same one.
    pub(crate) fn ask(&mut self, word: u8) {
        self.tell(word);
        self.hear(word);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process was started for; nothing in an ordinary run.
#[test]
fn a_role_in_another_test() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let stream = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let stream = UnixStream::from(stream);
    match role.as_str() {
        "serve" => serve(stream, &share(&place)),
        "servers" => start_servers(stream, &place),
        #[cfg(all(feature = "fuse", target_os = "linux"))]
        "work" => crate::steady_work::work(stream, &place),
        #[cfg(all(feature = "fuse", target_os = "linux"))]
        "mount" => crate::fuse_client_deaths::serve_the_kernel(stream, &place),
        #[cfg(all(feature = "fuse", target_os = "linux"))]
        "unflushed" => crate::fuse_client_deaths::write_without_flush(stream, &place),
        role => unreachable!("{role}"),
    }
}

/// The directory that is served.
pub(crate) fn share(place: &Path) -> PathBuf {
    place.join("share")
}

/// Where it is mounted.
pub(crate) fn mountpoint(place: &Path) -> PathBuf {
    place.join("mount")
}

/// Where the mount is mounted once more, as a container has it; not in every test.
pub(crate) fn bound(place: &Path) -> PathBuf {
    place.join("bound")
}

fn socket(place: &Path) -> PathBuf {
    place.join("socket")
}

/// A directory with a share, a place to mount it on, and servers of it.
pub(crate) fn new_place() -> (tempfile::TempDir, Helper) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(share(place.path())).unwrap();
    fs::create_dir(mountpoint(place.path())).unwrap();
    let mut servers = Helper::start("servers", place.path());
    servers.hear(b'l');
    (place, servers)
}

/// A new server, and the stream to it.
pub(crate) async fn dial(place: PathBuf) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(socket(&place)).await
}

fn serve(stream: UnixStream, directory: &Path) {
    peers::runtime().block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let server = Server::new(Root::open(directory).unwrap(), Access::ReadWrite);
        // Its client may go away in the middle of anything.
        let _ = server.serve(stream).await;
    });
}

/// Starts a server for each stream, and says so; kills (`k`), stops (`z`) or continues (`c`) the last one when it is
/// told to.
fn start_servers(mut control: UnixStream, place: &Path) {
    let listener = UnixListener::bind(socket(place)).unwrap();
    control.write_all(b"l").unwrap();
    let running: Arc<Mutex<Option<Child>>> = Arc::default();
    let (started, mut told) = (Arc::clone(&running), control.try_clone().unwrap());
    let place = place.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // First, as the one server of a share would wait by itself: what an earlier stream has brought is not
            // to be done after what the next one brings.
            let mut running = started.lock().unwrap();
            if let Some(mut old) = running.take() {
                let _ = old.kill();
                old.wait().unwrap();
            }
            let child = command("serve", &place, stream.unwrap()).unwrap().spawn();
            *running = Some(child.unwrap());
            drop(running);
            // Nobody listens when the test is over.
            let _ = told.write_all(b"s");
        }
    });
    let mut word = [0];
    while control.read_exact(&mut word).is_ok() {
        if let Some(child) = running.lock().unwrap().as_mut() {
            let signal = match word[0] {
                b'z' => Signal::STOP,
                b'c' => Signal::CONT,
                _ => Signal::KILL,
            };
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }
    if let Some(mut child) = running.lock().unwrap().take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
