//! The processes of one mount: a keeper, and the server that it starts, a client of what the host serves with the kernel's
//! file system over it.
//!
//! ```text
//!                            ┌─────────────── server ───────────────┐
//! host's worker ~~~ port ~~~ mux::serve ─ slot ─▶ Client ─ FUSE ─ device ~~~ kernel
//!                     ┆      (the newest stream)                    ┆
//!                     └┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ keeper ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┘
//! ```
//!
//! The keeper holds the port and the kernel's device and does nothing else, so that there is little that it could die of. A
//! server that dies is followed by another one under the same mount, and what runs on it goes on.
//!
//! It is a service of systemd, one per mount ([`crate::guest_files::mount_unit`]), and independent of the agent: either may
//! die without the other. Neither process may touch the file system that they serve.

mod control;
pub mod server;
mod successor;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use colima_core::mounts::{GuestMount, port_name};
use colima_mount::fuse::{Keeper, MountOptions};
use rustix::{
    event::{PollFd, PollFlags, poll},
    mount::UnmountFlags,
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    control::{CONNECTED, SERVES},
    successor::Server,
};
use crate::{
    agent::{find_port, log, notify},
    error::chain,
    init::load_module,
    mount_records::{self, DIRECTORY, is_mounted},
    mount_table,
};

/// Servers that may fail in a row. What keeps them all from serving goes away with a new mount, if at all.
const SUCCESSORS: u32 = 5;

/// First argument of the role; the second is the port's number.
pub const ROLE: &str = "mount";

/// How the kernel is asked for file systems.
const FUSE: &str = "/dev/fuse";

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
        let served = runtime.block_on(keep(&mount, notify_socket, &trouble));
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

async fn keep(
    mount: &GuestMount,
    notify_socket: Option<&std::ffi::OsStr>,
    trouble: &Path,
) -> io::Result<()> {
    load_fuse()?;
    let device = find_port(&port_name(mount.port))?;
    // Held here: a second open of it would be refused for as long as a server is not quite dead.
    let port = File::options().read(true).write(true).open(&device);
    let port = port.map_err(|error| of(&device, &error))?;
    let name = random_name()?;
    let server = Server::start(&port, name)?;
    server.hear(CONNECTED).await?;
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
    let keeper = Keeper::mount(&path, &options).map_err(|error| io::Error::other(chain(&error)))?;
    server.take_over(&keeper)?;
    server.hear(SERVES).await?;
    let _ = std::fs::remove_file(trouble);
    notify::ready(notify_socket)?;
    log(&format!("{} is mounted", path.display()));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        gone = is_gone(mount) => {
            gone?;
            // There is nothing left to unmount, and a mount of somebody else may be there now.
            drop(keeper.detach());
            match mount_records::read(Path::new(DIRECTORY), mount.port) {
                // By nobody who was asked to: it goes when what it lies in goes.
                Ok(_) => Err(io::Error::other("the mount was taken away")),
                Err(_) => Ok(()),
            }
        }
        _ = terminate.recv() => {
            // Whoever uses it keeps it, until the processes end.
            let closed = tokio::task::spawn_blocking(move || keeper.close()).await;
            if let Err(used) = closed.map_err(io::Error::other)? {
                drop(used.keeper.detach());
            }
            Ok(())
        }
        error = replace(server, &port, name, &keeper) => Err(error),
    }
}

/// Has one server after the other serve the mount; says why there is none any more.
async fn replace(mut server: Server, port: &File, name: u128, keeper: &Keeper) -> io::Error {
    let mut failed = 0;
    loop {
        if let Err(error) = server.ended().await {
            return error;
        }
        let path = keeper.path().display();
        log(&format!("{path}: its server is dead, another one goes on"));
        // What is left of the last one may wait in the kernel for an answer of the next: it is reaped later.
        server = loop {
            match serve_on(port, name, keeper).await {
                Ok(next) => break next,
                Err(error) if failed < SUCCESSORS => {
                    failed += 1;
                    log(&format!("{path}: {error}"));
                }
                Err(error) => return error,
            }
        };
        failed = 0;
    }
}

async fn serve_on(port: &File, name: u128, keeper: &Keeper) -> io::Result<Server> {
    let next = Server::start(port, name)?;
    next.hear(CONNECTED).await?;
    next.take_over(keeper)?;
    next.hear(SERVES).await?;
    Ok(next)
}

/// By what the host's worker knows all servers of this mount, and no other.
fn random_name() -> io::Result<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_err(io::Error::other)
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
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
