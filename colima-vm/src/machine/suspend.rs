//! From a running machine to a saved state.

use std::{fs, time::Duration};

use colima_core::Bytes;
use tokio::{
    sync::broadcast,
    time::{Instant, timeout},
};

use super::{
    directory::Directory,
    error::{Error, Result},
    handle::{Machine, Status},
    launch::unblock,
    qemu::QemuVersion,
    qmp::{self, Client, Command, Event, MigrationCapability, MigrationStatus, RunState},
    resume::let_run,
    state,
    termination::StopPlan,
};

/// A machine that was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspended {
    /// Size of its state on disk.
    pub size: Bytes,
    /// Time from the guest's last instruction to the end of QEMU.
    pub elapsed: Duration,
}

/// Longest wait for QEMU to take a command.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// More than any disk writes. QEMU's own default is 128 MiB/s.
const UNLIMITED: u64 = 1 << 40;

/// The name of the state's descriptor in QEMU.
pub(super) const STATE_FD: &str = "state";

impl Machine {
    /// Stops the guest's processors, writes memory and devices into the machine's directory, and ends QEMU.
    /// [`Machine::load`] goes on from there. What the guest has not written to its disks is in its memory only: ask
    /// it to first, so that a state that cannot be loaded loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Save`] when the guest does not run, QEMU cannot save it, or that takes longer than `limit`;
    /// [`Error::Directory`] when the state's file cannot be written. The guest then runs on and nothing is saved.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the guest stays stopped. [`Machine::attach`] then lets it run on, or ends QEMU when the
    /// state was whole already.
    pub async fn suspend(&self, limit: Duration) -> Result<Suspended> {
        let failed = |reason: String| Error::Save { reason };
        match self.status(COMMAND_LIMIT).await {
            Status::Responding(RunState::Running) => {}
            other => return Err(failed(format!("it does not run: {other:?}"))),
        }
        let began = Instant::now();
        let saved = match timeout(limit, self.save()).await {
            Ok(saved) => saved,
            Err(_) => Err(failed(format!("it took longer than {limit:?}"))),
        };
        let size = match saved {
            Ok(size) => size,
            Err(error) => {
                self.take_back(COMMAND_LIMIT).await?;
                return Err(error);
            }
        };
        self.stop(StopPlan::forced()).await?;
        Ok(Suspended {
            size,
            elapsed: began.elapsed(),
        })
    }

    async fn save(&self) -> Result<Bytes> {
        let directory = self.directory.clone();
        let file = unblock(move || state::begin(&directory)).await?;
        let passed = file
            .try_clone()
            .map_err(Error::directory("write", self.directory.path()))?;
        let client = self.control.client(COMMAND_LIMIT).await.map_err(refused)?;
        write_state(&client, passed).await?;
        let (directory, record) = (self.directory.clone(), self.record.clone());
        let version = QemuVersion::parse_number(&record.qemu_version).ok_or_else(|| {
            let reason = format!("its QEMU is of version {:?}", record.qemu_version);
            Error::Save { reason }
        })?;
        unblock(move || state::seal(&directory, &file, record.spec, record.accelerator, version))
            .await
    }

    /// Gives a save up; the guest runs on.
    pub(super) async fn take_back(&self, limit: Duration) -> Result<()> {
        let client = self.control.client(limit).await.map_err(refused)?;
        take_back(&self.directory, &client, limit).await
    }
}

/// Writes memory and devices into a file. The guest is stopped then, whatever comes of it.
async fn write_state(client: &Client, file: fs::File) -> Result<()> {
    let execute = async |command: &Command| client.execute(command, COMMAND_LIMIT).await;
    let save = async {
        // First: what does not change is written once.
        execute(&Command::Stop).await?;
        execute(&Command::MigrateSetCapabilities {
            capabilities: &[MigrationCapability::Events],
        })
        .await?;
        execute(&Command::MigrateSetParameters {
            max_bandwidth: UNLIMITED,
        })
        .await?;
        migrate(client, file, &Command::Migrate { fd: STATE_FD }).await
    };
    let why = match save.await.map_err(refused)? {
        MigrationStatus::Completed => return Ok(()),
        other => match client.query_migrate(COMMAND_LIMIT).await {
            Ok(info) => info.error_desc.unwrap_or_else(|| format!("{other:?}")),
            Err(error) => error.to_string(),
        },
    };
    Err(Error::Save { reason: why })
}

/// Hands the file of a state to QEMU, gives the command that uses it, waits until that has ended, and says how.
pub(super) async fn migrate(
    client: &Client,
    file: fs::File,
    command: &Command,
) -> std::result::Result<MigrationStatus, qmp::Error> {
    let name = Command::GetFd { name: STATE_FD };
    client
        .execute_with(&name, file.into(), COMMAND_LIMIT)
        .await?;
    // Before the command, whose end may be quick.
    let events = client.events();
    client.execute(command, COMMAND_LIMIT).await?;
    settled(client, events).await
}

/// Waits until a migration has ended, and says how.
async fn settled(
    client: &Client,
    mut events: broadcast::Receiver<Event>,
) -> std::result::Result<MigrationStatus, qmp::Error> {
    loop {
        let status = tokio::select! {
            event = events.recv() => match event {
                Ok(Event::Migration { status }) => status,
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    client.query_migrate(COMMAND_LIMIT).await?.status
                }
                Err(broadcast::error::RecvError::Closed) => return Err(closed()),
            },
            () = client.closed() => return Err(closed()),
        };
        if has_ended(status) {
            return Ok(status);
        }
    }
}

const fn has_ended(status: MigrationStatus) -> bool {
    matches!(
        status,
        MigrationStatus::None
            | MigrationStatus::Cancelled
            | MigrationStatus::Completed
            | MigrationStatus::Failed
    )
}

/// Gives a save up, whoever began it; the guest runs on.
pub(super) async fn take_back(
    directory: &Directory,
    client: &Client,
    limit: Duration,
) -> Result<()> {
    let cancel = async {
        let events = client.events();
        client.execute(&Command::MigrateCancel, limit).await?;
        let status = client.query_migrate(limit).await?.status;
        if !has_ended(status) {
            settled(client, events).await?;
        }
        Ok(())
    };
    match timeout(limit, cancel).await {
        Ok(cancelled) => cancelled.map_err(refused)?,
        Err(_) => {
            let reason = format!("and giving it up takes longer than {limit:?}");
            return Err(Error::Save { reason });
        }
    }
    let files = directory.clone();
    unblock(move || state::forget(&files)).await?;
    let_run(directory, client, limit).await
}

fn closed() -> qmp::Error {
    qmp::Error::Closed { command: "migrate" }
}

fn refused(source: qmp::Error) -> Error {
    Error::Control {
        action: "save the machine",
        source,
    }
}
