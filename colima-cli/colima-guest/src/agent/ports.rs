//! Which ports of the guest are served: one task watches, any number of conversations follow.
//!
//! ```text
//! tracefs ── edge ──▶ sock_diag: who listens ──┐
//!                                              ├──▶ Table ──▶ conversations
//! docker ── events ─▶ inspect: who published ──┘
//! ```
//!
//! Without the trace the sockets are looked at again and again, at short intervals.

mod docker;
mod publishes;
mod sock_diag;
mod table;
mod trace;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use colima_core::{
    agent::{MOST_PORTS, Reply},
    boot::Runtime,
    ports::GuestPort,
};
use tokio::{
    sync::{OnceCell, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::log;
use docker::News;
use sock_diag::SockDiag;
use table::Table;
use trace::Trace;

/// Edges closer together than this are one: a storm costs a dump in this time.
const BETWEEN_DUMPS: Duration = Duration::from_millis(10);

/// After the last edge it is looked again: a socket is traced a moment before it can be found.
const SETTLING: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(300)];

/// Between dumps when there is no trace.
const WITHOUT_TRACE: Duration = Duration::from_millis(500);

/// Ports in one line to the host.
const PORTS_PER_LINE: usize = MOST_PORTS / 4;

/// The ports of this guest.
#[derive(Debug)]
pub struct Ports {
    docker: Option<PathBuf>,
    edges: Edges,
    watcher: OnceCell<Watcher>,
}

/// What tells that it is time to look at the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edges {
    Traced,
    Untraced,
}

#[derive(Clone, Debug)]
struct Watcher {
    ports: watch::Receiver<Arc<BTreeSet<GuestPort>>>,
    drains: mpsc::Sender<Drain>,
}

/// Somebody wants to know that nothing is left to be told.
struct Drain {
    container: Option<String>,
    answer: oneshot::Sender<Vec<GuestPort>>,
}

impl Ports {
    /// The ports of this network namespace, and what the runtime says about them. Nothing is watched
    /// before somebody asks.
    #[must_use]
    pub fn of(runtime: Runtime) -> Self {
        let docker = (runtime == Runtime::Docker).then(|| super::readiness::DOCKER_SOCKET.into());
        Self {
            docker,
            edges: Edges::Traced,
            watcher: OnceCell::new(),
        }
    }

    /// The same with another socket of Docker, or without Docker, and without tracing: for a system whose
    /// tracefs is somebody else's. What changes is seen half a second late.
    #[must_use]
    pub fn untraced(docker: Option<PathBuf>) -> Self {
        Self {
            docker,
            edges: Edges::Untraced,
            watcher: OnceCell::new(),
        }
    }

    /// Follows the ports; the first follower starts the watching.
    pub(super) async fn follow(&self) -> io::Result<Follower> {
        let start = || async { start(self.docker.clone(), self.edges) };
        let watcher = self.watcher.get_or_try_init(start).await?;
        Ok(Follower {
            watcher: watcher.clone(),
            told: Arc::default(),
        })
    }
}

/// One conversation's view of the ports.
#[derive(Debug)]
pub(super) struct Follower {
    watcher: Watcher,
    told: Arc<BTreeSet<GuestPort>>,
}

impl Follower {
    /// The ports as they are, for the beginning.
    pub(super) fn all(&mut self) -> Reply {
        self.told = Arc::clone(&self.watcher.ports.borrow_and_update());
        Reply::Ports {
            ports: self.told.iter().cloned().collect(),
        }
    }

    /// Resolves when there may be news; cancel safe.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let changed = self.watcher.ports.changed().await;
        changed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// What changed since it was told last, in lines of bounded length.
    pub(super) fn news(&mut self) -> Vec<Reply> {
        let now = Arc::clone(&self.watcher.ports.borrow_and_update());
        let before = std::mem::replace(&mut self.told, now);
        let closed: Vec<GuestPort> = before.difference(&self.told).cloned().collect();
        let opened: Vec<GuestPort> = self.told.difference(&before).cloned().collect();
        if closed.len() + opened.len() <= PORTS_PER_LINE {
            let changed = !closed.is_empty() || !opened.is_empty();
            return Vec::from_iter(changed.then_some(Reply::PortsChanged { closed, opened }));
        }
        let closing = closed
            .chunks(PORTS_PER_LINE)
            .map(|ports| Reply::PortsChanged {
                closed: ports.to_vec(),
                opened: Vec::new(),
            });
        let opening = opened
            .chunks(PORTS_PER_LINE)
            .map(|ports| Reply::PortsChanged {
                closed: Vec::new(),
                opened: ports.to_vec(),
            });
        closing.chain(opening).collect()
    }

    /// Looks now. When the answer is there, [`news`](Self::news) has everything that had happened before
    /// the call; it is what the container publishes.
    pub(super) fn drain(
        &self,
        container: Option<String>,
    ) -> impl Future<Output = Vec<GuestPort>> + Send + use<> {
        let drains = self.watcher.drains.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            // Whether the watcher still lives is told by `changed`.
            let _ = drains.send(Drain { container, answer }).await;
            answered.await.unwrap_or_default()
        }
    }
}

