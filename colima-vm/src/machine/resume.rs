//! From a saved state to a running machine.

use std::{fs, path::Path, time::Duration};

use tokio::time::timeout;

use super::{
    directory::Directory,
    error::{Error, Result},
    handle::Machine,
    launch::{Beginning, LAUNCH_LIMIT, Qemu, Up, bring_up, unblock},
    process::Process,
    qmp::{Client, Command, MigrationCapability, MigrationStatus, RunState},
    readiness::Evidence,
    state::{self, Repair},
    suspend::{COMMAND_LIMIT, STATE_FD, migrate, take_back},
};

/// A machine whose saved state is loaded and whose guest does not run yet.
///
/// **Drop**: QEMU is killed; the state stays saved and can be loaded again. **Close**: the same. There is no
/// detaching: [`Loaded::run`] is the way on.
#[derive(Debug)]
pub struct Loaded {
    machine: Machine,
}

impl Machine {
    /// Loads the state that [`Machine::suspend`] left in `directory`, in at most `limit`. Nothing of it is used up yet,
    /// and no disk is touched: see [`Loaded::run`].
    ///
    /// The machine is the one that was suspended: its own recorded specification, with fresh sockets.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`]; [`Error::Unloadable`] when the state is damaged, its disks were changed, or it is of
    /// another QEMU or accelerator: it is there still, and of no use. Otherwise as [`Machine::launch`]. Nothing is left
    /// running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what was started; the state stays saved.
    pub async fn load(qemu: &Qemu, directory: &Path, limit: Duration) -> Result<Loaded> {
        let path = directory.to_owned();
        let (found, record, file) = unblock(move || {
            let not_saved = || Error::NotSaved {
                directory: path.clone(),
            };
            let directory = match Directory::existing(&path) {
                Err(Error::NotRunning { .. }) => return Err(not_saved()),
                other => other?,
            };
            let (record, file) = state::open(&directory)?.ok_or_else(not_saved)?;
            state::check_images(&directory, &record)?;
            Ok((directory, record, file))
        })
        .await?;
        if record.accelerator != qemu.accelerator {
            let reason = format!(
                "it is of a guest on {}, and this one would run on {}",
                record.accelerator, qemu.accelerator
            );
            return Err(state::unloadable(&found, reason));
        }
        let up = bring_up(&record.spec, qemu, directory, Beginning::SavedState).await?;
        // The device tree is the same by the versioned machine type. The processor is not: `max` and
        // `host` follow the version (docs/system/cpu-models-x86.rst.inc of QEMU).
        if up.version != record.qemu_version {
            let reason = format!("it is of QEMU {}, not {}", record.qemu_version, up.version);
            let _ = up.end().await;
            return Err(state::unloadable(&found, reason));
        }
        let client = up.client().await?;
        match timeout(limit, read_state(&client, file)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(state::unloadable(&found, up.last_words(why).await)),
            // It may be the host: this is no verdict on the state.
            Err(_) => {
                return Err(Error::Control {
                    action: "load the saved state",
                    source: super::qmp::Error::TimedOut {
                        command: "migrate-incoming",
                        limit,
                    },
                });
            }
        }
        let machine = up.into_machine(&record.spec, qemu).await?;
        Ok(Loaded { machine })
    }
}

impl Loaded {
    /// Uses the state up, durably, and lets the guest run on from it.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`] when the state cannot be marked as used: it stays saved. [`Error::Control`] when QEMU
    /// does not go on: the state is gone, and the disks are as the guest left them. Nothing is left running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills QEMU; the state is used up or not.
    pub async fn run(self) -> Result<Machine> {
        self.machine.execute(&Command::Cont, LAUNCH_LIMIT).await?;
        Ok(self.machine)
    }

    /// The machine that would run.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// Reads memory and devices from a file; the guest does not run then.
async fn read_state(client: &Client, file: fs::File) -> std::result::Result<(), String> {
    let load = async {
        client
            .execute(
                &Command::MigrateSetCapabilities {
                    capabilities: &[
                        MigrationCapability::Events,
                        MigrationCapability::LateBlockActivate,
                    ],
                },
                COMMAND_LIMIT,
            )
            .await?;
        migrate(client, file, &Command::MigrateIncoming { fd: STATE_FD }).await
    };
    match load.await {
        Ok(MigrationStatus::Completed) => Ok(()),
        Ok(other) => Err(format!("QEMU says {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Up {
    async fn client(&self) -> Result<Client> {
        self.control
            .client(COMMAND_LIMIT)
            .await
            .map_err(|source| Error::Control {
                action: "load the saved state",
                source,
            })
    }

    /// Kills QEMU and waits for its end.
    async fn end(self) -> Directory {
        let (directory, process) = (self.directory.clone(), self.process.clone());
        drop(self);
        // One that does not end keeps its lock, which stops whoever comes next.
        let _ = timeout(COMMAND_LIMIT, process.ended()).await;
        directory
    }

    /// What QEMU printed about a state that it could not load.
    async fn last_words(self, otherwise: String) -> String {
        let log = self.end().await.qemu_log();
        let said = Evidence::gather(None, &log).qemu;
        match said.is_empty() {
            true => otherwise,
            false => said.join("; "),
        }
    }
}

/// Lets the guest run; nothing else in this crate does. A state that could be loaded loses its name first.
pub(super) async fn let_run(directory: &Directory, client: &Client, limit: Duration) -> Result<()> {
    let files = directory.clone();
    unblock(move || state::consume(&files)).await?;
    client
        .execute(&Command::Cont, limit)
        .await
        .map_err(|source| Error::Control {
            action: Command::Cont.name(),
            source,
        })?;
    let files = directory.clone();
    // A used state is never loaded; whoever attaches next removes it.
    let _ = unblock(move || state::forget(&files)).await;
    Ok(())
}

/// What is left of a machine after its repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    Machine,
    Nothing,
}

/// Brings to an end what somebody was killed in the middle of.
pub(super) async fn repair(
    directory: &Directory,
    process: &Process,
    client: &Client,
    run: RunState,
) -> Result<Remains> {
    let files = directory.clone();
    let life = unblock(move || state::life(&files)).await?;
    match state::repair(run, life) {
        Repair::Nothing => {}
        Repair::Run => let_run(directory, client, COMMAND_LIMIT).await?,
        Repair::TakeBack => take_back(directory, client, COMMAND_LIMIT).await?,
        Repair::Forget => {
            let files = directory.clone();
            unblock(move || state::forget(&files)).await?;
        }
        Repair::Finish => {
            // It has let go of its disks. Killed as a last resort, it loses nothing.
            let _ = client.execute(&Command::Quit, COMMAND_LIMIT).await;
            if timeout(COMMAND_LIMIT, process.ended()).await.is_err() {
                let pid = process.pid();
                process.kill().map_err(|source| Error::Process {
                    action: "kill",
                    pid,
                    source,
                })?;
                let _ = timeout(COMMAND_LIMIT, process.ended()).await;
            }
            return Ok(Remains::Nothing);
        }
    }
    Ok(Remains::Machine)
}
