//! The steps of a start, each named to whoever watches.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use colima_core::{Bytes, boot::BootConfig};
use colima_net::{
    agent::{Agent, AgentError},
    mux::Mux,
};
use colima_vm::{
    disk,
    image::{GuestParts, Image, boot_archive},
    machine::{
        Accelerator, Machine, OnDrop, Qemu, Readiness,
        accelerator::{self, Verdict},
    },
};
use qemu_img_wrapper::QemuImg;

use super::{
    DataDisk, Instance, InstanceRecord, InstanceSpec, Watcher, failure, images::ensure_image, link,
    mounts::HostMounts, ports::HostPorts, provision, relays::Relays, supervision::DiskErrors,
    unfinished::Unfinished,
};
use crate::{command_error::CommandError, control::Stage, state_dir::ProfilePaths};

/// Until the agent answers. An emulated guest on a busy host is slow; one that hangs is rare.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// From then until containers can run.
const RUNTIME_LIMIT: Duration = Duration::from_secs(300);

/// The same where scripts run before: they may install things, and an emulated guest is slow.
pub(super) const SCRIPTS_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Instance {
    /// Starts the instance: image, disks, machine, guest, relays; returns when containers can run.
    ///
    /// # Errors
    ///
    /// Names the step, carries the last lines of console and QEMU where they help, and leaves nothing
    /// running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what was started; see [`Instance::wait_gone`]. Disks that were made
    /// stay: they are empty, and the next start uses them.
    pub async fn start(
        paths: &ProfilePaths,
        spec: InstanceSpec,
        boot: BootConfig,
        watch: Watcher<'_>,
    ) -> Result<Self, CommandError> {
        let begin = |name: &str| {
            watch(Stage::Begin {
                name: name.to_owned(),
            });
        };
        if Machine::is_running(&paths.machine_dir).map_err(|error| failure::machine(&error))? {
            return Err(failure::occupied(&paths.machine_dir));
        }
        begin("preparing the image");
        let image = ensure_image(paths, &spec, watch).await?;
        begin("preparing the disks");
        let data_disk_size = ensure_disks(paths, &spec, &image).await?;
        if data_disk_size > spec.data_disk.size() {
            let wanted = spec.data_disk.size();
            let text =
                format!("the data disk keeps its {data_disk_size}: {wanted} would shrink it");
            watch(Stage::Note { text });
        }
        begin("choosing the accelerator");
        let verdict = choose_accelerator(paths, &spec, &image).await?;
        if verdict.accelerator == Accelerator::Tcg {
            watch(Stage::Note {
                text: emulation_note(&verdict),
            });
        }
        begin("starting the machine");
        let ssh_port = spec.link.choose_port()?;
        let mut machine_spec = image.machine(GuestParts {
            name: spec.name.clone(),
            cpus: spec.cpus,
            memory: spec.memory,
            boot_archive: write_boot_archive(paths, &spec, &boot).await?,
            root_disk: paths.root_disk.clone(),
            data_disk: paths.data_disk.clone(),
        });
        machine_spec.network = link::network(ssh_port);
        let qemu = Qemu::new(&spec.tools.qemu, verdict.accelerator);
        let unfinished = Unfinished::begin(paths)?;
        let machine = Machine::launch(&machine_spec, &qemu, &paths.machine_dir)
            .await
            .map_err(|error| failure::machine(&error))?;
        let machine = Arc::new(machine);
        let mounts = HostMounts::open(&machine, paths, &spec, &boot.user);
        let carrier = spec.link.carrier;
        let mux = link::open(&machine, paths, &boot.user.name, carrier, ssh_port)?;
        let agent = Agent::new(mux);
        begin("booting");
        wait_for_agent(&machine, &agent, BOOT_LIMIT).await?;
        begin("waiting for the container runtime");
        let scripts = !boot.provision.is_empty();
        let limit = if scripts {
            SCRIPTS_LIMIT
        } else {
            RUNTIME_LIMIT
        };
        let versions = wait_for_runtime(&machine, &agent, watch, limit).await?;
        if let Some(nerdctl) = &spec.nerdctl {
            begin("installing nerdctl");
            nerdctl.install(&agent).await?;
        }
        mounts.wait_mounted(&agent, watch).await;
        if scripts {
            begin("running the scripts");
            provision::finish(&agent, watch).await?;
        }
        begin("opening the sockets");
        let record = InstanceRecord {
            version: InstanceRecord::VERSION,
            spec,
            image: image.manifest.id.clone(),
            data_disk_size,
            user: boot.user,
            accelerator: verdict.accelerator.to_string(),
            ssh_port,
            versions,
        };
        let ports = HostPorts::open(&record.spec.ports, &agent, ssh_port);
        let relays = Relays::open(paths, &record, &agent, &ports)?;
        record.write(&paths.record)?;
        unfinished.end()?;
        machine.set_on_drop(OnDrop::Detach);
        Ok(Self {
            paths: paths.clone(),
            record,
            machine,
            agent,
            relays,
            ports,
            mounts,
            disk_errors: DiskErrors::default(),
        })
    }

    /// Refuses a data disk that is smaller than the one there is, before a start changes anything.
    ///
    /// # Errors
    ///
    /// The disk would shrink, or cannot be read.
    pub(crate) async fn refuse_shrink(
        paths: &ProfilePaths,
        wanted: Bytes,
    ) -> Result<(), CommandError> {
        let path = &paths.data_disk;
        if !path.exists() {
            return Ok(());
        }
        let current = disk::virtual_size(path)
            .await
            .map_err(|error| failure::data_disk(&error))?;
        if wanted >= current {
            return Ok(());
        }
        Err(failure::data_disk(&disk::Error::WouldShrink {
            path: path.clone(),
            current,
            wanted,
        }))
    }
}

