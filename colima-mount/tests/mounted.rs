//! A directory, a server of it, and a mount of that server, in one process.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use colima_mount::{
    Access, Client, Root,
    fuse::{self, Events, MountGuard, MountOptions},
    server::Limits,
};

use crate::{peers, worker::Worker};

pub(crate) struct Mounted {
    pub(crate) host: tempfile::TempDir,
    /// Taken away before the runtime that serves it.
    guard: Option<MountGuard>,
    place: tempfile::TempDir,
    pub(crate) session: tokio::task::JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
    _watchdog: mpsc::Sender<()>,
}

/// Whether there can be a mount; prints why not.
pub(crate) fn is_possible(test: &str) -> bool {
    let possible = Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !possible {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        let () = println!("skipped: {test}: needs root and /dev/fuse");
    }
    possible
}

/// A file system that hangs would hang the test for ever.
pub(crate) fn watchdog() -> mpsc::Sender<()> {
    let (alive, gone) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let limit = Duration::from_secs(300);
        if gone.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            #[expect(clippy::print_stderr, reason = "nothing else is told before an abort")]
            let () = eprintln!("a test on a mount takes more than {limit:?}: it hangs");
            std::process::abort();
        }
    });
    alive
}

impl Mounted {
    /// Mounts a new directory; prints why not and gives none where that is not possible.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, Access::ReadWrite, Limits::default(), |_| {})
    }

    /// As [`Mounted::new`], with host changes replayed for watchers.
    pub(crate) fn for_watchers(test: &str) -> Option<Self> {
        let mut options = MountOptions::default();
        options.events = Events::Replayed;
        let (access, limits) = (Access::ReadWrite, Limits::default());
        let way = |stream| (stream, ());
        Self::through_with(test, access, limits, options, |_| {}, way).map(|(it, ())| it)
    }

    pub(crate) fn with(
        test: &str,
        access: Access,
        limits: Limits,
        prepare: impl FnOnce(&Path),
    ) -> Option<Self> {
        Self::through(test, access, limits, prepare, |stream| (stream, ())).map(|(it, ())| it)
    }

    /// Mounts over what `way` makes of the stream to the server.
    pub(crate) fn through<T>(
        test: &str,
        access: Access,
        limits: Limits,
        prepare: impl FnOnce(&Path),
        way: impl FnOnce(tokio::io::DuplexStream) -> (tokio::io::DuplexStream, T),
    ) -> Option<(Self, T)> {
        Self::through_with(test, access, limits, MountOptions::default(), prepare, way)
    }

    fn through_with<T>(
        test: &str,
        access: Access,
        limits: Limits,
        options: MountOptions,
        prepare: impl FnOnce(&Path),
        way: impl FnOnce(tokio::io::DuplexStream) -> (tokio::io::DuplexStream, T),
    ) -> Option<(Self, T)> {
        let mut extra = None;
        let mounted = Self::of(test, options, |host| {
            prepare(host);
            let root = Root::open(host).unwrap();
            let (stream, session) = peers::serve(root, access, limits);
            let (stream, more) = way(stream);
            extra = Some(more);
            (stream, session)
        })?;
        Some((mounted, extra?))
    }

    /// Mounts a directory that a process of another user serves, with owners kept beside the files.
    pub(crate) fn by_worker(test: &str, worker: &Worker) -> Option<Self> {
        let options = MountOptions::default();
        Self::of(test, options, |host| worker.start(host))
    }

    /// Mounts a new directory that `serve` serves.
    fn of<S>(
        test: &str,
        options: MountOptions,
        serve: impl FnOnce(&Path) -> (S, tokio::task::JoinHandle<()>),
    ) -> Option<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        if !is_possible(test) {
            return None;
        }
        let (host, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path(), everybody).unwrap();
        let runtime = peers::runtime();
        let (guard, session) = runtime.block_on(async {
            let (stream, session) = serve(host.path());
            let client = Client::connect(stream).await.unwrap();
            let mounting = fuse::mount_with(client, place.path(), options);
            (mounting.await.unwrap(), session)
        });
        Some(Self {
            host,
            guard: Some(guard),
            place,
            session,
            runtime,
            _watchdog: watchdog(),
        })
    }

    /// A path in the mount.
    pub(crate) fn here(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.path().join(name)
    }

    /// The same path on the host.
    pub(crate) fn there(&self, name: impl AsRef<Path>) -> PathBuf {
        self.host.path().join(name)
    }

    pub(crate) fn close(mut self) {
        let guard = self.guard.take().unwrap();
        self.runtime.block_on(guard.close()).unwrap();
    }

    pub(crate) fn drop_guard(&mut self) {
        self.guard.take();
    }

    pub(crate) fn try_close(&mut self) -> std::io::Error {
        let guard = self.guard.take().unwrap();
        let error = self.runtime.block_on(guard.close()).unwrap_err();
        self.guard = Some(error.guard);
        error.source
    }

    pub(crate) fn wait_for_the_session(&mut self) {
        let _ = self.runtime.block_on(&mut self.session);
    }
}

/// Waits until something holds that an event brings about.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what} does not come"
        );
        std::thread::yield_now();
    }
}
