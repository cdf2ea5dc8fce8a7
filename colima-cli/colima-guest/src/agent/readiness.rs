//! What became of the boot: one task watches, any number of conversations follow.
//!
//! Docker is ready when it answers a ping. The ping is sent once and simply waits: systemd holds the
//! socket and the request in it while dockerd starts. A socket that is not there yet is waited for
//! with inotify; a connection that is refused or closed means that something failed, and systemd
//! knows what.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use colima_core::boot::Runtime;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use tokio::{process::Command, sync::watch};

use super::docker_api;
use crate::status::{InitStatus, Stage};

/// Docker's socket, made by systemd early in the boot.
pub(super) const DOCKER_SOCKET: &str = "/run/docker.sock";
/// containerd's socket, made by itself.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Longest wait for such a socket; docker itself may take as long as it wants.
const SOCKET_DEADLINE: Duration = Duration::from_secs(120);

/// How far the boot is, and where it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) stages: Vec<Stage>,
    pub(super) outcome: Option<Outcome>,
}

/// The end of the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything that was asked for runs.
    Ready { versions: BTreeMap<String, String> },
    /// It does not, and why.
    Failed { reason: String, detail: Vec<String> },
}

/// What became of the boot, to be followed by conversations.
#[derive(Clone, Debug)]
pub struct Readiness {
    progress: Arc<watch::Sender<Progress>>,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// Settled by init.
    Settled,
    /// Docker, at this socket.
    Docker(PathBuf),
    /// containerd, at this socket.
    Containerd(PathBuf),
}

impl Readiness {
    /// Starts watching, on the current runtime. `status` is what init left, or why it cannot be read.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn watch(status: Result<InitStatus, String>) -> Self {
        Self::watch_socket(status, Path::new(DOCKER_SOCKET))
    }

    /// The same with another socket of Docker.
    pub(super) fn watch_socket(status: Result<InitStatus, String>, socket: &Path) -> Self {
        let mut progress = Progress::default();
        let mut target = Target::Settled;
        match status {
            Ok(InitStatus {
                failure,
                stages,
                runtime,
                ..
            }) => {
                progress.stages = stages;
                progress.stages.push(Stage::now("agent"));
                progress.outcome = match (failure, runtime) {
                    (Some(reason), _) => Some(Outcome::Failed {
                        reason,
                        detail: Vec::new(),
                    }),
                    (None, Runtime::Docker) => {
                        target = Target::Docker(socket.to_owned());
                        None
                    }
                    (None, Runtime::Containerd) => {
                        target = Target::Containerd(CONTAINERD_SOCKET.into());
                        None
                    }
                    (None, _) => Some(Outcome::Ready {
                        versions: BTreeMap::new(),
                    }),
                };
            }
            Err(reason) => {
                progress.outcome = Some(Outcome::Failed {
                    reason,
                    detail: Vec::new(),
                });
            }
        }
        let readiness = Self {
            progress: Arc::new(watch::Sender::new(progress)),
            target,
        };
        readiness.look();
        readiness
    }

    /// Follows the boot from its beginning. A runtime that had failed is looked at anew: a person may
    /// have repaired it.
    pub(super) fn follow(&self) -> watch::Receiver<Progress> {
        let again = self.target != Target::Settled
            && self.progress.send_if_modified(|progress| {
                let failed = matches!(progress.outcome, Some(Outcome::Failed { .. }));
                if failed {
                    progress.outcome = None;
                }
                failed
            });
        if again {
            self.look();
        }
        self.progress.subscribe()
    }

    /// Starts the task that settles the outcome.
    fn look(&self) {
        let progress = Arc::clone(&self.progress);
        let target = self.target.clone();
        let name = match target {
            Target::Settled => return,
            Target::Docker(_) => "docker",
            Target::Containerd(_) => "containerd",
        };
        tokio::spawn(async move {
            let outcome = match target {
                Target::Settled => return,
                Target::Docker(socket) => docker(&socket).await,
                Target::Containerd(socket) => containerd(&socket).await,
            };
            progress.send_modify(|progress| {
                if matches!(outcome, Outcome::Ready { .. }) {
                    progress.stages.push(Stage::now(name));
                }
                progress.outcome = Some(outcome);
            });
        });
    }
}

