//! Power on until docker answers: our image, Debian's own of the same packages, and the floor, which is our
//! kernel, disk and daemons without systemd.
//!
//! All three are machines of `colima_vm` with the same devices. Docker has answered when a program in the
//! guest got 200 for `GET /_ping` and said so on the console; it is started by the event that systemd, or
//! the floor's script, gets from dockerd. Every disk boots once before, unmeasured, and powers off in
//! order; every measured boot gets a fresh overlay of that state.
//!
//! Processor seconds are those of the QEMU process: on a busy host the more trustworthy number.

mod disks;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use colima_core::{
    Arch, Bytes,
    boot::{BootConfig, Network, User},
    runtime::{DaemonDefaults, daemon_json},
};
use colima_vm::{
    disk,
    image::{GuestParts, Image, boot_archive, cpio::Archive},
    machine::{
        Boot, Kernel, Machine, MachineSpec, Qemu, Readiness, StopPlan, accelerator,
        spec::{Base, DiskFormat},
    },
};
use qemu_img_wrapper::{Image as DiskImage, QemuImg};
use tokio::process::Command;

use crate::{
    READY, Result,
    host::Host,
    product::{Setup, output},
    report::{Bar, Measure, Row},
    sample::Unit,
};

/// Longest time until docker answers, and from then to the end of a first boot.
const PATIENCE: Duration = Duration::from_secs(600);

/// The release that our images are made of.
const SUITE: &str = "trixie";

const PLAIN_DEBIAN: &str = include_str!("cold_start/plain_debian.sh");
const WITHOUT_SYSTEMD: &str = include_str!("cold_start/without_systemd.sh");

/// What [`Contender`]s are called, in the order of their turns.
const PEERS: [&str; 3] = ["ours", "plain Debian", "no systemd"];

/// Something that boots until docker answers.
#[derive(Debug)]
struct Contender {
    /// The machine, with disks that are replaced.
    machine: MachineSpec,
    root: PathBuf,
    data: PathBuf,
}

/// What a boot writes to.
#[derive(Clone, Copy, Debug)]
enum Writes<'a> {
    /// The disks themselves.
    Through,
    /// Overlays in this directory.
    Over(&'a Path),
}

/// How long a boot took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall: Duration,
    /// Of the QEMU process, user and system.
    processor: Duration,
}

/// Measures `setup.rounds` boots of each contender.
///
/// # Errors
///
/// When something is missing or a guest does not become ready.
pub async fn run(setup: &Setup) -> Result<Row> {
    let work = setup.work.join("cold-start");
    fs::create_dir_all(&work)?;
    let image = setup.product()?.image().await?;
    let qemu = choose_qemu(&image, &work).await?;
    let host = Host::here().with_guest(qemu.accelerator.to_string());
    let contenders = prepare(setup, &image, &qemu, &work).await?;

    let mut wall = Measure::new("time until docker answers", Unit::Seconds, PEERS);
    let mut processor = Measure::new("processor time of QEMU until then", Unit::Seconds, PEERS);
    for _ in 0..setup.rounds {
        for (place, contender) in contenders.iter().enumerate() {
            let cost = measure(contender, &qemu, &work).await?;
            wall.samples[place].values.push(cost.wall.as_secs_f64());
            let seconds = cost.processor.as_secs_f64();
            processor.samples[place].values.push(seconds);
            let peer = PEERS[place];
            (setup.progress)(&format!(
                "{peer}: {:.1?}, processor {:.1?}",
                cost.wall, cost.processor
            ));
        }
    }
    let (faster, above) = (
        wall.median(1) / wall.median(0),
        wall.median(0) / wall.median(2),
    );
    Ok(Row {
        name: "cold-start".to_owned(),
        about:
            "Power on until docker answers in the guest: our image; the same packages as Debian \
                sets them up, with its own initramfs; our kernel, disk and daemons without systemd."
                .to_owned(),
        command: format!("compare --rounds {} cold-start", setup.rounds),
        host,
        measures: vec![wall, processor],
        bars: vec![
            Bar::at_least("at least 2.5 times as fast as plain Debian", 2.5, faster),
            Bar::at_most("at most 1.6 times the time without systemd", 1.6, above),
        ],
    })
}

async fn choose_qemu(image: &Image, work: &Path) -> Result<Qemu> {
    let program = Path::new("/usr/bin/qemu-system-x86_64");
    let (kernel, limit) = (image.kernel(), accelerator::DEFAULT_LIMIT);
    let memory = work.join("accelerator.json");
    let verdict = accelerator::choose(program, Arch::X86_64, &kernel, work, &memory, limit).await?;
    Ok(Qemu::new(program, verdict.accelerator))
}

