//! The guest's ports on the host, for as long as the instance runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use colima_core::{
    Connect as _, Endpoint,
    boot::{GUEST_SSH_PORT, Network},
    ports::{GuestPort, Protocol},
};
use colima_net::{
    agent::{Agent, AgentError, PortNews, PortWatch},
    forward::{Action, Change, Forward, Forwarder, Place, Rule, Rules},
    mux::{Mux, MuxStream},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::relays::DOCKER_SOCKET;
use crate::docker_relay::{Judge, Judging, Verdict};

mod host_addresses;

/// How long the answer to a container's start waits for its ports. Beyond that it goes without them.
const BARRIER: Duration = Duration::from_secs(20);

/// How long a start waits for addresses of the guest.
const PREPARE: Duration = Duration::from_secs(10);

/// How long docker may take to stop a container whose ports are not to be had.
const STOP: Duration = Duration::from_secs(30);

/// A port that somebody else has becomes free without telling anybody.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Before a guest that refuses to tell of its ports is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Before a conversation that broke is begun anew; to wait for the link is the multiplexer's business.
const RECONNECT: Duration = Duration::from_millis(100);

/// Whether ports of the guest appear on the host, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSettings {
    /// Whether they do.
    pub forwarding: Forwarding,
    /// The addresses of ports for which none was asked; empty for 127.0.0.1 and ::1.
    pub plain: Vec<IpAddr>,
}

/// Whether ports of the guest appear on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// They do.
    #[default]
    On,
    /// They do not: `portForwarder: none`.
    Off,
}

impl PortSettings {
    /// The port that leads to the guest's ssh server is its own, and so is the server's.
    fn rules(&self, ssh_port: Option<u16>) -> Rules {
        let ssh_server = Rule {
            protocol: Some(Protocol::Tcp),
            address: Some(Network::default().address.into()),
            ports: GUEST_SSH_PORT..=GUEST_SSH_PORT,
            action: Action::Ignore,
        };
        let mut rules = Rules::new([ssh_server]);
        if let Some(port) = ssh_port {
            rules = rules.reserve(Protocol::Tcp, port);
        }
        if !self.plain.is_empty() {
            rules = rules.plain(self.plain.iter().copied());
        }
        rules
    }
}

/// What became of the guest's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// The ports that are open on the host.
    pub open: Vec<OpenPort>,
    /// Those that are not and should be, one sentence each.
    pub conflicts: Vec<String>,
    /// Why nothing is known about the guest's ports.
    pub trouble: Option<String>,
}

/// A port that is open on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of the host.
    pub host: String,
    /// Address and port of the guest.
    pub guest: String,
    /// The container that published it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl OpenPort {
    fn place(&self) -> Option<Place> {
        Some(Place {
            protocol: match self.protocol.as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            },
            address: self.host.parse().ok()?,
        })
    }

    fn new(forward: &Forward) -> Self {
        Self {
            protocol: forward.protocol.to_string(),
            host: forward.host.to_string(),
            guest: forward.guest.to_string(),
            container: forward
                .published
                .as_ref()
                .map(|publish| publish.name.clone()),
        }
    }
}

/// The ports of a running instance.
///
/// **Drop**: they close, and every connection ends at once. **Close**: [`HostPorts::close`].
#[derive(Debug)]
pub(super) struct HostPorts {
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    report: watch::Receiver<PortReport>,
    barriers: mpsc::Sender<Barrier>,
    closing: watch::Sender<bool>,
    /// `None` once it has ended.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// Somebody waits for the ports of a container that has started.
struct Barrier {
    container: String,
    /// What is in the way of them; empty when all are open.
    answer: oneshot::Sender<Vec<String>>,
}

impl HostPorts {
    /// Begins to keep the ports, on the current runtime.
    pub(super) fn open(settings: &PortSettings, agent: &Agent<Mux>, ssh_port: Option<u16>) -> Self {
        if settings.forwarding == Forwarding::Off {
            return Self { keeper: None };
        }
        let (report, reported) = watch::channel(PortReport::default());
        let (barriers, asked) = mpsc::channel(64);
        let (closing, closed) = watch::channel(false);
        let keeping = Keeping {
            agent: agent.clone(),
            rules: settings.rules(ssh_port),
            forwarder: Forwarder::new(agent.transport().clone()),
            report,
            waiting: BTreeMap::new(),
            asked,
        };
        Self {
            keeper: Some(Keeper {
                report: reported,
                barriers,
                closing,
                task: Mutex::new(Some(tokio::spawn(keeping.run(closed)))),
            }),
        }
    }

