//! Looks after a machine that runs: what QEMU tells, room on the host's disk, and time that passed without us.
//!
//! ```text
//!            stop (asked why)              for want of room (told, room is awaited)
//!  Running ───────────────────> Stopped ─────────────────────> Full ──room──> (cont)
//!   ^  ^ ^                        │ │                           │
//!   │  │ └──────────── runs ──────┘ │ else (told)               │
//!   │  └── runs (clock set, told) ──┴─> Paused                  │
//!   └───────────────────────── runs (clock set, told) ──────────┘
//!
//!  in every state:  a gap in time (clock set, told)   panic, reset, disk error (told)
//! ```
//!
//! QEMU is asked why it stopped, because the event with the error may come after the one with the stop, or be left out.
//! Full is left by `cont` alone, which fails again where the room did not suffice: QEMU keeps the writes that found no
//! room and repeats them, so that the guest notices nothing but the time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use colima_core::Bytes;
use colima_vm::machine::{
    self,
    qmp::{Command, Event as Qmp, Room, RunState},
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep},
};

use super::{Instance, Problem, resume::set_clock, room};

#[cfg(test)]
mod tests;

/// Something that happened to a running machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// The host's disk is full, and the machine waits until it is not.
    DiskFull,
    /// The machine was paused.
    Paused,
    /// It runs again.
    Continued,
    /// The guest's kernel panicked.
    Panicked,
    /// The guest reset itself.
    Reset,
    /// The host could not read or write a disk of the machine, and the guest was told so.
    DiskError {
        /// `disk0` is the system, `disk1` the data.
        disk: String,
        /// `read` or `write`.
        operation: String,
        /// What the host's system said.
        reason: String,
    },
    /// Host or daemon did not run for some time: sleep, most of the time.
    Slept {
        /// How long.
        seconds: u64,
    },
}

/// What is known of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopped,
    Full,
    Paused,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Qemu(Qmp),
    /// What QEMU says when it is asked.
    Found(RunState),
    /// There may be room on the host's disk.
    Room,
    /// Time passed without us.
    Gap(Duration),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Do {
    Tell(Happening),
    Ask,
    AwaitRoom,
    Continue,
    SetClock,
}

impl State {
    /// The pure part.
    fn on(self, event: Event) -> (Self, Vec<Do>) {
        use Do::{Ask, AwaitRoom, Continue, SetClock, Tell};
        match (self, event) {
            // What QEMU says of its state tells the same, and is never late.
            (
                state,
                Event::Qemu(Qmp::BlockIoError {
                    room: Room::None, ..
                }),
            ) => (state, Vec::new()),
            (
                state,
                Event::Qemu(Qmp::BlockIoError {
                    node,
                    operation,
                    reason,
                    ..
                }),
            ) => {
                let error = Happening::DiskError {
                    disk: node,
                    operation,
                    reason,
                };
                (state, vec![Tell(error)])
            }
            (State::Running, Event::Qemu(Qmp::Stop)) => (State::Stopped, vec![Ask]),
            // Of all errors only the want of room stops the machine (`werror=enospc`, `rerror=report`).
            (State::Running | State::Stopped, Event::Found(RunState::IoError)) => {
                (State::Full, vec![Tell(Happening::DiskFull), AwaitRoom])
            }
            (State::Running | State::Stopped, Event::Found(RunState::Running)) => {
                (State::Running, Vec::new())
            }
            (State::Running | State::Stopped, Event::Found(_)) => {
                (State::Paused, vec![Tell(Happening::Paused)])
            }
            (State::Full, Event::Room) => (State::Full, vec![Continue]),
            (State::Full | State::Paused, Event::Qemu(Qmp::Resume)) => {
                (State::Running, vec![SetClock, Tell(Happening::Continued)])
            }
            (_, Event::Qemu(Qmp::Resume)) => (State::Running, Vec::new()),
            (state, Event::Qemu(Qmp::GuestPanicked)) => (state, vec![Tell(Happening::Panicked)]),
            (state, Event::Qemu(Qmp::Reset)) => (state, vec![Tell(Happening::Reset)]),
            (state, Event::Gap(gap)) => {
                let seconds = gap.as_secs();
                (state, vec![SetClock, Tell(Happening::Slept { seconds })])
            }
            (state, _) => (state, Vec::new()),
        }
    }
}

/// With this much the machine goes on: some writes' worth, and little enough to be there soon.
const ENOUGH: Bytes = Bytes::mib(16);

/// Nothing tells when a file system has room again, so it is asked, first after this time and then ever more rarely.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const RAREST_LOOK: Duration = Duration::from_secs(2);

/// Nothing tells a process that it was stopped and goes on, so the clock is looked at this often.
const TICK: Duration = Duration::from_secs(2);

/// A tick that is later than this was none of a busy host.
const GAP: Duration = Duration::from_secs(4);

const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// The clock is set as soon as the guest answers; its link may have to be made anew first.
const CLOCK_ATTEMPTS: u32 = 6;

/// What a supervisor leaves for `status`.
#[derive(Debug, Default)]
pub(super) struct DiskErrors(Mutex<Option<String>>);

