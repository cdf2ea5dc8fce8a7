//! The steps of a start, each named to whoever watches.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use colima_core::{Arch, Bytes, boot::BootConfig};
use colima_net::{
    agent::{Agent, AgentError},
    mux::Mux,
};
use colima_vm::{
    disk,
    image::{BuildEvent, Builder, GuestParts, Image, ImageStore, PackageLock, boot_archive},
    machine::{
        Accelerator, Machine, OnDrop, Qemu, Readiness,
        accelerator::{self, Verdict},
    },
};
use qemu_img_wrapper::QemuImg;

use super::{
    DataDisk, Images, Instance, InstanceRecord, InstanceSpec, failure, mux, relays::Relays,
};
use crate::{command_error::CommandError, control::Stage, state_dir::ProfilePaths};

/// Whoever watches a start.
pub(crate) type Watcher<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// Until the agent answers. An emulated guest on a busy host is slow; one that hangs is rare.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// From then until containers can run.
const RUNTIME_LIMIT: Duration = Duration::from_secs(300);

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
            })
        };
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
        let machine_spec = image.machine(GuestParts {
            name: spec.name.clone(),
            cpus: spec.cpus,
            memory: spec.memory,
            boot_archive: write_boot_archive(paths, &spec, &boot).await?,
            root_disk: paths.root_disk.clone(),
            data_disk: paths.data_disk.clone(),
        });
        let qemu = Qemu::new(&spec.tools.qemu, verdict.accelerator);
        let machine = Machine::launch(&machine_spec, &qemu, &paths.machine_dir)
            .await
            .map_err(|error| failure::machine(&error))?;
        let machine = Arc::new(machine);
        let agent = Agent::new(mux(&machine));
        begin("booting");
        wait_for_agent(&machine, &agent).await?;
        begin("waiting for the container runtime");
        let versions = wait_for_runtime(&machine, &agent, watch).await?;
        begin("opening the sockets");
        let relays = Relays::open(paths, &spec, agent.transport())?;
        let record = InstanceRecord {
            version: InstanceRecord::VERSION,
            spec,
            image: image.manifest.id.clone(),
            data_disk_size,
            user: boot.user,
            accelerator: verdict.accelerator.to_string(),
            versions,
        };
        record.write(&paths.record)?;
        machine.set_on_drop(OnDrop::Detach);
        Ok(Self {
            paths: paths.clone(),
            record,
            machine,
            agent,
            relays,
        })
    }
}

/// The builder of images for guests of `arch`.
pub(crate) fn builder(arch: Arch, images: &Images) -> Builder {
    let env = images.download_env.iter();
    Builder {
        env: env
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Builder::new(arch, &images.packages)
    }
}

/// The image that the profile's root disk lies over, else the newest one, else a new one.
async fn ensure_image(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    watch: Watcher<'_>,
) -> Result<Image, CommandError> {
    let store = ImageStore::new(&spec.images.store);
    let get = |id| {
        store
            .get(spec.arch, id)
            .map_err(|error| failure::image(&error))
    };
    if let Some(id) = &spec.images.id {
        return get(id);
    }
    if paths.root_disk.exists()
        && let Some(record) = InstanceRecord::find(&paths.record)?
    {
        return get(&record.image).map_err(|error| {
            error
                .hint("begin with a fresh root disk, containers and images are kept: colima delete")
        });
    }
    match store
        .newest(spec.arch)
        .map_err(|error| failure::image(&error))?
    {
        Some(image) => Ok(image),
        None => build_image(&builder(spec.arch, &spec.images), &store, None, watch).await,
    }
}

/// Builds an image from `lock`, or from the newest packages.
pub(crate) async fn build_image(
    builder: &Builder,
    store: &ImageStore,
    lock: Option<PackageLock>,
    watch: Watcher<'_>,
) -> Result<Image, CommandError> {
    let (events, mut news) = tokio::sync::mpsc::unbounded_channel();
    let building = async {
        let lock = match lock {
            Some(lock) => lock,
            None => {
                builder
                    .resolve(now().as_secs(), &events, std::future::pending())
                    .await?
            }
        };
        builder
            .build(store, &lock, &events, std::future::pending())
            .await
    };
    tokio::pin!(building);
    let mut at = None;
    loop {
        tokio::select! {
            built = &mut building => return built.map_err(|error| failure::image(&error)),
            // The sender lives as long as the build.
            Some(BuildEvent { step, fraction, .. }) = news.recv() => {
                if at.replace(step) != Some(step) {
                    watch(Stage::Begin { name: format!("image: {step}") });
                }
                if let Some(done) = fraction {
                    watch(Stage::Detail { text: format!("{:.0} %", f64::from(done) * 100.0) });
                }
            }
        }
    }
}

/// Time since the Unix epoch; a clock before it counts as the epoch.
fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Makes what is missing, grows what is too small; returns the size of the data disk.
async fn ensure_disks(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    image: &Image,
) -> Result<Bytes, CommandError> {
    let failed = |error| failure::disk(&error);
    let qemu_img = QemuImg::at(&spec.tools.qemu_img);
    let _ = disk::ensure_overlay(
        &qemu_img,
        &image.root_disk(),
        &paths.root_disk,
        spec.root_disk,
    )
    .await
    .map_err(failed)?;
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

async fn wait_for_agent(machine: &Machine, agent: &Agent<Mux>) -> Result<(), CommandError> {
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
        .wait_ready(
            Readiness::custom("the guest's agent answers", hello),
            BOOT_LIMIT,
        )
        .await
        .map(|_| ())
        .map_err(|error| failure::machine(&error))
}

/// Waits until the guest says that containers can run; returns versions by component.
async fn wait_for_runtime(
    machine: &Machine,
    agent: &Agent<Mux>,
    watch: Watcher<'_>,
) -> Result<BTreeMap<String, String>, CommandError> {
    let (stages, mut news) = tokio::sync::mpsc::unbounded_channel();
    let (answer, versions) = tokio::sync::oneshot::channel();
    let agent = agent.clone();
    let ready = async move {
        // The receivers live as long as the wait below.
        let versions = agent.wait_ready(|stage| drop(stages.send(stage))).await?;
        drop(answer.send(versions));
        Ok(())
    };
    let waiting = machine.wait_ready(
        Readiness::custom("the container runtime answers", ready),
        RUNTIME_LIMIT,
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