    /// What became of the guest's ports; `None` where they are not forwarded.
    pub(super) fn report(&self) -> Option<PortReport> {
        let keeper = self.keeper.as_ref()?;
        Some(keeper.report.borrow().clone())
    }

    /// Where somebody listens, if all is well.
    pub(super) fn places(&self) -> Vec<Place> {
        let open = self.report().unwrap_or_default().open;
        open.iter().filter_map(OpenPort::place).collect()
    }

    /// Closes the ports; when it returns they are free.
    pub(super) async fn close(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.closing.send_replace(true);
            // Held while it is waited for: a second close returns no earlier.
            let mut task = keeper.task.lock().await;
            if let Some(running) = task.as_mut() {
                // It ends by itself; an error says that it has.
                let _ = running.await;
                *task = None;
            }
        }
    }

    /// Decides whether a container that has started may be called started: once its ports are open here.
    /// One whose ports are not to be had is stopped.
    pub(super) fn judge(&self, agent: &Agent<Mux>) -> Arc<dyn Judge> {
        Arc::new(PortJudge {
            agent: agent.clone(),
            barriers: self.keeper.as_ref().map(|keeper| keeper.barriers.clone()),
        })
    }
}

/// Looks after the ports of containers that start.
struct PortJudge {
    agent: Agent<Mux>,
    /// `None` where ports are not forwarded.
    barriers: Option<mpsc::Sender<Barrier>>,
}

impl Judge for PortJudge {
    /// An address of the host that a publish names must be one of the guest's, or docker cannot listen.
    fn prepare(&self, container: &str) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (agent, container) = (self.agent.clone(), container.to_owned());
        let forwards = self.barriers.is_some();
        Box::pin(async move {
            if !forwards {
                return;
            }
            // What fails here is told by docker itself a moment later.
            let prepared = host_addresses::lend(&agent, &container);
            if let Ok(Err(error)) = timeout(PREPARE, prepared).await {
                crate::log_line(&format!(
                    "container {container}: no addresses for it: {error}"
                ));
            }
        })
    }

    fn judge(&self, container: &str) -> Judging {
        let (barriers, guest) = (self.barriers.clone(), self.agent.transport().clone());
        let container = container.to_owned();
        Box::pin(async move {
            let Some(barriers) = barriers else {
                return Verdict::Started;
            };
            let missing = timeout(BARRIER, wait(&barriers, &container)).await;
            let missing = missing.unwrap_or_else(|_| {
                let line = format!("container {container}: its ports are not known in time");
                crate::log_line(&line);
                Vec::new()
            });
            if missing.is_empty() {
                return Verdict::Started;
            }
            let mut why = format!("Ports are not available: {}", missing.join(", "));
            if let Err(error) = stop_container(&guest, &container).await {
                let text = format!("; and the container could not be stopped: {error}");
                why.push_str(&text);
            }
            crate::log_line(&format!("container {container}: {why}"));
            Verdict::Failed(why)
        })
    }
}

async fn wait(barriers: &mpsc::Sender<Barrier>, container: &str) -> Vec<String> {
    loop {
        let (answer, answered) = oneshot::channel();
        let container = container.to_owned();
        if barriers.send(Barrier { container, answer }).await.is_err() {
            return Vec::new(); // closing
        }
        // The conversation broke: once more, on the next one.
        if let Ok(missing) = answered.await {
            return missing;
        }
    }
}

