//! [`Instance`]: one profile's virtual machine with everything around it.
//!
//! This is the composition and nothing else: images, disks and the machine come from `colima-vm`,
//! the streams from `colima-net`, and what the guest is told from `colima-core`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use colima_core::{Arch, Bytes, boot::Runtime};
use colima_net::{agent::Agent, mux::Mux};
use colima_vm::{
    image::ImageId,
    machine::{self, Machine, OnDrop, StopPlan},
};
use serde::{Deserialize, Serialize};

use crate::{
    command_error::CommandError,
    control::{Stage, StopManner, Stopped},
    mounts::{ProtectSettings, Share},
    state_dir::ProfilePaths,
};

mod failure;
mod guest_settings;
mod images;
mod link;
mod mounts;
mod nerdctl;
mod ports;
mod probe;
mod problem;
mod provision;
mod record;
mod relays;
mod resume;
mod room;
mod start;
mod supervision;
mod suspend;
mod unfinished;

pub(crate) use failure::image as image_failure;
pub use guest_settings::GuestSettings;
pub(crate) use images::{base_of, build_image, builder as image_builder};
pub use link::{Carrier, LinkSettings};
use mounts::HostMounts;
pub use nerdctl::GuestNerdctl;
use ports::HostPorts;
pub use ports::{Forwarding, OpenPort, PortReport, PortSettings};
pub use probe::Probe;
pub use problem::Problem;
pub(crate) use problem::is_stopped;
pub use record::InstanceRecord;
use relays::Relays;
pub use resume::BroughtUp;
use supervision::DiskErrors;
pub use supervision::Happening;
use unfinished::Unfinished;

/// Whoever watches a start.
pub(crate) type Watcher<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// What an instance is to be. Plain data, recorded beside the running machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSpec {
    /// Name of the machine, of its host name in ssh and of its docker context.
    pub name: String,
    /// Architecture of the guest.
    pub arch: Arch,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory: Bytes,
    /// Size of the disk that survives.
    pub data_disk: DataDisk,
    /// Size of the disk that an update throws away.
    pub root_disk: Bytes,
    /// What runs containers.
    pub runtime: Runtime,
    /// Where images are.
    pub images: Images,
    /// The programs that are needed.
    pub tools: Tools,
    /// Ports of the guest on the host.
    #[serde(default)]
    pub ports: PortSettings,
    /// How the guest is reached.
    #[serde(default)]
    pub link: LinkSettings,
    /// A nerdctl for the guest.
    #[serde(default)]
    pub nerdctl: Option<GuestNerdctl>,
    /// What the guest is told; `None` in records of before it was recorded.
    #[serde(default)]
    pub guest: Option<GuestSettings>,
    /// Directories of the host in the guest, parents before what lies in them.
    #[serde(default)]
    pub mounts: Vec<Share>,
    /// What of them the guest may not change.
    #[serde(default)]
    pub protect: ProtectSettings,
}

/// The wanted size of the data disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataDisk {
    /// Exactly this size; a larger disk is an error, because disks do not shrink.
    Exactly(Bytes),
    /// At least this size: nobody asked for it just now, so a larger disk that exists is right.
    AtLeast(Bytes),
}

impl DataDisk {
    /// The size to make, or to grow to.
    #[must_use]
    pub const fn size(self) -> Bytes {
        match self {
            Self::Exactly(size) | Self::AtLeast(size) => size,
        }
    }
}

/// Where images are, and which one is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The store.
    pub store: PathBuf,
    /// Where downloaded packages are kept for the next build.
    pub packages: PathBuf,
    /// The image to use; `None` takes the profile's own, else the newest, else builds one.
    pub id: Option<ImageId>,
    /// Environment of the programs that download: proxies.
    pub download_env: Vec<(String, String)>,
}

/// The programs that an instance needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// `qemu-system-*` of the guest's architecture.
    pub qemu: PathBuf,
    /// `qemu-img`.
    pub qemu_img: PathBuf,
    /// The static program for the guest.
    pub guest_program: PathBuf,
    /// Where it is remembered which accelerator works on this host.
    pub accelerator_memory: PathBuf,
}