/// Makes what the three boot, and boots each disk once.
async fn prepare(setup: &Setup, image: &Image, qemu: &Qemu, work: &Path) -> Result<[Contender; 3]> {
    let at = |name: &str| work.join(name);
    let peer = setup.peer()?;
    let packages = disks::equip(
        DiskImage::qcow2(&image.root_disk()),
        &peer,
        &at("ours.qcow2"),
    )
    .await?;
    fs::write(
        at("ours.cpio"),
        boot_archive(&fs::read(setup.guest()?)?, &boot_config()?),
    )?;
    // Exactly the machine that the product makes of the image.
    let machine = image.machine(GuestParts {
        name: "colima-bench".to_owned(),
        cpus: 2,
        memory: Bytes::gib(2),
        boot_archive: at("ours.cpio"),
        root_disk: at("ours.qcow2"),
        data_disk: blank(&at("ours-data.qcow2")).await?,
    });
    let ours = Contender {
        machine,
        root: at("ours.qcow2"),
        data: at("ours-data.qcow2"),
    };
    settle(&ours, qemu, work).await?;

    let plain = at("plain");
    plain_debian(&plain, &packages).await?;
    disks::equip(
        DiskImage::raw(&plain.join("root.ext4")),
        &peer,
        &at("plain.qcow2"),
    )
    .await?;
    let plain = Contender {
        machine: ours.booting(|kernel| {
            kernel.image = plain.join("vmlinuz");
            kernel.initrd = vec![plain.join("initrd.img")];
            kernel.command_line.push_str(" root=LABEL=plain-root ro");
        }),
        root: at("plain.qcow2"),
        data: blank(&at("plain-data.qcow2")).await?,
    };
    settle(&plain, qemu, work).await?;

    let busybox = setup.busybox.as_deref().ok_or("--busybox was not given")?;
    let mut archive = Archive::new();
    archive.file("busybox", 0o755, &fs::read(busybox)?);
    archive.file("init", 0o755, WITHOUT_SYSTEMD.as_bytes());
    fs::write(at("floor.cpio"), archive.finish())?;
    let floor = Contender {
        machine: ours.booting(|kernel| kernel.initrd = vec![image.initrd(), at("floor.cpio")]),
        root: ours.root.clone(),
        data: ours.data.clone(),
    };
    Ok([ours, plain, floor])
}

/// What our guest is told, with the product's own settings of docker.
fn boot_config() -> Result<BootConfig> {
    let user = User {
        name: "bench".to_owned(),
        uid: 1000,
        gid: 1000,
        home: "/home/bench".to_owned(),
    };
    let mut boot = BootConfig::new("bench", user);
    let defaults = DaemonDefaults::new(Network::default().gateway);
    let daemon = daemon_json(&serde_json::Map::new(), &defaults)?;
    boot.docker_daemon_json = serde_json::Value::Object(daemon).to_string();
    Ok(boot)
}

/// Makes Debian's own of `packages`, unless that is there from an earlier run.
async fn plain_debian(directory: &Path, packages: &str) -> Result<()> {
    let list = directory.join("packages.txt");
    if fs::read_to_string(&list).is_ok_and(|made| made == packages) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let script = directory.join("plain_debian.sh");
    fs::write(&script, PLAIN_DEBIAN)?;
    let mut bash = Command::new("bash");
    bash.arg(&script).arg(directory).arg(SUITE);
    output(bash.args(packages.lines())).await?;
    Ok(fs::write(list, packages)?)
}

async fn blank(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let _ = disk::ensure_data(&QemuImg::new(), path, Bytes::gib(8)).await?;
    Ok(path.to_owned())
}

/// Boots once and waits for the power off that the disk's own unit asks for.
async fn settle(contender: &Contender, qemu: &Qemu, work: &Path) -> Result<()> {
    let spec = contender.machine(Writes::Through, " colima_bench=settle");
    let machine = Machine::launch(&spec, qemu, &work.join("machine")).await?;
    machine.wait_ready(ready(), PATIENCE).await?;
    if tokio::time::timeout(PATIENCE, machine.exited())
        .await
        .is_err()
    {
        return Err(format!("no power off after the first boot{}", machine.evidence()).into());
    }
    Ok(())
}

async fn measure(contender: &Contender, qemu: &Qemu, work: &Path) -> Result<Cost> {
    let overlays = tempfile::tempdir_in(work)?;
    for (base, name) in [
        (&contender.root, "root.qcow2"),
        (&contender.data, "data.qcow2"),
    ] {
        let (size, path) = (disk::virtual_size(base).await?, overlays.path().join(name));
        let _ = disk::ensure_overlay(&QemuImg::new(), base, &path, size).await?;
    }
    let spec = contender.machine(Writes::Over(overlays.path()), "");
    let begin = Instant::now();
    let machine = Machine::launch(&spec, qemu, &work.join("machine")).await?;
    machine.wait_ready(ready(), PATIENCE).await?;
    let wall = begin.elapsed();
    let processor = processor_time(machine.pid().get())?;
    machine.stop(StopPlan::forced()).await?;
    Ok(Cost { wall, processor })
}

fn ready() -> Readiness {
    Readiness::ConsoleLine(READY.to_owned())
}

impl Contender {
    /// The same machine with another kernel.
    fn booting(&self, change: impl FnOnce(&mut Kernel)) -> MachineSpec {
        let mut machine = self.machine.clone();
        if let Boot::Kernel(kernel) = &mut machine.boot {
            change(kernel);
        }
        machine
    }

    fn machine(&self, writes: Writes<'_>, more: &str) -> MachineSpec {
        let mut machine = self.booting(|kernel| kernel.command_line.push_str(more));
        let files = [(&self.root, "root.qcow2"), (&self.data, "data.qcow2")];
        for (disk, (file, name)) in machine.disks.iter_mut().zip(files) {
            (disk.path, disk.base) = match writes {
                Writes::Through => (file.clone(), None),
                Writes::Over(directory) => {
                    let (path, format) = (file.clone(), DiskFormat::Qcow2);
                    (directory.join(name), Some(Base { path, format }))
                }
            };
        }
        machine
    }
}

/// User and system time of a process: fields 14 and 15 of proc_pid_stat(5), in ticks of which Linux shows
/// programs always 100 a second.
fn processor_time(pid: i32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may contain anything.
    let (_, fields) = stat.rsplit_once(") ").ok_or("stat has no name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<std::result::Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_counts() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = processor_time(own).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if processor_time(own).unwrap() > before {
                return;
            }
        }
        panic!("a minute of work is no time");
    }
}
