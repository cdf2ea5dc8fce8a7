//! Whether an instance works: asked of its parts, never remembered.

use std::{io, time::Duration};

use colima_core::{Bytes, boot::Runtime};
use colima_vm::machine::{self, SavedState, qmp::RunState};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{Instance, InstanceRecord, PortReport};
use crate::{command_error::CommandError, mounts::MountHealth, state_dir::ProfilePaths};

/// Each part gets this long to answer; they are asked at once.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the daemon knows of its instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Probe {
    /// Nothing runs.
    Stopped,
    /// Nothing runs, and the next start goes on from where it was stopped.
    Suspended {
        /// What the kept memory takes on disk.
        size: Bytes,
    },
    /// A start is under way.
    Starting,
    /// A stop is under way.
    Stopping,
    /// A machine runs and cannot be used.
    Stranded {
        /// Why.
        why: CommandError,
    },
    /// The machine runs.
    Running {
        /// What was started.
        record: Box<InstanceRecord>,
        /// What does not answer, one sentence each; empty when everything works.
        problems: Vec<String>,
        /// The guest's ports on the host; `None` where they are not forwarded.
        ports: Option<PortReport>,
        /// Directories of the host in the guest.
        #[serde(default)]
        mounts: Vec<MountHealth>,
    },
}

impl Probe {
    /// What there is of a profile whose machine does not run.
    #[must_use]
    pub fn at_rest(paths: &ProfilePaths) -> Self {
        match SavedState::find(&paths.machine_dir) {
            Ok(Some(state)) => Self::Suspended { size: state.size() },
            // What cannot be read cannot be resumed; the next start says so.
            Ok(None) | Err(_) => Self::Stopped,
        }
    }
}

impl Instance {
    /// Asks machine, agent and runtime whether they work; answers within two seconds.
    pub async fn probe(&self) -> Probe {
        let (machine, agent, docker, mounts) = tokio::join!(
            self.probe_machine(),
            self.probe_agent(),
            self.probe_runtime(),
            self.mounts.health(&self.agent)
        );
        // When the machine itself is the trouble the others only follow from it.
        let problems = match machine {
            Some(problem) => vec![problem],
            None => {
                let ports = self.ports.report().and_then(|report| report.trouble);
                // A guest whose agent is silent says nothing about its mounts either.
                let mounts = mounts.iter().filter(|_| agent.is_none());
                let mounts: Vec<String> = mounts.filter_map(MountHealth::sentence).collect();
                let parts = [agent, docker, ports].into_iter().flatten();
                parts.chain(mounts).collect()
            }
        };
        Probe::Running {
            record: Box::new(self.record_now()),
            problems,
            ports: self.ports.report(),
            mounts,
        }
    }

    async fn probe_machine(&self) -> Option<String> {
        match self.machine.status(PATIENCE).await {
            machine::Status::Responding(RunState::Running) => None,
            machine::Status::Responding(state) => Some(format!(
                "the virtual machine does not run: QEMU says {state:?}"
            )),
            machine::Status::NotResponding => {
                Some("the virtual machine does not respond: end it with colima stop --force".into())
            }
            machine::Status::Exited(exit) => Some(format!("the virtual machine ended: {exit}")),
            _ => None,
        }
    }

    async fn probe_agent(&self) -> Option<String> {
        let unanswered = "the guest's agent does not answer: try colima restart";
        match timeout(PATIENCE, self.agent.hello()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("{unanswered} ({error})")),
            Err(_) => Some(unanswered.to_owned()),
        }
    }

    /// Through the host's socket, as a docker client would.
    async fn probe_runtime(&self) -> Option<String> {
        let (name, socket) = match self.record.spec.runtime {
            Runtime::Docker => ("docker", &self.paths.docker_socket),
            Runtime::Containerd => ("containerd", &self.paths.containerd_socket),
            _ => return None,
        };
        let unanswered = format!("{name} does not answer on {}", socket.display());
        let answer = async {
            match self.record.spec.runtime {
                Runtime::Docker => ping(socket).await,
                _ => greet(socket).await,
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{unanswered}: {error}")),
            Err(_) => Some(format!("{unanswered} in time")),
        }
    }
}

/// `GET /_ping` of the Docker Engine API.
async fn ping(socket: &std::path::Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match &status {
        b"HTTP/1.1 200" => Ok(()),
        other => Err(io::Error::other(
            String::from_utf8_lossy(other).into_owned(),
        )),
    }
}

/// The beginning of any conversation in gRPC: both sides tell their settings (RFC 9113, 3.4 and 6.5).
async fn greet(socket: &std::path::Path) -> io::Result<()> {
    const SETTINGS: u8 = 4;
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await?;
    stream
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .await?;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    match head[3] {
        SETTINGS => Ok(()),
        other => Err(io::Error::other(format!("a frame of type {other}"))),
    }
}
