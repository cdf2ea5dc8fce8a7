//! Keeps the worker of one share alive.
//!
//! ```text
//!            handed over              connected
//!  Starting ─────────────> Waiting <───────────> Connected
//!     ^  \                    │         alone        │
//!     │   \ cannot            │ ended                │ ended
//!     │    v                  v                      v
//!     └── Down <──────────────┴──────────────────────┘
//!  after a pause, twice as long after each failure in a row
//! ```

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use colima_vm::machine::Machine;
use rustix::fs::{Mode, OFlags};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use super::{
    Ground, Share,
    handover::Handover,
    walls::{Confine, Walls},
    worker::{ALONE, CONNECTED, HALF_CONFINED},
};
use crate::instance::is_stopped;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a share is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// A worker is being started.
    Starting,
    /// A worker waits for the guest.
    Waiting,
    /// The guest is connected.
    Connected,
    /// There is no worker, and why.
    Down(String),
}

/// What happens to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// It has everything that it needs.
    HandedOver,
    /// The guest is connected.
    Connected,
    /// The guest is not connected any more.
    Alone,
    /// It has confined itself as far as the host lets it.
    Confined(Walls),
    /// It could not, half-way, and ends.
    HalfConfined,
    /// It ended, or could not be started.
    Ended(String),
}

/// The pure part: what is known, and how long to wait.
#[derive(Debug)]
struct Supervision {
    serving: Serving,
    /// Ends in a row without a guest between them.
    failures: u32,
    /// What the next worker is to do.
    confine: Confine,
    /// What was last told of the walls.
    walls: Option<Walls>,
}

impl Supervision {
    const fn new() -> Self {
        Self {
            serving: Serving::Starting,
            failures: 0,
            confine: Confine::Try,
            walls: None,
        }
    }

    /// Which walls stand, if that is news.
    fn news(&mut self, walls: Walls) -> Option<Walls> {
        (self.walls.replace(walls) != Some(walls)).then_some(walls)
    }

    /// Takes an event; says how long to wait before the next start where one is needed.
    fn on(&mut self, event: Event) -> Option<Duration> {
        self.serving = match event {
            Event::HandedOver => Serving::Waiting,
            Event::Connected => {
                self.failures = 0;
                Serving::Connected
            }
            Event::Alone => Serving::Waiting,
            Event::Confined(_) => return None,
            Event::HalfConfined => {
                self.confine = Confine::Leave;
                return None;
            }
            Event::Ended(why) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                self.serving = Serving::Down(why);
                return Some(pause.min(LONGEST_PAUSE));
            }
        };
        None
    }
}

/// The worker of a share, whichever process that is now.
///
/// **Drop** and close: it ends. **Detach**: there is none, a worker never outlives its daemon.
#[derive(Debug)]
pub(crate) struct Worker {
    serving: watch::Receiver<Serving>,
    process: watch::Receiver<Option<u32>>,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Worker {
    /// Starts a worker of `share`, and another one whenever it ends.
    pub(crate) fn start(machine: &Arc<Machine>, ground: &Arc<Ground>, share: Share) -> Self {
        let ground = Arc::clone(ground);
        let (told, serving) = watch::channel(Serving::Starting);
        let (began, process) = watch::channel(None);
        let machine = Arc::downgrade(machine);
        let task = tokio::spawn(async move {
            let mut supervision = Supervision::new();
            loop {
                let Some(machine) = machine.upgrade() else {
                    return;
                };
                let tell = |supervision: &mut Supervision, event| {
                    if let Event::Confined(walls) = event
                        && let Some(walls) = supervision.news(walls)
                    {
                        crate::log_line(&format!("{}: {walls}", share.location));
                    }
                    let pause = supervision.on(event);
                    told.send_replace(supervision.serving.clone());
                    pause
                };
                let ended = match begin(&machine, &ground, &share, supervision.confine).await {
                    Ok((child, control)) => {
                        drop(machine);
                        began.send_replace(child.id());
                        tell(&mut supervision, Event::HandedOver);
                        follow(child, control, |event| {
                            tell(&mut supervision, event);
                        })
                        .await
                    }
                    Err(error) => {
                        drop(machine);
                        error.to_string()
                    }
                };
                began.send_replace(None);
                crate::log_line(&format!("{}: {ended}", share.location));
                if let Some(pause) = tell(&mut supervision, Event::Ended(ended)) {
                    tokio::time::sleep(pause).await;
                }
            }
        });
        Self {
            serving,
            process,
            task,
        }
    }

    /// Completes when the guest is connected, or something is known to be wrong.
    pub(crate) fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.clone();
        async move {
            let settled =
                serving.wait_for(|it| matches!(it, Serving::Connected | Serving::Down(_)));
            // A worker that nobody watches over any more is settled, too.
            drop(settled.await);
        }
    }

