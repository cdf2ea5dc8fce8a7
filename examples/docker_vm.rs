//! A virtual machine with docker in it and its socket on the host, from the libraries alone.
//!
//! ```text
//! make build                                    # once: the guest's program
//! cargo run -p colima-examples --example docker_vm -- ~/docker-vm target/release/colima-guest-x86_64
//! docker -H unix://$HOME/docker-vm/docker.sock version      # in a second terminal
//! ```
//!
//! The first run builds the guest's image from Debian's packages. Ctrl-C powers the machine off.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, io, path::Path, sync::Arc, time::Duration};

use colima_core::{Arch, Bytes, Endpoint, boot};
use colima_net::{Mux, MuxConfig, Relay, SocketFile, agent::Agent};
use colima_vm::{
    disk,
    image::{Builder, GuestParts, Image, ImageStore, boot_archive},
    machine::{Machine, Qemu, Readiness, StopPlan, accelerator},
};
use qemu_img_wrapper::QemuImg;
use tokio::sync::mpsc;

const ARCH: Arch = Arch::X86_64;
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// Emulated machines on a busy host are slow.
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
    let (qemu_img, base) = (QemuImg::new(), image.root_disk());
    let _ = disk::ensure_overlay(&qemu_img, &base, &at("root.qcow2"), Bytes::gib(8)).await?;
    let _ = disk::ensure_data(&qemu_img, &at("data.qcow2"), Bytes::gib(20)).await?;
    let boot = boot::BootConfig::new("docker-vm", boot::User::first("me"));
    let archive = boot_archive(&std::fs::read(guest)?, &boot);
    std::fs::write(at("boot.cpio"), archive)?;

    // The machine.
    let qemu = Path::new(QEMU);
    let (kernel, memory, limit) = (
        image.kernel(),
        at("accelerator.json"),
        accelerator::DEFAULT_LIMIT,
    );
    let verdict = accelerator::choose(qemu, ARCH, &kernel, &directory, &memory, limit).await?;
    let spec = image.machine(GuestParts {
        name: "docker-vm".into(),
        cpus: 2,
        memory: Bytes::gib(2),
        boot_archive: at("boot.cpio"),
        root_disk: at("root.qcow2"),
        data_disk: at("data.qcow2"),
    });
    let qemu = Qemu::new(qemu, verdict.accelerator);
    let machine = Arc::new(Machine::launch(&spec, &qemu, &at("machine")).await?);
    println!("booting under {}", verdict.accelerator);

    // Streams into the guest, and docker's socket through them.
    let ports = Arc::clone(&machine);
    let dial = move || {
        let ports = Arc::clone(&ports);
        async move { ports.port(0).await.map_err(io::Error::other) }
    };
    let config = MuxConfig {
        open_timeout: PATIENCE,
        ..MuxConfig::default()
    };
    let agent = Agent::new(Mux::new(dial, config));
    let asked = agent.clone();
    let ready = async move {
        asked
            .wait_ready(|stage| println!("{} is up", stage.name))
            .await?;
        Ok(())
    };
    machine
        .wait_ready(Readiness::custom("docker answers", ready), PATIENCE)
        .await?;
    let socket = SocketFile::bind(at("docker.sock"))?;
    println!("docker -H unix://{} version", socket.path().display());
    let docker = Endpoint::Unix("/run/docker.sock".into());
    let interrupt = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Relay::new(socket, agent.transport().clone(), docker)
        .run(interrupt)
        .await;

    // Asks the guest first, and makes sure in the end.
    let ask = async move { Ok(agent.power_off().await?) };
    let report = machine
        .stop(StopPlan::default().ask_guest(PATIENCE, Box::pin(ask)))
        .await?;
    println!("{} after {:.1?}", report.exit, report.elapsed);
    Ok(())
}

async fn image(directory: &Path) -> Result<Image, Box<dyn Error>> {
    let store = ImageStore::new(directory.join("images"));
    if let Some(image) = store.newest(ARCH)? {
        return Ok(image);
    }
    println!("building the image, which takes a few minutes");
    let builder = Builder::new(ARCH, directory.join("packages"));
    let (progress, _) = mpsc::unbounded_channel();
    let lock = builder
        .resolve(1_760_000_000, &progress, std::future::pending())
        .await?;
    Ok(builder
        .build(&store, &lock, &progress, std::future::pending())
        .await?)
}
