//! A server in a process of its own, which belongs to an ordinary user: this binary once more.

use std::{
    os::{
        fd::OwnedFd,
        unix::{fs::chown, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use colima_mount::{
    Access, Root, Server,
    server::{Beside, Ownership},
    sftp::Owner,
};

use crate::peers;

/// The user of the host that serves; it need not have a name.
pub(crate) const USER: u32 = 12_345;
pub(crate) const GROUP: u32 = 12_346;
/// Whose the same files are for clients.
pub(crate) const OWNER: Owner = Owner {
    user: 501,
    group: 20,
};

const SHARE: &str = "COLIMA_TEST_SHARE";
const SIDE: &str = "COLIMA_TEST_SIDE";

/// How a server is to run.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    side: Option<PathBuf>,
}

impl Worker {
    /// One that keeps records in a directory as well.
    pub(crate) fn with_side(directory: &Path) -> Self {
        let side = Some(directory.to_owned());
        Self { side }
    }

    /// Serves a directory, which it is given.
    pub(crate) fn start(
        &self,
        share: &Path,
    ) -> (tokio::net::UnixStream, tokio::task::JoinHandle<()>) {
        let (here, there) = UnixStream::pair().unwrap();
        chown(share, Some(USER), Some(GROUP)).unwrap();
        // By the link to itself: the user need not reach the directory of the binary.
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .args(["--exact", "worker::serves", "--ignored", "--nocapture"])
            .env(SHARE, share)
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::null())
            .uid(USER)
            .gid(GROUP);
        if let Some(side) = &self.side {
            chown(side, Some(USER), Some(GROUP)).unwrap();
            command.env(SIDE, side);
        }
        let mut child = tokio::process::Command::from(command).spawn().unwrap();
        let session = tokio::spawn(async move {
            child.wait().await.unwrap();
        });
        here.set_nonblocking(true).unwrap();
        (tokio::net::UnixStream::from_std(here).unwrap(), session)
    }
}

#[test]
#[ignore = "started by those that need a server of another user"]
fn serves() {
    use std::os::fd::AsFd as _;

    assert!(!rustix::process::geteuid().is_root());
    let share = std::env::var_os(SHARE).unwrap();
    let mut beside = Beside::new(OWNER);
    if let Some(side) = std::env::var_os(SIDE) {
        let side = std::fs::File::open(side).unwrap();
        beside = beside.with_directory(side.into()).unwrap();
    }
    let root = Root::open(share).unwrap();
    let server = Server::new(root, Access::ReadWrite).ownership(Ownership::Beside(beside));
    let stream = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(true).unwrap();
    peers::runtime().block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        // A client that goes away is no failure of the server.
        let _ = server.serve(stream).await;
    });
}
