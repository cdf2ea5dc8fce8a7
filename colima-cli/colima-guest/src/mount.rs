//! The process of one mount: a client of what the host serves, and the kernel's file system over it.
//!
//! ```text
//! host's worker ~~~ port ~~~ mux::serve ─ slot ─▶ Client ─ FUSE ─ kernel
//!                            (the newest stream)
//! ```
//!
//! It is a service of systemd, one per mount ([`crate::guest_files::mount_unit`]), and independent of the agent: either may
//! die without the other. It must never touch the file system that it serves.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use colima_core::{
    Endpoint,
    mounts::{GuestMount, SERVICE, port_name},
};
use colima_mount::{
    Client,
    fuse::{self, MountOptions},
};
use colima_net::mux::{Incoming, MuxStream, ServeConfig, serve};
use rustix::{
    event::{PollFd, PollFlags, poll},
    mount::UnmountFlags,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    agent::{Port, find_port, log, notify},
    init::load_module,
    mount_records::{self, DIRECTORY, is_mounted},
    mount_table,
};

/// First argument of the role; the second is the port's number.
pub const ROLE: &str = "mount";

/// How the kernel is asked for file systems.
const FUSE: &str = "/dev/fuse";

/// Bytes that a stream may be ahead of its reader. Large, because this one carries the content of files.
const WINDOW: u32 = 4 << 20;

/// Serves a mount until it is taken away. `notify_socket` is systemd's `NOTIFY_SOCKET`.
///
/// # Errors
///
/// What keeps it from being mounted, or ended it. Also written down for the agent.
pub fn run(port: u8, notify_socket: Option<&std::ffi::OsStr>) -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    let trouble = mount_records::trouble(directory, port);
    let served = mount_records::read(directory, port).and_then(|mount| {
        // One thread that is handed requests: two pass them to each other, and waking another processor costs an
        // emulated guest more than the request.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let served = runtime.block_on(work(&mount, notify_socket, &trouble));
        // A thread may wait for the port for as long as the host is silent.
        runtime.shutdown_background();
        served
    });
    if let Err(error) = &served {
        // The journal has it in any case.
        let _ = std::fs::write(&trouble, error.to_string());
    }
    served
}

async fn work(
    mount: &GuestMount,
    notify_socket: Option<&std::ffi::OsStr>,
    trouble: &Path,
) -> io::Result<()> {
    load_fuse()?;
    let device = find_port(&port_name(mount.port))?;
    let port = Port::open(&device).map_err(|error| of(&device, &error))?;
    let slot = Arc::new(Slot::default());
    let answering = tokio::spawn(answer(port, Arc::clone(&slot)));
    let client = Client::over(move || {
        let slot = Arc::clone(&slot);
        async move { Ok(slot.next().await) }
    });
    let client = client.await.map_err(io::Error::other)?;
    let path = PathBuf::from(&mount.path);
    let place = mount.clone();
    tokio::task::spawn_blocking(move || {
        wait_for_parents(&place)?;
        make_mount_point(&place)
    })
    .await
    .map_err(io::Error::other)??;
    let mut options = MountOptions::default();
    options.name = port_name(mount.port);
    let mounted = fuse::mount_with(client, &path, options).await;
    let guard = mounted.map_err(|error| chain(&error))?;
    let _ = std::fs::remove_file(trouble);
    notify::ready(notify_socket)?;
    log(&format!("{} is mounted", path.display()));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        gone = is_gone(mount) => {
            gone?;
            // There is nothing left to unmount, and a mount of somebody else may be there now.
            guard.detach();
            match mount_records::read(Path::new(DIRECTORY), mount.port) {
                // By nobody who was asked to: it goes when what it lies in goes.
                Ok(_) => Err(io::Error::other("the mount was taken away")),
                Err(_) => Ok(()),
            }
        }
        _ = terminate.recv() => {
            // Whoever uses it keeps it, until the process ends.
            drop(guard.close().await);
            Ok(())
        }
        ended = answering => Err(ended.unwrap_or_else(io::Error::other)),
    }
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn chain(error: &dyn std::error::Error) -> io::Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    io::Error::other(text)
}

/// The newest stream of the host that nobody has taken yet.
#[derive(Default)]
struct Slot {
    stream: Mutex<Option<MuxStream>>,
    filled: Notify,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    fn put(&self, stream: MuxStream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        self.filled.notify_one();
    }

    /// Waits for one.
    async fn next(&self) -> MuxStream {
        loop {
            let taken = self
                .stream
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(stream) = taken {
                return stream;
            }
            self.filled.notified().await;
        }
    }
}

/// Answers the host on the port until that is gone; says why.
async fn answer(mut port: Port, slot: Arc<Slot>) -> io::Error {
    loop {
        let connection = match port.accept().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let slot = Arc::clone(&slot);
        let config = ServeConfig {
            window: WINDOW,
            ..ServeConfig::default()
        };
        let served = serve(connection, config, move |incoming| {
            let slot = Arc::clone(&slot);
            async move { take(incoming, &slot) }
        });
        if let Err(error) = served.await {
            log(&format!("connection given up: {error}"));
        }
    }
}

fn take(incoming: Incoming, slot: &Slot) {
    match incoming.endpoint() {
        Endpoint::Service(name) if name == SERVICE => slot.put(incoming.accept()),
        other => {
            let reason = format!("a mount has no {other}");
            incoming.refuse(&io::Error::new(io::ErrorKind::NotFound, reason));
        }
    }
}

/// Brings the kernel's part, which is a module on Debian.
fn load_fuse() -> io::Result<()> {
    if Path::new(FUSE).exists() {
        return Ok(());
    }
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let directory = Path::new("/usr/lib/modules")
        .join(&*release)
        .join("kernel/fs/fuse");
    let names = ["fuse.ko.xz", "fuse.ko.zst", "fuse.ko"];
    let found = names.iter().map(|name| directory.join(name));
    let Some(module) = found.into_iter().find(|path| path.exists()) else {
        let what = format!("{} has no module fuse", directory.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    };
    load_module(&module).map_err(|error| of(&module, &error))
}

/// Blocks until everything is mounted that this lies in. What comes later would hide it.
fn wait_for_parents(mount: &GuestMount) -> io::Result<()> {
    wait_for(|table| mount_records::parents_are_mounted(mount, Path::new(DIRECTORY), table))
}

/// Blocks until the kernel's table is as wanted.
fn wait_for(wanted: impl Fn(&[mount_table::Mounted]) -> bool) -> io::Result<()> {
    let table = std::fs::File::open(mount_table::OWN)?;
    while !wanted(&mount_table::read(mount_table::OWN)?) {
        // proc(5): a change of the table is exceptional data.
        let mut changed = [PollFd::new(&table, PollFlags::PRI)];
        match poll(&mut changed, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the directory, and takes away what a process before this one has left there.
fn make_mount_point(mount: &GuestMount) -> io::Result<()> {
    while is_mounted(mount, &mount_table::read(mount_table::OWN)?) {
        rustix::mount::unmount(&mount.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    let path = Path::new(&mount.path);
    std::fs::create_dir_all(path).map_err(|error| of(path, &error))
}

/// Completes when the mount is not in the kernel's table any more.
///
/// # Cancel safety
///
/// A thread goes on waiting; the process is expected to end.
async fn is_gone(mount: &GuestMount) -> io::Result<()> {
    let mount = mount.clone();
    tokio::task::spawn_blocking(move || wait_for(|table| !is_mounted(&mount, table)))
        .await
        .map_err(io::Error::other)?
}
