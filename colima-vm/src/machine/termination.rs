//! The ladder that ends a machine: politely first, for certain last, every rung bounded.

use std::{fmt, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    error::{Error, Result},
    handle::{Exit, Machine},
    qmp::{self, Command},
    readiness::BoxFuture,
};

/// How to end a machine. Rungs that are `None` are left out.
pub struct StopPlan {
    /// The caller's own way to ask the guest, such as its agent.
    pub ask_guest: Option<AskGuest>,
    /// Press the ACPI power button, and wait this long.
    pub power_button: Option<Duration>,
    /// Tell QEMU to quit, and wait this long. Disks are flushed, the guest is not asked.
    pub quit: Option<Duration>,
    /// Kill QEMU, and wait this long. What the guest had flushed is kept.
    pub kill: Duration,
}

/// A future that asks the guest to power off.
pub struct AskGuest {
    /// Ends when the guest has been asked, not when it is off.
    pub future: BoxFuture,
    /// How long asking and powering off may take together.
    pub limit: Duration,
}

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// [`StopPlan::ask_guest`].
    AskGuest,
    /// [`StopPlan::power_button`].
    PowerButton,
    /// [`StopPlan::quit`].
    Quit,
    /// [`StopPlan::kill`].
    Kill,
}

/// What became of a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RungOutcome {
    /// QEMU ended.
    Ended,
    /// QEMU was still there when the rung's time was up.
    StillRunning,
    /// The rung could not be tried.
    Failed {
        /// Why, in one sentence.
        reason: String,
    },
}

/// One rung that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RungReport {
    /// Which one.
    pub rung: Rung,
    /// What became of it.
    pub outcome: RungOutcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// How a machine was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// The rung after which QEMU ended; `None` when it had ended before.
    pub ended_by: Option<Rung>,
    /// How QEMU ended.
    pub exit: Exit,
    /// Time from the first rung to the end.
    pub elapsed: Duration,
    /// Every rung that was tried, in order.
    pub rungs: Vec<RungReport>,
}

/// Longest wait for QEMU to take a command. What does not answer by then is not asked twice.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

impl Default for StopPlan {
    /// Power button 20 s, quit 5 s, kill 5 s.
    fn default() -> Self {
        Self {
            ask_guest: None,
            power_button: Some(Duration::from_secs(20)),
            quit: Some(Duration::from_secs(5)),
            kill: Duration::from_secs(5),
        }
    }
}

impl StopPlan {
    /// Ends QEMU without asking the guest: quit 5 s, kill 5 s.
    #[must_use]
    pub fn forced() -> Self {
        Self {
            power_button: None,
            ..Self::default()
        }
    }

    /// The same plan that first asks the guest in the caller's own way.
    #[must_use]
    pub fn ask_guest(mut self, limit: Duration, future: BoxFuture) -> Self {
        self.ask_guest = Some(AskGuest { future, limit });
        self
    }
}

impl fmt::Debug for StopPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopPlan")
            .field("ask_guest", &self.ask_guest)
            .field("power_button", &self.power_button)
            .field("quit", &self.quit)
            .field("kill", &self.kill)
            .finish()
    }
}

impl fmt::Debug for AskGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskGuest")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AskGuest => "asked the guest",
            Self::PowerButton => "pressed the power button",
            Self::Quit => "told QEMU to quit",
            Self::Kill => "killed QEMU",
        })
    }
}

impl Machine {
    /// Ends the machine, one rung of the plan after the other until QEMU is gone.
    ///
    /// Takes at most the sum of the plan's limits. A rung that cannot be tried, for instance because
    /// QEMU does not respond, is left at once.
    ///
    /// # Errors
    ///
    /// [`Error::Unkillable`] when even the last rung did not help: the process hangs in the host's
    /// kernel. [`Error::Process`] when it may not be signalled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops climbing; what was asked stays asked. The call can be repeated.
    pub async fn stop(&self, plan: StopPlan) -> Result<StopReport> {
        let start = Instant::now();
        let mut ladder = Ladder {
            machine: self,
            rungs: Vec::new(),
        };
        let ended_by = match self.exit() {
            Some(_) => None,
            None => Some(ladder.climb(plan).await?),
        };
        Ok(StopReport {
            ended_by,
            exit: self.exited().await,
            elapsed: start.elapsed(),
            rungs: ladder.rungs,
        })
    }

    /// Kills QEMU and waits for its end, at most 5 s.
    ///
    /// # Errors
    ///
    /// As [`Machine::stop`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the kill back.
    pub async fn kill(&self) -> Result<StopReport> {
        let plan = StopPlan {
            quit: None,
            ..StopPlan::forced()
        };
        self.stop(plan).await
    }
}

struct Ladder<'a> {
    machine: &'a Machine,
    rungs: Vec<RungReport>,
}

impl Ladder<'_> {
    async fn climb(&mut self, plan: StopPlan) -> Result<Rung> {
        if let Some(AskGuest { future, limit }) = plan.ask_guest {
            let ask = async { future.await.map_err(|error| error.to_string()) };
            if self.rung(Rung::AskGuest, limit, ask).await {
                return Ok(Rung::AskGuest);
            }
        }
        for (rung, command, limit) in [
            (
                Rung::PowerButton,
                Command::SystemPowerdown,
                plan.power_button,
            ),
            (Rung::Quit, Command::Quit, plan.quit),
        ] {
            let Some(limit) = limit else { continue };
            let ask = command_sent(self.machine, command, limit.min(COMMAND_LIMIT));
            if self.rung(rung, limit, ask).await {
                return Ok(rung);
            }
        }
        let pid = self.machine.process.pid();
        self.machine
            .process
            .kill()
            .map_err(|source| Error::Process {
                action: "kill",
                pid,
                source,
            })?;
        if self.rung(Rung::Kill, plan.kill, async { Ok(()) }).await {
            return Ok(Rung::Kill);
        }
        Err(Error::Unkillable { pid })
    }

    /// Tries one rung; says whether QEMU has ended.
    async fn rung(
        &mut self,
        rung: Rung,
        limit: Duration,
        ask: impl Future<Output = std::result::Result<(), String>> + Send,
    ) -> bool {
        let start = Instant::now();
        let machine = self.machine;
        let asked_in_vain = async {
            match ask.await {
                Ok(()) => std::future::pending().await,
                Err(reason) => reason,
            }
        };
        let attempt = async {
            tokio::select! {
                _ = machine.exited() => RungOutcome::Ended,
                reason = asked_in_vain => RungOutcome::Failed { reason },
            }
        };
        let outcome = timeout(limit, attempt)
            .await
            .unwrap_or(RungOutcome::StillRunning);
        let ended = outcome == RungOutcome::Ended;
        self.rungs.push(RungReport {
            rung,
            outcome,
            elapsed: start.elapsed(),
        });
        ended
    }
}

/// A channel that closes instead of answering is a QEMU on its way out: no failure.
async fn command_sent(
    machine: &Machine,
    command: Command,
    limit: Duration,
) -> std::result::Result<(), String> {
    match machine.control.execute(&command, limit).await {
        Ok(_) | Err(qmp::Error::Closed { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
