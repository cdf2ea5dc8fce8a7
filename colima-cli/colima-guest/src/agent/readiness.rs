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
/// Longest wait for that socket; docker itself may take as long as it wants.
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
        let again = matches!(self.target, Target::Docker(_))
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
        let Target::Docker(socket) = self.target.clone() else {
            return;
        };
        let progress = Arc::clone(&self.progress);
        tokio::spawn(async move {
            let outcome = docker(&socket).await;
            progress.send_modify(|progress| {
                if matches!(outcome, Outcome::Ready { .. }) {
                    progress.stages.push(Stage::now("docker"));
                }
                progress.outcome = Some(outcome);
            });
        });
    }
}

/// Waits for docker's answer, or for its failure.
async fn docker(socket: &Path) -> Outcome {
    loop {
        let path = socket.to_owned();
        let appeared = tokio::task::spawn_blocking(move || appears(&path, SOCKET_DEADLINE)).await;
        match appeared.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let seconds = SOCKET_DEADLINE.as_secs();
                return explain(&format!(
                    "docker's socket did not appear within {seconds} s"
                ))
                .await;
            }
            Err(error) => {
                return explain(&format!("docker's socket cannot be watched: {error}")).await;
            }
        }
        match docker_api::get(socket, "/_ping").await {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return explain(&error.to_string()).await;
            }
            // Closed or refused: dockerd died. systemd tries again a few times, and while it does the
            // next request waits in the socket.
            Err(error) => match unit_state("docker.service").await.as_deref() {
                Some("active" | "activating" | "reloading") if socket.exists() => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        return explain("docker's socket refuses connections").await;
                    }
                }
                _ => return explain(&format!("docker does not run: {error}")).await,
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

/// A failure with what systemd and the journal know about it.
async fn explain(reason: &str) -> Outcome {
    let mut detail = Vec::new();
    for (program, args) in [
        (
            "systemctl",
            &[
                "status",
                "--no-pager",
                "--lines=0",
                "docker.service",
                "containerd.service",
            ][..],
        ),
        (
            "journalctl",
            &[
                "--no-pager",
                "--output=cat",
                "--lines=20",
                "--unit=docker.service",
            ],
        ),
    ] {
        match Command::new(program).args(args).output().await {
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