/// A running instance.
///
/// **Drop**: an instance that was started ends with its value until [`Instance::start`] returns; from
/// then on the machine lives on by itself. **Close**: [`Instance::stop`]. **Detach**:
/// [`Instance::detach`].
#[derive(Debug)]
pub struct Instance {
    paths: ProfilePaths,
    record: InstanceRecord,
    machine: Arc<Machine>,
    agent: Agent<Mux>,
    relays: Relays,
    ports: HostPorts,
    mounts: HostMounts,
    disk_errors: DiskErrors,
}

/// What [`Instance::find`] found.
#[derive(Debug)]
pub enum Found {
    /// No machine runs.
    Nothing,
    /// The instance runs and is connected.
    Instance(Box<Instance>),
    /// A machine runs and cannot be used.
    Stranded(Stranded),
}

/// A machine that runs and cannot be used: its record is damaged, or its sockets cannot be opened.
///
/// **Drop**: it goes on. **Close**: [`Stranded::stop`].
#[derive(Clone, Debug)]
pub struct Stranded {
    machine: Arc<Machine>,
    /// Why it cannot be used.
    pub why: CommandError,
}

impl Stranded {
    /// Ends the machine, by its power button first unless `manner` forbids it.
    ///
    /// # Errors
    ///
    /// Fails when the machine cannot be ended at all.
    pub async fn stop(&self, manner: StopManner) -> Result<Stopped, CommandError> {
        let plan = match manner {
            StopManner::Forced => StopPlan::forced(),
            StopManner::Orderly | StopManner::Suspend => StopPlan::default(),
        };
        stopped(&self.machine, plan).await
    }

    /// Resolves when the machine has ended, with how.
    pub async fn ended(&self) -> String {
        self.machine.exited().await.to_string()
    }
}

async fn stopped(machine: &Machine, plan: StopPlan) -> Result<Stopped, CommandError> {
    let report = machine
        .stop(plan)
        .await
        .map_err(|error| failure::machine(&error))?;
    let how = match report.ended_by {
        // QEMU says itself that it was told to quit.
        Some(machine::Rung::AskGuest | machine::Rung::Quit) | None => report.exit.to_string(),
        Some(rung) => format!("{rung}; {}", report.exit),
    };
    Ok(Stopped::Now {
        how,
        elapsed: report.elapsed,
    })
}

/// Asks the guest first, and makes sure in the end.
fn in_order(agent: &Agent<Mux>) -> StopPlan {
    let agent = agent.clone();
    let ask = async move { Ok(agent.power_off().await?) };
    StopPlan::default().ask_guest(POWER_OFF_LIMIT, Box::pin(ask))
}

/// How long the guest may take to power off once it was asked. Emulated guests with containers to
/// stop need most of it.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(90);

impl Instance {
    /// Finds the profile's machine, if it runs, and connects to it again.
    ///
    /// What is left of a start that was killed is ended: nobody was promised that it runs.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be told whether a machine runs.
    pub async fn find(paths: &ProfilePaths) -> Result<Found, CommandError> {
        if Unfinished::is_there(paths) {
            Self::wait_gone(paths).await;
        }
        let Some(machine) = Self::attach_machine(paths).await? else {
            return Ok(Found::Nothing);
        };
        let machine = Arc::new(machine);
        let parts = InstanceRecord::read(&paths.record).and_then(|record| {
            let carrier = record.spec.link.carrier;
            let port = record.ssh_port;
            let mux = link::open(&machine, paths, &record.user.name, carrier, port)?;
            let agent = Agent::new(mux);
            resume::finish_for_another(paths, &agent);
            let ports = HostPorts::open(&record.spec.ports, &agent, port);
            let relays = Relays::open(paths, &record, &agent, &ports)?;
            Ok((record, agent, relays, ports))
        });
        Ok(match parts {
            Ok((record, agent, relays, ports)) => {
                let mounts = HostMounts::open(&machine, paths, &record.spec, &record.user);
                tokio::join!(link::settled(agent.transport()), mounts.settled());
                Found::Instance(Box::new(Self {
                    paths: paths.clone(),
                    mounts,
                    disk_errors: DiskErrors::default(),
                    record,
                    machine,
                    agent,
                    relays,
                    ports,
                }))
            }
            Err(why) => Found::Stranded(Stranded { machine, why }),
        })
    }