/// Waits for the socket of a runtime; what is wrong where it does not appear.
async fn wait_for(socket: &Path, whose: &str) -> Result<(), String> {
    let path = socket.to_owned();
    let appeared = tokio::task::spawn_blocking(move || appears(&path, SOCKET_DEADLINE)).await;
    match appeared.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let seconds = SOCKET_DEADLINE.as_secs();
            Err(format!("{whose} socket did not appear within {seconds} s"))
        }
        Err(error) => Err(format!("{whose} socket cannot be watched: {error}")),
    }
}

/// Waits until containerd answers its own client, which tells the version, or until it is certain that it does not.
async fn containerd(socket: &Path) -> Outcome {
    const UNIT: &[&str] = &["containerd.service"];
    // containerd makes it, and only what is there can be watched.
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if let Err(error) = std::fs::create_dir_all(directory) {
        return explain(&format!("{}: {error}", directory.display()), UNIT).await;
    }
    if let Err(why) = wait_for(socket, "containerd's").await {
        return explain(&why, UNIT).await;
    }
    let asked = Command::new("ctr")
        .args(["--connect-timeout", "60s", "--address"])
        .arg(socket)
        .arg("version")
        .output();
    match asked.await {
        Ok(output) if output.status.success() => Outcome::Ready {
            versions: server_version(&String::from_utf8_lossy(&output.stdout))
                .map(|version| ("containerd".to_owned(), version.to_owned()))
                .into_iter()
                .collect(),
        },
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            explain(
                &format!("containerd does not answer: {}", said.trim()),
                UNIT,
            )
            .await
        }
        Err(error) => explain(&format!("ctr cannot be run: {error}"), UNIT).await,
    }
}

/// The version of the daemon: `ctr version` tells its own first.
fn server_version(text: &str) -> Option<&str> {
    let (_, server) = text.split_once("Server:")?;
    let line = server
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version:"))?;
    Some(line.trim())
}

/// Waits for docker's answer, or for its failure.
async fn docker(socket: &Path) -> Outcome {
    const UNITS: &[&str] = &["docker.service", "containerd.service"];
    loop {
        if let Err(why) = wait_for(socket, "docker's").await {
            return explain(&why, UNITS).await;
        }
        match docker_api::get(socket, "/_ping").await {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return explain(&error.to_string(), UNITS).await;
            }
            // Closed or refused: dockerd died. systemd tries again a few times, and while it does the
            // next request waits in the socket.
            Err(error) => match unit_state("docker.service").await.as_deref() {
                Some("active" | "activating" | "reloading") if socket.exists() => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        return explain("docker's socket refuses connections", UNITS).await;
                    }
                }
                _ => return explain(&format!("docker does not run: {error}"), UNITS).await,
            },
        }
    }
    let versions = docker_api::get(socket, "/version")
        .await
        .unwrap_or_default();
    Outcome::Ready {
        versions: docker_api::versions(&versions),
    }
}

/// Waits until there is something at `path`; `TimedOut` after the deadline. Blocks its thread.
fn appears(path: &Path, deadline: Duration) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let interest = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, interest)?;
    let end = Instant::now() + deadline;
    while !path.exists() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut descriptors = [PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut descriptors, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0_u8; 4096];
        // What happened does not matter, only that something did.
        while rustix::io::read(&watch, &mut buffer[..]).is_ok() {}
    }
    Ok(())
}

async fn unit_state(unit: &str) -> Option<String> {
    let output = Command::new("systemctl")
        .args(["show", "--property=ActiveState", "--value", unit])
        .output();
    let output = output.await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A failure with what systemd and the journal know about these units, the first of which failed.
async fn explain(reason: &str, units: &[&str]) -> Outcome {
    let mut detail = Vec::new();
    let status = ["status", "--no-pager", "--lines=0"];
    let journal = ["--no-pager", "--output=cat", "--lines=20", "--unit"];
    for (program, options, units) in [
        ("systemctl", &status[..], units),
        ("journalctl", &journal, &units[..1]),
    ] {
        match Command::new(program)
            .args(options)
            .args(units)
            .output()
            .await
        {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                detail.extend(text.lines().map(str::to_owned));
            }
            Err(error) => detail.push(format!("{program}: {error}")),
        }
    }
    Outcome::Failed {
        reason: reason.to_owned(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_version_is_told() {
        let text = "Client:\n  Version:  1.6.20\n  Revision: x\n\nServer:\n  Version:  1.7.24~ds1\n  UUID: y\n";
        assert_eq!(server_version(text), Some("1.7.24~ds1"));
        assert_eq!(server_version("Client:\n  Version: 1\n"), None);
    }
}
