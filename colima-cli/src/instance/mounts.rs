//! The instance's host directories: a worker each, and what the guest's agent says of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use colima_core::{
    boot::User,
    mounts::{GuestMount, MOST_MOUNTS, MountState},
};
use colima_net::{
    agent::{Agent, AgentError},
    mux::Mux,
};
use colima_vm::machine::Machine;
use tokio::time::timeout;

use super::{InstanceSpec, Watcher, probe::PATIENCE};
use crate::{
    command_error::{CommandError, ErrorKind},
    control::Stage,
    mounts::{Ground, MountHealth, Serving, Share, Worker},
    state_dir::ProfilePaths,
};

/// Until the guest has mounted what it was asked for. Its own limit is shorter.
const MOUNT_LIMIT: Duration = Duration::from_secs(120);

/// Until the guest's mounts have found the workers of a new daemon.
const SETTLING: Duration = Duration::from_secs(5);

/// The agent's first version that knows mounts.
const PROTOCOL: u32 = 3;

/// What is shared with the guest, each with its worker.
///
/// **Drop**: the workers end; the guest's mounts wait for their successors. **Close**: [`HostMounts::close`].
#[derive(Debug)]
pub(super) struct HostMounts {
    machine: Weak<Machine>,
    ground: Arc<Ground>,
    open: Mutex<Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    share: Share,
    worker: Worker,
}

impl HostMounts {
    /// Serves every share; the guest connects when it can.
    pub(super) fn open(
        machine: &Arc<Machine>,
        paths: &ProfilePaths,
        spec: &InstanceSpec,
        user: &User,
    ) -> Self {
        let ground = Arc::new(Ground::new(paths, user, &spec.protect));
        let open = spec.mounts.iter().map(|share| Open {
            share: share.clone(),
            worker: Worker::start(machine, &ground, share.clone()),
        });
        Self {
            machine: Arc::downgrade(machine),
            open: Mutex::new(open.collect()),
            ground,
        }
    }

    /// What is shared now, by the guest's paths, parents first.
    pub(super) fn shares(&self) -> Vec<Share> {
        self.lock().iter().map(|open| open.share.clone()).collect()
    }

    /// Waits until the guest has mounted everything. What it cannot mount is told, and fails nothing: `status` has it
    /// as well.
    pub(super) async fn wait_mounted(&self, agent: &Agent<Mux>, watch: Watcher<'_>) {
        for share in self.shares() {
            let (location, path) = (&share.location, &share.guest.path);
            if let Err(error) = mount(agent, &share.guest).await {
                let text = format!("warning: {location} is not shared as {path}: {error}");
                watch(Stage::Note { text });
            }
        }
    }

    /// Shares one more directory; its port is chosen here.
    pub(super) async fn add(
        &self,
        agent: &Agent<Mux>,
        mut share: Share,
    ) -> Result<Share, CommandError> {
        let machine = self.machine.upgrade().ok_or_else(gone)?;
        {
            let mut open = self.lock();
            let taken = open
                .iter()
                .find(|open| open.share.guest.path == share.guest.path);
            if let Some(taken) = taken {
                share.guest.port = taken.share.guest.port;
                if taken.share == share {
                    return Ok(share);
                }
                let path = &share.guest.path;
                let what = format!("{path} in the guest is {} already", taken.share.location);
                return Err(CommandError::new(ErrorKind::Usage, what)
                    .hint(format!("take that away first: colima mount remove {path}")));
            }
            let free = (1..=MOST_MOUNTS)
                .filter_map(|port| u8::try_from(port).ok())
                .find(|port| open.iter().all(|open| open.share.guest.port != *port));
            share.guest.port = free.ok_or_else(|| {
                let what = format!("a machine has at most {MOST_MOUNTS} shared directories");
                CommandError::new(ErrorKind::Failure, what)
            })?;
            let worker = Worker::start(&machine, &self.ground, share.clone());
            let share = share.clone();
            open.push(Open { share, worker });
            open.sort_by(|one, other| one.share.guest.path.cmp(&other.share.guest.path));
        }
        if let Err(error) = mount(agent, &share.guest).await {
            let _ = agent.unmount(share.guest.port).await;
            self.forget(share.guest.port);
            let what = format!("{} cannot be shared", share.location);
            return Err(CommandError::new(ErrorKind::Failure, what).because(error));
        }
        Ok(share)
    }

