//! A virtual machine with docker in it and its socket on the host, from the libraries alone.
//!
//! ```text
//! make build                                    # once: the guest's program
//! cargo run -p colima-examples --example docker_vm -- ~/docker-vm target/release/colima-guest-x86_64
//! docker -H unix://$HOME/docker-vm/docker.sock version      # in a second terminal
//! ```
//!
//! The first run builds the guest's image from Debian's packages. Ctrl-C powers the machine off.

use std::{collections::BTreeMap, error::Error, path::Path, sync::Arc, time::Duration};

use colima_core::{
    Arch, Bytes, Endpoint,
    boot::{BootConfig, DATA_DISK_SERIAL, Network, ROOT_DISK_SERIAL, Runtime, User},
};
use colima_net::{Mux, MuxConfig, Relay, SocketFile, agent::Agent};
use colima_vm::{
    disk,
    image::{Builder, Image, ImageStore, Sources, cpio::Archive},
    machine::{self, Boot, Kernel, Machine, MachineSpec, Qemu, Readiness, StopPlan, accelerator, spec},
};
use qemu_img_wrapper::QemuImg;
use tokio::sync::mpsc;

const ARCH: Arch = Arch::X86_64;
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), Some(guest)) = (arguments.next(), arguments.next()) else {
        return Err("usage: docker_vm DIRECTORY GUEST-PROGRAM".into());
    };
    let directory = std::path::absolute(directory)?;
    let at = |name: &str| directory.join(name);

    // What the machine boots, and where it writes.
    let image = image(&directory).await?;
    let qemu_img = QemuImg::new();
    let _ = disk::ensure_overlay(&qemu_img, &image.root_disk(), &at("root.qcow2"), Bytes::gib(8)).await?;
    let _ = disk::ensure_data(&qemu_img, &at("data.qcow2"), Bytes::gib(20)).await?;
    std::fs::write(at("boot.cpio"), boot_archive(&std::fs::read(guest)?)?)?;

    // The machine.
    let (kernel, verdict) = (image.kernel(), at("accelerator.json"));
    let limit = accelerator::DEFAULT_LIMIT;
    let chosen = accelerator::choose(Path::new(QEMU), ARCH, &kernel, &directory, &verdict, limit).await?;
    let disk = |name, base, serial: &str| spec::Disk {
        path: at(name),
        format: spec::DiskFormat::Qcow2,
        base,
        access: spec::Access::ReadWrite,
        serial: serial.to_owned(),
        durability: spec::Durability::Durable,
    };
    let base = spec::Base { path: image.root_disk(), format: spec::DiskFormat::Qcow2 };
    let spec = MachineSpec {
        name: "docker-vm".to_owned(),
        arch: ARCH,
        cpus: 2,
        memory: Bytes::gib(2),
        boot: Boot::Kernel(Kernel {
            image: kernel,
            initrd: vec![image.initrd(), at("boot.cpio")],
            command_line: "console=ttyS0 quiet panic=1".to_owned(),
        }),
        disks: vec![
            disk("root.qcow2", Some(base), ROOT_DISK_SERIAL),
            disk("data.qcow2", None, DATA_DISK_SERIAL),
        ],
        network: machine::Network::User,
    };
    let qemu = Qemu { program: QEMU.into(), accelerator: chosen.accelerator, firmware: Default::default() };
    let machine = Arc::new(Machine::launch(&spec, &qemu, &at("machine")).await?);
    println!("booting under {}", chosen.accelerator);

    // Streams into the guest, and docker's socket through them.
    let port = Arc::clone(&machine);
    let dial = move || {
        let port = Arc::clone(&port);
        async move { port.port(0).await.map_err(std::io::Error::other) }
    };
    let agent = Agent::new(Mux::new(dial, MuxConfig { open_timeout: PATIENCE, ..Default::default() }));
    let asked = agent.clone();
    let ready = async move { Ok(drop(asked.wait_ready(|stage| println!("{} is up", stage.name)).await?)) };
    machine.wait_ready(Readiness::custom("docker answers", ready), PATIENCE).await?;
    let socket = SocketFile::bind(at("docker.sock"))?;
    println!("docker -H unix://{} version", socket.path().display());
    let docker = Endpoint::Unix("/run/docker.sock".into());
    let interrupt = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Relay::new(socket, agent.transport().clone(), docker).run(interrupt).await;

    // Asks the guest first, and makes sure in the end.
    let ask = async move { Ok(agent.power_off().await?) };
    let report = machine.stop(StopPlan::default().ask_guest(PATIENCE, Box::pin(ask))).await?;
    println!("{} after {:.1?}", report.exit, report.elapsed);
    Ok(())
}

async fn image(directory: &Path) -> Result<Image, Box<dyn Error>> {
    let store = ImageStore::new(directory.join("images"));
    if let Some(image) = store.list()?.into_iter().flatten().next() {
        return Ok(image);
    }
    let (suite, scratch) = ("trixie".to_owned(), "/var/tmp".into());
    let cache = directory.join("packages");
    let builder = Builder { arch: ARCH, suite, sources: Sources::Default, cache, scratch, env: Vec::new() };
    let (events, mut progress) = mpsc::unbounded_channel();
    tokio::spawn(async move { while let Some(event) = progress.recv().await { println!("{}", event.step) } });
    let lock = builder.resolve(1_760_000_000, &events, std::future::pending()).await?;
    Ok(builder.build(&store, &lock, &events, std::future::pending()).await?)
}

/// What is appended to the image's initramfs: the guest's program, and what it is told.
fn boot_archive(guest: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let boot = BootConfig {
        version: BootConfig::VERSION,
        host_name: "docker-vm".to_owned(),
        user: User { name: "me".to_owned(), uid: 1000, gid: 1000, home: "/home/me".to_owned() },
        ssh_host_key: String::new(), // no ssh here
        ssh_authorized_keys: Vec::new(),
        network: Network::default(),
        runtime: Runtime::Docker,
        docker_daemon_json: "{}".to_owned(),
        env: BTreeMap::new(),
        clock_unix_nanos: 0,
    };
    let mut archive = Archive::new();
    archive.file("init", 0o755, guest);
    archive.directory("colima", 0o755);
    archive.file("colima/boot.json", 0o600, &serde_json::to_vec(&boot)?);
    Ok(archive.finish())
}