/// `POST /containers/ID/stop` of the Docker Engine API, which also keeps it from being restarted.
async fn stop_container(guest: &Mux, container: &str) -> std::io::Result<()> {
    let stop = async {
        let endpoint = Endpoint::Unix(DOCKER_SOCKET.into());
        let mut stream = guest.connect(&endpoint).await?;
        let request = format!(
            "POST /containers/{container}/stop?t=0 HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        match &answer[9..] {
            // Stopped, stopped before, gone.
            b"204" | b"304" | b"404" => Ok(()),
            _ => Err(std::io::Error::other(
                String::from_utf8_lossy(&answer).into_owned(),
            )),
        }
    };
    timeout(STOP, stop).await?
}

/// The task that keeps the ports.
struct Keeping {
    agent: Agent<Mux>,
    rules: Rules,
    forwarder: Forwarder<Mux>,
    report: watch::Sender<PortReport>,
    asked: mpsc::Receiver<Barrier>,
    /// Barriers that the guest was told of, by token.
    waiting: BTreeMap<u64, Barrier>,
}

impl Keeping {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let closed = async move {
            // A sender that is gone closes as well.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        tokio::select! {
            () = closed => {}
            () = self.keep() => {}
        }
        self.forwarder.close().await;
    }

    /// Follows the guest, from one conversation to the next. Ports stay open in between: what was served
    /// is served again, or closed by the first news.
    async fn keep(&mut self) {
        loop {
            let error = match self.agent.watch_ports().await {
                Ok(watch) => self.follow(watch).await,
                Err(error) => error,
            };
            // Whoever waited asks again.
            self.waiting.clear();
            match error {
                AgentError::Link { .. } => sleep(RECONNECT).await,
                refused => {
                    let trouble = format!("the guest does not tell of its ports: {refused}");
                    crate::log_line(&trouble);
                    self.report
                        .send_modify(|report| report.trouble = Some(trouble));
                    self.answer_without_ports(ASK_AGAIN).await;
                }
            }
        }
    }

    /// Keeps nobody waiting for a guest that does not tell.
    async fn answer_without_ports(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                Some(barrier) = self.asked.recv() => drop(barrier.answer.send(Vec::new())),
                () = sleep_until(end) => return,
            }
        }
    }

    async fn follow(&mut self, mut watch: PortWatch<MuxStream>) -> AgentError {
        self.apply(watch.ports()).await;
        loop {
            let has_conflicts = self.forwarder.conflicts().next().is_some();
            tokio::select! {
                news = watch.next() => match news {
                    Ok(PortNews::Changed { .. }) => self.apply(watch.ports()).await,
                    Ok(PortNews::Drained { token, container }) => self.drained(token, &container),
                    Err(error) => return error,
                },
                Some(barrier) = self.asked.recv() => match watch.drain(Some(&barrier.container)).await {
                    Ok(token) => drop(self.waiting.insert(token, barrier)),
                    Err(error) => return error,
                },
                () = sleep(TRY_AGAIN), if has_conflicts => self.apply(watch.ports()).await,
            }
        }
    }

    async fn apply(&mut self, ports: &[GuestPort]) {
        let plan = self.rules.plan(ports);
        for change in self.forwarder.apply(&plan).await {
            crate::log_line(&match change {
                Change::Opened(forward) => {
                    format!("port {} leads to {}", forward.place(), forward.guest)
                }
                Change::Closed(forward) => format!("port {} is closed", forward.place()),
                Change::Conflict(conflict) => format!("port {conflict}"),
                _ => continue,
            });
        }
        self.report.send_replace(PortReport {
            open: self.forwarder.open().map(OpenPort::new).collect(),
            conflicts: self
                .forwarder
                .conflicts()
                .map(ToString::to_string)
                .collect(),
            trouble: None,
        });
    }

    /// Everything up to the barrier has been applied: only now can be told what is missing.
    fn drained(&mut self, token: u64, container: &[GuestPort]) {
        let Some(barrier) = self.waiting.remove(&token) else {
            return;
        };
        let places: BTreeSet<_> = container
            .iter()
            .flat_map(|port| self.rules.forwards(port))
            .map(|forward| forward.place())
            .collect();
        let conflicts = places
            .iter()
            .filter_map(|place| self.forwarder.conflict(*place));
        // Whoever asked may have left.
        let _ = barrier
            .answer
            .send(conflicts.map(ToString::to_string).collect());
    }
}

#[cfg(test)]
mod tests;