    /// The guest: connects to its sockets and runs commands in it.
    #[must_use]
    pub const fn guest(&self) -> &Agent<Mux> {
        &self.agent
    }

    /// What was started.
    #[must_use]
    pub const fn record(&self) -> &InstanceRecord {
        &self.record
    }

    /// The names of settings in which `wanted` differs from what runs.
    #[must_use]
    pub fn differing(&self, wanted: &InstanceSpec) -> Vec<String> {
        self.record_now().differing(wanted)
    }

    /// Resolves when the machine has ended, with how.
    pub async fn ended(&self) -> String {
        self.machine.exited().await.to_string()
    }

    /// Takes down what stood on the host for a machine that has ended.
    pub async fn clean_up(&self) {
        self.ports.close().await;
        self.relays.close().await;
        self.mounts.close();
    }

    /// Suspends or ends the machine: asks the guest first, unless `manner` forbids it, and makes sure in the end.
    ///
    /// # Errors
    ///
    /// Fails when the machine cannot be ended at all; the instance then still runs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops climbing the ladder; the call can be repeated.
    pub async fn stop(
        &self,
        manner: StopManner,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<Stopped, CommandError> {
        let suspends = manner == StopManner::Suspend;
        let name = if suspends { "suspending" } else { "stopping" };
        progress(Stage::Begin {
            name: format!("{name} the machine"),
        });
        // First, so that a client sees the end of its connection and not a silence.
        self.ports.close().await;
        self.relays.close().await;
        if suspends {
            match self.suspend().await {
                Ok(suspended) => {
                    self.mounts.close();
                    return Ok(suspended);
                }
                Err(text) => progress(Stage::Note { text }),
            }
        }
        let plan = match manner {
            StopManner::Forced => StopPlan::forced(),
            StopManner::Orderly | StopManner::Suspend => in_order(&self.agent),
        };
        let ended = stopped(&self.machine, plan).await?;
        // To the last: what containers write while they stop arrives.
        self.mounts.close();
        Ok(ended)
    }

    /// Shares one more directory until the machine stops.
    ///
    /// # Errors
    ///
    /// The path is taken in the guest, or the guest cannot mount.
    pub async fn mount(&self, share: Share) -> Result<Share, CommandError> {
        let share = self.mounts.add(&self.agent, share).await?;
        self.remember_mounts()?;
        Ok(share)
    }

    /// Takes a shared directory away, by its path on the host or in the guest.
    ///
    /// # Errors
    ///
    /// Nothing of that path is shared, or somebody uses it.
    pub async fn unmount(&self, path: &str) -> Result<Share, CommandError> {
        let share = self.mounts.remove(&self.agent, path).await?;
        self.remember_mounts()?;
        Ok(share)
    }

    /// For the daemon after this one.
    fn remember_mounts(&self) -> Result<(), CommandError> {
        self.record_now().write(&self.paths.record)
    }

    /// What was started, with what is shared now.
    fn record_now(&self) -> InstanceRecord {
        let mut record = self.record.clone();
        record.spec.mounts = self.mounts.shares();
        record
    }

    /// Ends what is left of a start that was given up or killed; at most a few seconds. Touches nothing
    /// that a start has finished.
    pub async fn wait_gone(paths: &ProfilePaths) {
        if !Unfinished::is_there(paths) {
            return;
        }
        if let Ok(Some(left)) = Self::attach_machine(paths).await
            && let Err(error) = left.kill().await
        {
            crate::log_line(&format!("a machine was left behind: {error}"));
            return;
        }
        Unfinished::forget(paths);
    }

    async fn attach_machine(paths: &ProfilePaths) -> Result<Option<Machine>, CommandError> {
        match Machine::attach(&paths.machine_dir).await {
            Ok(machine) => Ok(Some(machine)),
            Err(machine::Error::NotRunning { .. }) => Ok(None),
            Err(error) => Err(failure::machine(&error)),
        }
    }

    /// Lets go of the machine, which goes on without anybody.
    pub fn detach(&self) {
        self.machine.set_on_drop(OnDrop::Detach);
    }
}
