//! A server in a process of its own, which belongs to an ordinary user: this binary once more.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::chown, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use colima_mount::{
    Access, Root, Server,
    server::{
        Beside, Limits, Ownership,
        confine::{CallWall, Confined, Confinement, FileWall, Wall},
    },
    sftp::Owner,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
const FILES: &str = "COLIMA_TEST_WALL";
const ACCESS: &str = "COLIMA_TEST_ACCESS";

/// How a server is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Worker {
    side: Option<PathBuf>,
    files: Option<Wall>,
    who: Who,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Who {
    #[default]
    User,
    Root,
}

impl Worker {
    /// One that keeps records in a directory as well.
    pub(crate) fn with_side(directory: &Path) -> Self {
        Self {
            side: Some(directory.to_owned()),
            ..Self::default()
        }
    }

    /// One behind a wall around files, and the filter.
    pub(crate) fn behind(mut self, files: Wall) -> Self {
        self.files = Some(files);
        self
    }

    /// One that belongs to root, as where everything does.
    pub(crate) fn of_root(mut self) -> Self {
        self.who = Who::Root;
        self
    }

    /// The user and group that it is.
    pub(crate) fn user(&self) -> (u32, u32) {
        match self.who {
            Who::User => (USER, GROUP),
            Who::Root => (0, 0),
        }
    }

    /// Starts a test of this binary as the user, with a stream as its standard input.
    pub(crate) fn spawn(&self, test: &str, share: &Path, access: Access) -> (UnixStream, Child) {
        let (here, there) = UnixStream::pair().unwrap();
        let (user, group) = self.user();
        chown(share, Some(user), Some(group)).unwrap();
        // By the link to itself: the user need not reach the directory of the binary.
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(SHARE, share)
            .env(ACCESS, format!("{access:?}"))
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::null());
        if self.who == Who::User {
            command.uid(USER).gid(GROUP);
        }
        if let Some(side) = &self.side {
            chown(side, Some(USER), Some(GROUP)).unwrap();
            command.env(SIDE, side);
        }
        if self.files == Some(Wall::Filter) {
            // Its attacks succeed, at which it panics.
            command.stderr(Stdio::null());
        }
        if let Some(files) = self.files {
            command.env(FILES, format!("{files:?}"));
        }
        (here, command.spawn().unwrap())
    }

    /// Serves a directory, which it is given.
    pub(crate) fn start(
        &self,
        share: &Path,
    ) -> (tokio::net::UnixStream, tokio::task::JoinHandle<()>) {
        let (here, mut child) = self.spawn("worker::serves", share, Access::ReadWrite);
        let session = tokio::task::spawn_blocking(move || {
            assert!(child.wait().unwrap().success());
        });
        here.set_nonblocking(true).unwrap();
        (tokio::net::UnixStream::from_std(here).unwrap(), session)
    }
}

/// The share of this process, and how it may be used.
pub(crate) fn share() -> (PathBuf, Access) {
    let access = match std::env::var(ACCESS).as_deref() {
        Ok("ReadOnly") => Access::ReadOnly,
        _ => Access::ReadWrite,
    };
    (std::env::var_os(SHARE).unwrap().into(), access)
}

/// Runs something behind the walls that this process is to have, in a process that has one thread.
pub(crate) fn confined(work: impl FnOnce(Confined)) {
    let files = std::env::var(FILES).unwrap();
    alone(|| {
        let (share, access) = share();
        let open = |path: &Path| OwnedFd::from(std::fs::File::open(path).unwrap());
        let mut confinement = Confinement::new(open(&share), access);
        if let Some(side) = std::env::var_os(SIDE) {
            confinement = confinement.side(open(Path::new(&side)));
        }
        confinement = confinement.descriptors(10_512);
        if files != "Namespace" {
            confinement = confinement.without(Wall::Namespace);
        }
        if files != "Landlock" {
            confinement = confinement.without(Wall::Landlock);
        }
        let confined = confinement.enter().unwrap();
        match confined.walls.files {
            FileWall::Namespace => assert_eq!(files, "Namespace"),
            FileWall::Landlock { .. } => assert_eq!(files, "Landlock"),
            _ => assert_eq!(files, "Filter"),
        }
        assert_eq!(confined.walls.calls, CallWall::Filter);
        work(confined);
    });
}

/// A copy of this process has one thread, as the beginning of `main` has.
#[expect(
    unsafe_code,
    reason = "there is no other way to one thread behind the test harness"
)]
fn alone(work: impl FnOnce()) {
    // SAFETY: the other thread is the harness, which waits for this one and holds no lock.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let code = i32::from(result.is_err());
            // SAFETY: ends the process; nothing of the harness is to run in it.
            unsafe { libc::_exit(code) }
        }
        child => {
            let child = rustix::process::Pid::from_raw(child).unwrap();
            let options = rustix::process::WaitOptions::empty();
            let ended = rustix::process::waitpid(Some(child), options).unwrap();
            let status = ended.unwrap().1.exit_status();
            assert_eq!(status, Some(0));
        }
    }
}

fn serve(root: Root, access: Access, side: Option<OwnedFd>) {
    let mut beside = Beside::new(OWNER);
    if let Some(side) = side {
        beside = beside.with_directory(side).unwrap();
    }
    let mut limits = Limits::default();
    limits.handles = 10_000;
    let server = Server::new(root, access)
        .limits(limits)
        .ownership(Ownership::Beside(beside));
    let stream = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(true).unwrap();
    peers::runtime().block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        // A client that goes away is no failure of the server.
        let _ = server.serve(stream).await;
    });
}

#[test]
#[ignore = "started by those that need a server of another user"]
fn serves() {
    assert!(!rustix::process::geteuid().is_root());
    let (share, access) = share();
    if std::env::var_os(FILES).is_some() {
        return confined(|confined| serve(confined.root, access, confined.side));
    }
    let side = std::env::var_os(SIDE);
    let side = side.map(|side| std::fs::File::open(side).unwrap().into());
    let most = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    serve(Root::open(share).unwrap(), access, side);
}