    /// How the share is served now.
    pub(crate) fn serving(&self) -> Serving {
        match *self.process.borrow() {
            Some(pid) if is_stopped(pid) => {
                let why = format!("a signal has stopped its worker: kill -CONT {pid}");
                Serving::Down(why)
            }
            _ => self.serving.borrow().clone(),
        }
    }
}

/// Starts a process and hands it what it needs.
async fn begin(
    machine: &Machine,
    ground: &Ground,
    share: &Share,
    confine: Confine,
) -> io::Result<(Child, tokio::net::UnixStream)> {
    let root = open(&share.location)?;
    let records = ground.records(share)?;
    let terms = ground.terms(share, confine);
    let stream = machine
        .port(share.guest.port)
        .await
        .map_err(io::Error::other)?;
    // A socket that waits in its reads is what the other side of a pair would be as well.
    let stream = OwnedFd::from(stream.into_std()?);
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(program()?)
        .arg0("colima")
        .args(["mount-worker", "--"])
        .arg(&share.location)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let handover = Handover {
        root,
        stream,
        records,
        terms,
    };
    handover.send(&ours)?;
    ours.set_nonblocking(true)?;
    Ok((child, tokio::net::UnixStream::from_std(ours)?))
}

fn program() -> io::Result<PathBuf> {
    // The file, also when a newer one lies at its path by now: worker and daemon belong together.
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
}

fn open(location: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    let flags = flags | OFlags::PATH;
    Ok(rustix::fs::open(location, flags, Mode::empty())?)
}

/// Hears a worker until it ends; says how.
async fn follow(
    mut child: Child,
    mut control: tokio::net::UnixStream,
    mut tell: impl FnMut(Event),
) -> String {
    let mut report = [0];
    while let Ok(1) = control.read(&mut report).await {
        match report[0] {
            CONNECTED => tell(Event::Connected),
            ALONE => tell(Event::Alone),
            HALF_CONFINED => tell(Event::HalfConfined),
            byte => match Walls::of(byte) {
                Some(walls) => tell(Event::Confined(walls)),
                None => break,
            },
        }
    }
    match child.wait().await {
        Ok(status) => format!("its worker ended: {status}"),
        Err(error) => format!("its worker was lost: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_served_is_replaced_at_once() {
        let mut supervision = Supervision::new();
        assert_eq!(supervision.on(Event::HandedOver), None);
        assert_eq!(supervision.serving, Serving::Waiting);
        assert_eq!(supervision.on(Event::Connected), None);
        assert_eq!(supervision.serving, Serving::Connected);
        let killed = Event::Ended("killed".to_owned());
        assert_eq!(supervision.on(killed), Some(FIRST_PAUSE));
        assert_eq!(supervision.serving, Serving::Down("killed".to_owned()));
    }

    #[test]
    fn who_cannot_be_confined_serves_all_the_same_and_that_is_told_once() {
        let mut supervision = Supervision::new();
        supervision.on(Event::HandedOver);
        assert_eq!(supervision.on(Event::HalfConfined), None);
        supervision.on(Event::Ended("half".to_owned()));
        assert_eq!(supervision.confine, Confine::Leave);
        assert_eq!(supervision.news(Walls::NONE), Some(Walls::NONE));
        assert_eq!(supervision.news(Walls::NONE), None);
        assert_eq!(supervision.on(Event::Confined(Walls::NONE)), None);
        assert_eq!(supervision.serving, Serving::Down("half".to_owned()));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut supervision = Supervision::new();
        let pauses: Vec<u128> = (0..9)
            .filter_map(|_| supervision.on(Event::Ended(String::new())))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        supervision.on(Event::HandedOver);
        let again = supervision.on(Event::Ended(String::new()));
        assert_eq!(again, Some(LONGEST_PAUSE), "to be started is no success");
        supervision.on(Event::Connected);
        supervision.on(Event::Alone);
        assert_eq!(supervision.serving, Serving::Waiting);
        assert_eq!(
            supervision.on(Event::Ended(String::new())),
            Some(FIRST_PAUSE)
        );
        for _ in 0..100 {
            supervision.on(Event::Ended(String::new()));
        }
        assert_eq!(
            supervision.on(Event::Ended(String::new())),
            Some(LONGEST_PAUSE)
        );
    }
}