/// Makes what is missing, grows what is too small; returns the size of the data disk.
async fn ensure_disks(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    image: &Image,
) -> Result<Bytes, CommandError> {
    let qemu_img = QemuImg::at(&spec.tools.qemu_img);
    let root_failed = |error| failure::root_disk(&error);
    // Never smaller than it is: its size was nobody's promise, so there is nothing to refuse.
    let root_size = match paths.root_disk.exists() {
        true => disk::virtual_size(&paths.root_disk)
            .await
            .map_err(root_failed)?
            .max(spec.root_disk),
        false => spec.root_disk,
    };
    let _ = disk::ensure_overlay(&qemu_img, &image.root_disk(), &paths.root_disk, root_size)
        .await
        .map_err(root_failed)?;
    let failed = |error| failure::data_disk(&error);
    let wanted = match spec.data_disk {
        DataDisk::AtLeast(size) if paths.data_disk.exists() => disk::virtual_size(&paths.data_disk)
            .await
            .map_err(failed)?
            .max(size),
        DataDisk::AtLeast(size) | DataDisk::Exactly(size) => size,
    };
    let _ = disk::ensure_data(&qemu_img, &paths.data_disk, wanted)
        .await
        .map_err(failed)?;
    disk::virtual_size(&paths.data_disk).await.map_err(failed)
}

async fn choose_accelerator(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    image: &Image,
) -> Result<Verdict, CommandError> {
    accelerator::choose(
        &spec.tools.qemu,
        spec.arch,
        &image.kernel(),
        &paths.dir,
        &spec.tools.accelerator_memory,
        accelerator::DEFAULT_LIMIT,
    )
    .await
    .map_err(|error| failure::machine(&error))
}

fn emulation_note(verdict: &Verdict) -> String {
    let tried: Vec<String> = verdict
        .trials
        .iter()
        .filter(|trial| trial.accelerator != Accelerator::Tcg)
        .map(ToString::to_string)
        .collect();
    let why = if tried.is_empty() {
        String::new()
    } else {
        format!(" ({})", tried.join("; "))
    };
    format!(
        "no hardware virtualization here{why}: the guest is emulated, which is about ten times \
         slower, and emulation is no isolation boundary"
    )
}

/// Writes the archive that is appended to the image's initramfs: the guest's program and what it is
/// told. It holds a private key, so it is the user's alone.
async fn write_boot_archive(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    boot: &BootConfig,
) -> Result<PathBuf, CommandError> {
    let program_path = spec.tools.guest_program.clone();
    let program = tokio::fs::read(&program_path)
        .await
        .map_err(|error| failure::file("read the guest's program", &program_path, &error))?;
    let path = paths.machine_dir.join("boot.cpio");
    crate::state_dir::write_private(&path, &boot_archive(&program, boot))
        .map_err(|error| failure::file("write", &path, &error))?;
    Ok(path)
}

pub(super) async fn wait_for_agent(
    machine: &Machine,
    agent: &Agent<Mux>,
    limit: Duration,
) -> Result<(), CommandError> {
    let agent = agent.clone();
    let hello = async move {
        // The link waits for the guest's side; an open that ran out of patience is tried again.
        loop {
            match agent.hello().await {
                Ok(_) => return Ok(()),
                Err(AgentError::Link { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    machine
        .wait_ready(Readiness::custom("the guest's agent answers", hello), limit)
        .await
        .map(|_| ())
        .map_err(|error| failure::machine(&error))
}

/// Waits until the guest says that containers can run; returns versions by component.
async fn wait_for_runtime(
    machine: &Machine,
    agent: &Agent<Mux>,
    watch: Watcher<'_>,
    limit: Duration,
) -> Result<BTreeMap<String, String>, CommandError> {
    let (stages, mut news) = tokio::sync::mpsc::unbounded_channel();
    let (answer, versions) = tokio::sync::oneshot::channel();
    let agent = agent.clone();
    let ready = async move {
        // The receivers live as long as the wait below.
        // Asked anew when the link broke: a guest that is busy starting daemons may be silent for so long
        // that it is taken for dead, and tells all stages again.
        let versions = loop {
            match agent.wait_ready(|stage| drop(stages.send(stage))).await {
                Err(AgentError::Link { .. }) => {}
                ended => break ended?,
            }
        };
        drop(answer.send(versions));
        Ok(())
    };
    let waiting = machine.wait_ready(
        Readiness::custom("the container runtime answers", ready),
        limit,
    );
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            ready = &mut waiting => {
                ready.map_err(|error| failure::machine(&error))?;
                return Ok(versions.await.unwrap_or_default());
            }
            Some(stage) = news.recv() => {
                let text = format!("{} {:.1} s after power-on", stage.name, stage.uptime.as_secs_f64());
                watch(Stage::Detail { text });
            }
        }
    }
}