    /// Takes one away, by its path on the host or in the guest.
    pub(super) async fn remove(
        &self,
        agent: &Agent<Mux>,
        path: &str,
    ) -> Result<Share, CommandError> {
        let shares = self.shares();
        let found = shares
            .iter()
            .find(|share| share.guest.path == path)
            .or_else(|| shares.iter().find(|share| share.location == path));
        let Some(share) = found else {
            let what = format!("{path} is not shared");
            return Err(
                CommandError::new(ErrorKind::Usage, what).hint("what is shared: colima mount list")
            );
        };
        match timeout(MOUNT_LIMIT, agent.unmount(share.guest.port)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let what = format!("{path} is still shared");
                return Err(CommandError::new(ErrorKind::Busy, what)
                    .because(explained(agent, &error).await)
                    .hint("stop the containers that use it, and try again"));
            }
            Err(_) => return Err(silent(path)),
        }
        self.forget(share.guest.port);
        Ok(share.clone())
    }

    /// Every share and whether it works, asked of its worker and of the guest.
    pub(super) async fn health(&self, agent: &Agent<Mux>) -> Vec<MountHealth> {
        let workers: Vec<(Share, Serving)> = self
            .lock()
            .iter()
            .map(|open| (open.share.clone(), open.worker.serving()))
            .collect();
        if workers.is_empty() {
            return Vec::new();
        }
        let asked = async {
            match agent.mounts().await {
                Ok(states) => Ok(states),
                Err(error) => Err(explained(agent, &error).await),
            }
        };
        let silent = || Err("the guest's agent does not answer".to_owned());
        let guest = timeout(PATIENCE, asked).await.unwrap_or_else(|_| silent());
        workers
            .into_iter()
            .map(|(share, serving)| MountHealth {
                problem: problem(&share, &serving, &guest),
                share,
            })
            .collect()
    }

    /// Waits until each has its guest, or has failed once: it is in the making before, which is no problem to tell of.
    pub(super) async fn settled(&self) {
        let settled: Vec<_> = self
            .lock()
            .iter()
            .map(|open| open.worker.settled())
            .collect();
        let all = async {
            for one in settled {
                one.await;
            }
        };
        // Too long: the first question will say so.
        let _ = timeout(SETTLING, all).await;
    }

    /// Ends the workers.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn forget(&self, port: u8) {
        self.lock().retain(|open| open.share.guest.port != port);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a share, going by both sides.
fn problem(
    share: &Share,
    serving: &Serving,
    guest: &Result<Vec<MountState>, String>,
) -> Option<String> {
    match (serving, guest) {
        (Serving::Down(why), _) => Some(why.clone()),
        (_, Err(why)) => Some(why.clone()),
        (_, Ok(states)) => {
            let state = states.iter().find(|state| state.mount == share.guest);
            match (state, serving) {
                (Some(state), _) if state.problem.is_some() => state.problem.clone(),
                (Some(_), Serving::Connected) => None,
                (Some(_), _) => Some("the guest is not connected to it".to_owned()),
                (None, _) => Some("the guest does not know of it".to_owned()),
            }
        }
    }
}

async fn mount(agent: &Agent<Mux>, guest: &GuestMount) -> Result<(), String> {
    match timeout(MOUNT_LIMIT, agent.mount(guest)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(explained(agent, &error).await),
        Err(_) => Err("the guest does not answer".to_owned()),
    }
}

/// An agent that does not know of mounts is older than they are.
async fn explained(agent: &Agent<Mux>, error: &AgentError) -> String {
    if matches!(error, AgentError::Failed { .. })
        && let Ok(Ok(hello)) = timeout(PATIENCE, agent.hello()).await
        && hello.protocol < PROTOCOL
    {
        return "the guest was booted by an older colima; a restart helps: colima restart"
            .to_owned();
    }
    error.to_string()
}

fn gone() -> CommandError {
    CommandError::new(ErrorKind::NotRunning, "the machine has just ended")
}

fn silent(path: &str) -> CommandError {
    let what = format!("{path} is still shared: the guest does not answer");
    CommandError::new(ErrorKind::Timeout, what)
}

#[cfg(test)]
mod tests {
    use colima_core::mounts::MountAccess;

    use super::*;

    #[test]
    fn a_problem_of_either_side_is_told() {
        let guest = GuestMount {
            port: 1,
            path: "/a".to_owned(),
            access: MountAccess::ReadOnly,
        };
        let share = Share {
            location: "/a".to_owned(),
            guest: guest.clone(),
        };
        let state = |problem: Option<&str>| {
            Ok(vec![MountState {
                mount: guest.clone(),
                problem: problem.map(str::to_owned),
            }])
        };
        let told = |serving: &Serving, guest| problem(&share, serving, &guest);
        assert_eq!(told(&Serving::Connected, state(None)), None);
        let down = Serving::Down("killed".to_owned());
        assert_eq!(told(&down, state(None)).unwrap(), "killed");
        assert_eq!(
            told(&Serving::Waiting, state(None)).unwrap(),
            "the guest is not connected to it"
        );
        assert_eq!(
            told(&Serving::Waiting, state(Some("no fuse"))).unwrap(),
            "no fuse"
        );
        assert_eq!(
            told(&Serving::Connected, Ok(Vec::new())).unwrap(),
            "the guest does not know of it"
        );
        let error = Err("silent".to_owned());
        assert_eq!(told(&Serving::Connected, error).unwrap(), "silent");
    }
}
