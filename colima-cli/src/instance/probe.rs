//! Whether an instance works: asked of its parts, never remembered.

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use colima_core::{Bytes, boot::Runtime};
use colima_net::{
    agent::AgentError,
    forward::{Place, deserted},
};
use colima_vm::machine::{self, SavedState, qmp::RunState};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{Instance, InstanceRecord, PortReport, Problem, is_stopped, room};
use crate::{command_error::CommandError, mounts::MountHealth, state_dir::ProfilePaths};

/// Each part gets this long to answer; they are asked at once.
pub(super) const PATIENCE: Duration = Duration::from_millis(1300);

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
        /// What does not work; empty when everything does.
        problems: Vec<Problem>,
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
    /// Asks machine, agent, runtime, host directories and ports whether they work, all at once; answers within two
    /// seconds, whatever hangs.
    pub async fn probe(&self) -> Probe {
        let (places, paths) = (self.ports.places(), self.paths.clone());
        let look = move || (room::on_host(&paths), deserted(&places));
        // A disk of the host may hang.
        let host = timeout(PATIENCE, tokio::task::spawn_blocking(look));
        let (machine, agent, runtime, mounts, host) = tokio::join!(
            self.probe_machine(),
            self.probe_agent(),
            self.probe_runtime(),
            self.mounts.health(&self.agent),
            host,
        );
        let host = host.ok().and_then(Result::ok);
        let (mut problems, deserted) = host.unwrap_or_default();
        match (machine, agent) {
            (Seen::Ended, _) => return Probe::at_rest(&self.paths),
            // When the machine itself is the trouble the others only follow from it.
            (Seen::Trouble(problem), _) => problems.insert(0, problem),
            // Everything in the guest is reached through its agent.
            (Seen::Well, Err(problem)) => problems.insert(0, problem),
            (Seen::Well, Ok(vitals)) => {
                problems.extend(runtime);
                problems.extend(mounts.iter().filter_map(MountHealth::trouble));
                let trouble = self.ports.report().and_then(|report| report.trouble);
                problems.extend(trouble.map(Problem::retried));
                problems.extend(deserted.into_iter().map(no_listener));
                problems.extend(vitals.into_iter().flatten());
                problems.extend(self.disk_errors.problem());
            }
        }
        Probe::Running {
            record: Box::new(self.record_now()),
            problems,
            ports: self.ports.report(),
            mounts,
        }
    }

    async fn probe_machine(&self) -> Seen {
        let pid = self.machine.pid();
        let end = "end it: colima stop --force";
        // Its own limit does not count the wait for the last words of a QEMU that is ending.
        let status = timeout(PATIENCE, self.machine.status(PATIENCE)).await;
        Seen::Trouble(match status.unwrap_or(machine::Status::NotResponding) {
            machine::Status::Responding(RunState::Running) => return Seen::Well,
            machine::Status::Exited(_) => return Seen::Ended,
            machine::Status::Responding(RunState::IoError) => Problem::new(
                "the virtual machine is paused: the host cannot read or write its disks",
                format!(
                    "make room in {}, and it goes on by itself",
                    room::growing(&self.paths)[0].display()
                ),
            ),
            machine::Status::Responding(RunState::Paused) => {
                Problem::new("the virtual machine is paused", end)
            }
            machine::Status::NotResponding if is_stopped(pid) => Problem::new(
                format!("a signal has stopped the virtual machine, process {pid}"),
                format!("let it go on: kill -CONT {pid}"),
            ),
            machine::Status::NotResponding => Problem::new(
                format!("the virtual machine, process {pid}, does not respond"),
                end,
            ),
            machine::Status::Responding(state) => Problem::new(
                format!("the virtual machine does not run: QEMU says {state:?}"),
                end,
            ),
            _ => return Seen::Well,
        })
    }

    /// What the agent says of the guest. One that is too old to know says nothing.
    async fn probe_agent(&self) -> Result<[Option<Problem>; 2], Problem> {
        let (asked, asked_at) = (SystemTime::now(), Instant::now());
        let unanswered = "the guest's agent does not answer";
        let restart = "boot it anew: colima restart";
        match timeout(PATIENCE, self.agent.vitals()).await {
            Ok(Ok(vitals)) => {
                let took = asked_at.elapsed();
                let clock = clock(asked, took, vitals.since_epoch);
                Ok([clock, vitals.data_disk.and_then(room::in_guest)])
            }
            Ok(Err(AgentError::Failed { .. })) => Ok([None, None]),
            Ok(Err(error)) => Err(Problem::new(format!("{unanswered}: {error}"), restart)),
            Err(_) => Err(Problem::new(unanswered, restart)),
        }
    }

    /// Through the host's socket, as a docker client would.
    async fn probe_runtime(&self) -> Option<Problem> {
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
        let what = match timeout(PATIENCE, answer).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => format!("{unanswered}: {error}"),
            Err(_) => format!("{unanswered} in time"),
        };
        let restart = format!("start it anew: colima ssh -- sudo systemctl restart {name}");
        Some(Problem::new(what, restart))
    }
}

/// What a look at the machine alone shows.
enum Seen {
    Well,
    Trouble(Problem),
    Ended,
}

/// A guest's clock may differ by this much from the host's. `make` and certificates do not mind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// What is wrong with a clock that said `guest` between `asked` and `took` later.
fn clock(asked: SystemTime, took: Duration, guest: Duration) -> Option<Problem> {
    let asked = asked.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let (off, how) = match guest.checked_sub(asked + took) {
        Some(ahead) => (ahead, "ahead"),
        None => (asked.saturating_sub(guest), "behind"),
    };
    (off > CLOCK_TOLERANCE).then(|| {
        let seconds = off.as_secs();
        Problem::new(
            format!("the guest's clock is {seconds} s {how}"),
            "set it, and what runs goes on: colima stop && colima start",
        )
    })
}

fn no_listener(place: Place) -> Problem {
    Problem::new(
        format!("{place} is forwarded, and nothing listens there"),
        "open it anew, and what runs goes on: colima stop, then colima start",
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_more_than_the_question_took() {
        let asked = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let off = |took, guest| {
            let (took, guest) = (Duration::from_secs(took), Duration::from_secs(guest));
            clock(asked, took, guest).map(|problem| problem.what)
        };
        for (took, guest) in [(0, 1000), (0, 1002), (0, 998), (5, 1007), (5, 1003)] {
            assert_eq!(off(took, guest), None, "{took} {guest}");
        }
        assert_eq!(off(0, 1003).unwrap(), "the guest's clock is 3 s ahead");
        assert_eq!(off(5, 1010).unwrap(), "the guest's clock is 5 s ahead");
        assert_eq!(off(5, 900).unwrap(), "the guest's clock is 100 s behind");
    }
}
