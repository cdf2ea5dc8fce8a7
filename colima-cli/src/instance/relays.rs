//! The host's sockets that lead into the guest.

use std::{path::Path, sync::Mutex};

use colima_core::{
    Connect, Endpoint,
    boot::{Runtime, SSH_SOCKET},
};
use colima_net::{
    Local,
    agent::Agent,
    mux::Mux,
    relay::{Relay, SocketFile},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    InstanceRecord,
    link::{self, Carrier},
    ports::HostPorts,
};
use crate::{
    command_error::{CommandError, ErrorKind},
    docker_relay::DockerAware,
    state_dir::ProfilePaths,
};

/// Where dockerd listens in the guest.
pub(super) const DOCKER_SOCKET: &str = "/run/docker.sock";

/// Where containerd listens in the guest.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Most docker clients at once. A client beyond that waits, it is not refused.
const MOST_DOCKER_CLIENTS: usize = 1024;

/// Relays from sockets of the profile to sockets of the guest.
///
/// **Drop**: the sockets vanish and every connection ends at once. **Close**: [`Relays::close`].
#[derive(Debug)]
pub(super) struct Relays {
    closing: watch::Sender<bool>,
    /// Taken by the first close.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Relays {
    /// Listens on every socket that the runtime needs. When it returns, clients can connect.
    pub(super) fn open(
        paths: &ProfilePaths,
        record: &InstanceRecord,
        agent: &Agent<Mux>,
        ports: &HostPorts,
    ) -> Result<Self, CommandError> {
        let relays = Self {
            closing: watch::Sender::new(false),
            tasks: Mutex::new(Some(JoinSet::new())),
        };
        let guest = agent.transport();
        let unix = |path: &str| Endpoint::Unix(path.into());
        match (record.spec.link.carrier, record.ssh_port) {
            // Ssh within ssh would be enciphered twice.
            (Carrier::Ssh, Some(port)) => {
                relays.add(&paths.ssh_socket, link::ssh_server(port), Local)?;
            }
            _ => relays.add(&paths.ssh_socket, unix(SSH_SOCKET), guest.clone())?,
        }
        if record.spec.runtime == Runtime::Docker {
            let docker = DockerAware::new(guest.clone(), ports.judge(agent));
            relays.add(&paths.docker_socket, unix(DOCKER_SOCKET), docker)?;
        }
        if record.spec.runtime == Runtime::Containerd {
            relays.add(
                &paths.containerd_socket,
                unix(CONTAINERD_SOCKET),
                guest.clone(),
            )?;
        }
        Ok(relays)
    }

    fn add<C: Connect + 'static>(
        &self,
        host: &Path,
        endpoint: Endpoint,
        guest: C,
    ) -> Result<(), CommandError> {
        let listener = SocketFile::bind(host).map_err(|error| {
            let what = format!("cannot listen on {}", host.display());
            CommandError::new(ErrorKind::Failure, what).caused_by(&error)
        })?;
        let relay = Relay::new(listener, guest, endpoint).limit(MOST_DOCKER_CLIENTS);
        let mut closing = self.closing.subscribe();
        let path = host.to_owned();
        if let Some(tasks) = &mut *self.lock() {
            tasks.spawn(async move {
                let report = relay
                    .run(async move {
                        // A sender that is gone closes as well.
                        let _ = closing.wait_for(|closing| *closing).await;
                    })
                    .await;
                crate::log_line(&format!(
                    "{}: closed after {} connections, {} could not reach the guest",
                    path.display(),
                    report.accepted,
                    report.refused
                ));
            });
        }
        Ok(())
    }

    /// Stops listening, gives open connections a moment to finish, and ends them.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        let tasks = self.lock().take();
        if let Some(mut tasks) = tasks {
            while tasks.join_next().await.is_some() {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<JoinSet<()>>> {
        // Nothing panics while it is held.
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
