//! Our mount against sshfs without a guest: nothing is emulated, and nothing is enciphered.
//!
//! ```text
//! work ─ kernel ─ sshfs ══ socket pair ══ sftp-server ─ files      (two processes, stock)
//! work ─ kernel ─ ours  ══ socket pair ══ ours ──────── files      (two processes, ours)
//! work ─ kernel ─────────────────────────────────────── files
//! ```
//!
//! Each turn has a new mount, so that what is done first is the first that the mount sees of it. The files behind it
//! are on tmpfs where there is one: a disk would be the same for all, and more than a mount costs.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use colima_mount::{Access, Client, Root, Server, fuse};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{
    Result,
    files::{Amount, Work},
    host::Host,
    mounts::{PEERS, Times, against_sshfs, sftp_server},
    product::{Setup, output},
    report::{Bar, Measure, Row},
    sample::Unit,
};

/// With this argument and a directory, this program becomes the server of a mount.
pub const SERVER: &str = "--server-of-mount";
/// And with this one its client.
pub const CLIENT: &str = "--client-of-mount";

const AMOUNT: Amount = Amount::Whole;

/// Files that are on no disk.
const MEMORY: &str = "/dev/shm";

/// Measures in a directory of its own, which is removed.
///
/// # Errors
///
/// When this user may not mount, or sshfs or `sftp-server` is missing.
pub async fn run(setup: &Setup) -> Result<Row> {
    let host = Host::here();
    let memory = Path::new(MEMORY);
    let around = if memory.is_dir() { memory } else { &setup.work };
    let directory = tempfile::tempdir_in(around)?;
    let at = |name: &str| directory.path().join(name);
    let (share, place) = (at("share"), at("mount"));
    fs::create_dir(&place)?;
    let git = output(Command::new("git").arg("--version")).await;
    let git = git.ok().map(|_| "git");
    let mut make = Command::new(setup.peer()?);
    make.arg("make-files").arg(&share).arg(AMOUNT.name());
    output(make.args(git)).await?;
    // Elsewhere, so that only what is written is on the mount.
    if git.is_some() {
        let mut copy = Command::new("cp");
        output(
            copy.arg("-a")
                .arg(share.join("repository"))
                .arg(at("source")),
        )
        .await?;
    }

    let mut times = Times::new(AMOUNT, Unit::Milliseconds);
    for round in 1..=setup.rounds {
        for (peer, name) in PEERS.into_iter().enumerate() {
            let mounted = match peer {
                0 => Some(Mounted::sshfs(&share, &place).await?),
                1 => Some(Mounted::ours(&share, &place).await?),
                _ => None,
            };
            let there = mounted.as_ref().map_or(&share, |mounted| &mounted.place);
            let mut work = Command::new(setup.peer()?);
            match git {
                Some(git) => {
                    work.arg("files-and-clone").arg(there).arg(AMOUNT.name());
                    work.arg(at("source")).arg(git);
                }
                None => {
                    work.arg("files").arg(there).arg(AMOUNT.name());
                }
            }
            let printed = output(&mut work).await?;
            for failed in times.add(peer, &printed)? {
                (setup.progress)(&failed);
            }
            (setup.progress)(&format!("round {round}: {name}"));
            if let Some(mounted) = mounted {
                mounted.close().await?;
            }
        }
    }
    let (measures, bars) = times.done(bars);
    Ok(Row {
        name: "mounts-native".to_owned(),
        about:
            "No guest: files through sshfs and OpenSSH's `sftp-server`, and through our mount and \
                server, over a socket pair each, nothing enciphered; and without a mount. The files are on tmpfs."
                .to_owned(),
        command: format!("compare --rounds {} mounts-native", setup.rounds),
        host,
        measures,
        bars,
    })
}

fn bars(work: Work, measure: &Measure) -> Vec<Bar> {
    vec![against_sshfs(work, measure)]
}

/// A mount and the two processes behind it.
///
/// **Drop** takes the mount away and ends the processes; **close** waits for that.
struct Mounted {
    place: PathBuf,
    client: Child,
    server: Child,
}

impl Mounted {
    async fn sshfs(share: &Path, place: &Path) -> Result<Self> {
        let mut server = Command::new(sftp_server()?);
        server.arg("-e").arg("-d").arg(share);
        let mut client = Command::new("sshfs");
        let mut remote = std::ffi::OsString::from(":");
        remote.push(share);
        client.arg(remote).arg(place);
        client.args(["-o", "slave", "-o", "allow_other"]);
        Self::start(server, client, place).await
    }

    async fn ours(share: &Path, place: &Path) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut server = Command::new(&this);
        server.arg(SERVER).arg(share);
        let mut client = Command::new(this);
        client.arg(CLIENT).arg(place);
        Self::start(server, client, place).await
    }

    /// Returns when it is mounted.
    async fn start(mut server: Command, mut client: Command, place: &Path) -> Result<Self> {
        let (near, far) = StdUnixStream::pair()?;
        let connect = |command: &mut Command, stream: StdUnixStream| -> Result<Child> {
            let output = OwnedFd::from(stream.try_clone()?);
            let command = command.stdin(OwnedFd::from(stream)).stdout(output);
            let name = command.as_std().get_program().to_owned();
            let started = command.stderr(Stdio::inherit()).kill_on_drop(true).spawn();
            Ok(started.map_err(|error| format!("cannot run {}: {error}", name.display()))?)
        };
        let mut mounted = Self {
            place: place.to_owned(),
            server: connect(&mut server, far)?,
            client: connect(&mut client, near)?,
        };
        // Whichever comes first: the mount, or an end.
        let mut appears = tokio::time::interval(Duration::from_millis(5));
        let there = format!(" {} ", place.display());
        while !fs::read_to_string("/proc/self/mountinfo")?.contains(&there) {
            if let Some(status) = mounted.client.try_wait()? {
                return Err(format!("the client of a mount ended: {status}").into());
            }
            appears.tick().await;
        }
        Ok(mounted)
    }

    async fn close(mut self) -> Result<()> {
        let id = self.client.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).ok_or("a mount ended early")?;
        kill_process(id, Signal::TERM)?;
        self.client.wait().await?;
        self.server.wait().await?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Mostly it is gone already.
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

/// Standard input as the stream that it is.
fn stream() -> Result<UnixStream> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let stream = StdUnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?)
}

/// Serves a directory over standard input, until that ends.
///
/// # Errors
///
/// When the directory or the stream fails.
pub fn serve(directory: &OsStr) -> Result<()> {
    let server = Server::new(Root::open(directory)?, Access::ReadWrite);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Ok(server.serve(stream()?).await?) })
}

/// Mounts what is served over standard input, until TERM.
///
/// # Errors
///
/// When nothing can be mounted, or something there is in use at the end.
pub fn mount(place: &OsStr) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mounted = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let client = Client::connect(stream()?).await?;
        let guard = fuse::mount(client, place).await?;
        terminate.recv().await;
        guard.close().await.map_err(|busy| busy.source)?;
        Ok(())
    });
    runtime.shutdown_background();
    mounted
}