/// Starts the one task that watches.
fn start(docker: Option<PathBuf>, edges: Edges) -> io::Result<Watcher> {
    let mut diag = SockDiag::new()?;
    let mut table = Table::default();
    table.set_listeners(diag.listeners()?);
    let trace = match edges {
        Edges::Untraced => None,
        Edges::Traced => Trace::begin()
            .inspect_err(|error| log(&format!("listening sockets cannot be traced: {error}")))
            .ok(),
    };
    let (ports, followed) = watch::channel(Arc::new(table.ports()));
    let (drains, asked) = mpsc::channel(64);
    let (sender, containers) = mpsc::channel(64);
    if let Some(socket) = docker.clone() {
        tokio::spawn(async move { docker::follow(&socket, sender).await });
    }
    let now = Instant::now();
    let watching = Watching {
        diag,
        table,
        ports,
        docker,
        // The trace began after the first look.
        dumps: Dumps {
            last: now,
            due: Some(now + BETWEEN_DUMPS),
            settling: 0,
        },
        trace,
    };
    tokio::spawn(watching.run(asked, containers));
    Ok(Watcher {
        ports: followed,
        drains,
    })
}

struct Watching {
    diag: SockDiag,
    table: Table,
    ports: watch::Sender<Arc<BTreeSet<GuestPort>>>,
    docker: Option<PathBuf>,
    dumps: Dumps,
    trace: Option<Trace>,
}

/// When it is looked at the sockets.
#[derive(Clone, Copy, Debug)]
struct Dumps {
    last: Instant,
    due: Option<Instant>,
    /// How many of [`SETTLING`] are done.
    settling: usize,
}

impl Dumps {
    fn edge(&mut self) {
        self.settling = 0;
        let at = Instant::now().max(self.last + BETWEEN_DUMPS);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn done(&mut self, traced: bool) {
        self.last = Instant::now();
        self.due = match SETTLING.get(self.settling) {
            _ if !traced => Some(self.last + WITHOUT_TRACE),
            Some(pause) => Some(self.last + *pause),
            None => None,
        };
        self.settling += 1;
    }
}

impl Watching {
    async fn run(mut self, mut asked: mpsc::Receiver<Drain>, mut containers: mpsc::Receiver<News>) {
        let (described, mut descriptions) = mpsc::channel(64);
        let mut has_containers = true;
        loop {
            let due = self.dumps.due;
            tokio::select! {
                edge = edge(&mut self.trace) => {
                    if let Err(error) = edge {
                        log(&format!("the trace of listening sockets is lost: {error}"));
                        self.trace = None;
                    }
                    self.dumps.edge();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.look(),
                news = containers.recv(), if has_containers => match news {
                    Some(news) => self.hear(news),
                    None => has_containers = false,
                },
                Some(Drain { container, answer }) = asked.recv() => {
                    // Beside this loop: docker may take its time.
                    let (docker, described) = (self.docker.clone(), described.clone());
                    tokio::spawn(async move {
                        let found = describe(docker.as_deref(), container.as_deref()).await;
                        let _ = described.send((found, answer)).await;
                    });
                }
                Some((found, answer)) = descriptions.recv() => {
                    let id = found.map(|found| {
                        let id = found.id.clone();
                        self.table.set_container(&id, found.ports);
                        id
                    });
                    self.look();
                    let ports = id.map(|id| self.table.of_container(&id));
                    let _ = answer.send(ports.unwrap_or_default());
                }
                else => return,
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::All(containers) => {
                let ids = containers.iter().map(|one| one.id.clone()).collect();
                self.table.only_containers(&ids);
                for container in containers {
                    self.table.set_container(&container.id, container.ports);
                }
            }
            News::Container(container) => {
                self.table.set_container(&container.id, container.ports);
            }
            News::Ended(id) => self.table.end_container(&id),
        }
        self.publish();
    }

    /// Looks at the sockets and tells what is new.
    fn look(&mut self) {
        match self.diag.listeners() {
            Ok(listeners) => self.table.set_listeners(listeners),
            Err(error) => {
                log(&format!("listening sockets cannot be listed: {error}"));
                // An answer that was cut off may still be in the old socket.
                if let Ok(diag) = SockDiag::new() {
                    self.diag = diag;
                }
            }
        }
        self.dumps.done(self.trace.is_some());
        self.publish();
    }

    fn publish(&self) {
        let now = self.table.ports();
        self.ports.send_if_modified(|ports| {
            let changed = **ports != now;
            if changed {
                *ports = Arc::new(now);
            }
            changed
        });
    }
}

async fn edge(trace: &mut Option<Trace>) -> io::Result<()> {
    match trace {
        Some(trace) => trace.edge().await,
        None => std::future::pending().await,
    }
}

async fn describe(docker: Option<&Path>, container: Option<&str>) -> Option<publishes::Described> {
    docker::describe(docker?, container?).await.ok()
}