impl DiskErrors {
    fn note(&self, happening: &Happening) {
        if let Happening::DiskError {
            disk,
            operation,
            reason,
        } = happening
        {
            let sentence =
                format!("the host could not {operation} {disk} of the machine: {reason}");
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence);
        }
    }

    /// The last error since the daemon looks after the machine.
    pub(super) fn problem(&self) -> Option<Problem> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hint = "see to the host's disk, then boot anew: colima restart";
        Some(Problem::new(last.clone()?, hint))
    }
}

impl Instance {
    /// Looks after the machine until it has ended. `tell` hears what happens.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the supervision; another one finds what the machine does.
    pub async fn supervise(&self, tell: impl Fn(Happening) + Send + Sync) {
        let mut events = self.machine.events();
        let mut looks = Looks::none();
        // A daemon may come later than what happened.
        let mut state = State::Running;
        let mut asks = true;
        let mut late = Late::begin();
        loop {
            let event = tokio::select! {
                Some(found) = self.found(), if asks => Event::Found(found),
                event = next(&mut events) => match event {
                    Some(event) => Event::Qemu(event),
                    None => return,
                },
                () = looks.room(&self.paths) => Event::Room,
                gap = late.gap() => Event::Gap(gap),
                _ = self.machine.exited() => return,
            };
            if matches!(event, Event::Found(_)) {
                asks = false;
            }
            let (next, actions) = state.on(event);
            asks |= actions.contains(&Do::Ask);
            self.take(actions, &mut looks, &tell).await;
            if next != State::Full {
                looks.end();
            }
            state = next;
        }
    }

    /// What QEMU says of its state; as late as it likes.
    async fn found(&self) -> Option<RunState> {
        loop {
            match self.machine.status(COMMAND_LIMIT).await {
                machine::Status::Responding(found) => return Some(found),
                machine::Status::Exited(_) => return None,
                _ => sleep(TICK).await,
            }
        }
    }

    async fn take(
        &self,
        actions: Vec<Do>,
        looks: &mut Looks,
        tell: &(impl Fn(Happening) + Send + Sync),
    ) {
        for action in actions {
            match action {
                Do::Tell(happening) => {
                    crate::log_line(&format!("the machine: {happening:?}"));
                    self.disk_errors.note(&happening);
                    tell(happening);
                }
                // By whoever waits for events.
                Do::Ask => {}
                Do::AwaitRoom => looks.begin(),
                Do::Continue => {
                    let went_on = self.machine.execute(&Command::Cont, COMMAND_LIMIT).await;
                    if let Err(error) = went_on {
                        crate::log_line(&format!("the machine cannot go on: {error}"));
                        looks.again();
                    }
                }
                Do::SetClock => self.set_clock_soon(),
            }
        }
    }

    /// Not waited for: the guest may not run yet, and what QEMU tells is heard meanwhile.
    fn set_clock_soon(&self) {
        let agent = self.agent.clone();
        tokio::spawn(async move {
            for attempt in 1..=CLOCK_ATTEMPTS {
                match set_clock(&agent).await {
                    Ok(()) => return,
                    Err(why) if attempt == CLOCK_ATTEMPTS => {
                        crate::log_line(&format!("the guest's clock is late: {why}"));
                    }
                    // An answer that says no comes at once.
                    Err(_) => sleep(TICK).await,
                }
            }
        });
    }
}

/// `None` when QEMU is gone.
async fn next(events: &mut broadcast::Receiver<Qmp>) -> Option<Qmp> {
    loop {
        match events.recv().await {
            Ok(event) => return Some(event),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

/// When to look for room next, if at all.
struct Looks(Option<Duration>);

impl Looks {
    const fn none() -> Self {
        Self(None)
    }

    const fn begin(&mut self) {
        self.0 = Some(FIRST_LOOK);
    }

    const fn end(&mut self) {
        self.0 = None;
    }

    fn again(&mut self) {
        self.0 = Some(
            self.0
                .map_or(FIRST_LOOK, |pause| (pause * 2).min(RAREST_LOOK)),
        );
    }

    /// Resolves when there is room; the next look is later.
    async fn room(&mut self, paths: &crate::state_dir::ProfilePaths) {
        while let Some(pause) = self.0 {
            sleep(pause).await;
            self.again();
            let directories = room::growing(paths);
            let look = move || {
                let mut rooms = directories
                    .iter()
                    .map(|directory| room::available(directory));
                rooms.all(|room| room.is_none_or(|room| room >= ENOUGH))
            };
            // A disk that hangs has no room; the question is not repeated meanwhile.
            if tokio::task::spawn_blocking(look).await.unwrap_or(false) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Notices that time passed without this process: the host slept, or it was stopped by a signal. The monotonic clock
/// stands still while the host sleeps (`clock_gettime(2)`), and with it every timer; the boot clock does not.
struct Late {
    ticked: Duration,
    /// Goes on where a wait was abandoned.
    ticks: Interval,
}

impl Late {
    fn begin() -> Self {
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticked: now(),
            ticks,
        }
    }

    /// Resolves after a gap with its length.
    async fn gap(&mut self) -> Duration {
        loop {
            self.ticks.tick().await;
            let now = now();
            let passed = now.saturating_sub(self.ticked);
            self.ticked = now;
            if passed > TICK + GAP {
                return passed - TICK;
            }
        }
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
