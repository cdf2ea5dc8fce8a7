//! Boots your own kernel with colima-vm alone and prints its console until a line appears.
//!
//! ```text
//! cargo run -p colima-examples --example boot_kernel -- /boot/vmlinuz "Linux version"
//! cargo run -p colima-examples --example boot_kernel -- vmlinuz "login:" part1.cpio part2.cpio
//! ```

#![expect(clippy::print_stdout, reason = "a program that prints a console")]

use std::{env, error::Error, path::PathBuf, time::Duration};

use colima_core::{Arch, Bytes};
use colima_vm::machine::{
    Boot, Firmware, Kernel, Machine, MachineSpec, Network, Qemu, Readiness, StopPlan, accelerator,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(image), Some(until)) = (arguments.next(), arguments.next()) else {
        return Err("usage: boot_kernel KERNEL TEXT [INITRD...]".into());
    };
    let image = std::path::absolute(image)?;
    let initrd = arguments
        .map(std::path::absolute)
        .collect::<Result<Vec<_>, _>>()?;
    let home = env::temp_dir().join(format!("boot-kernel-{}", std::process::id()));
    std::fs::create_dir(&home)?;

    let arch = Arch::host().ok_or("no guest matches this host")?;
    let program = PathBuf::from(format!("/usr/bin/qemu-system-{arch}"));
    let verdict = accelerator::choose(
        &program,
        arch,
        &image,
        &home,
        &home.join("accelerator.json"),
        accelerator::DEFAULT_LIMIT,
    )
    .await?;
    println!("running on {}: {}", verdict.accelerator, verdict.reason());

    let console = match arch {
        Arch::X86_64 => "ttyS0",
        Arch::Aarch64 => "ttyAMA0",
    };
    let spec = MachineSpec {
        name: "boot-kernel".to_owned(),
        arch,
        cpus: 1,
        memory: Bytes::mib(512),
        boot: Boot::Kernel(Kernel {
            image,
            initrd,
            command_line: format!("console={console} panic=-1"),
        }),
        disks: Vec::new(),
        network: Network::None,
    };
    let qemu = Qemu {
        program,
        accelerator: verdict.accelerator,
        firmware: Firmware::default(),
    };
    let machine = Machine::launch(&spec, &qemu, &home.join("machine")).await?;
    let mut lines = machine.console().lines();
    let printing = tokio::spawn(async move {
        while let Some(line) = lines.next().await {
            println!("{line}");
        }
    });
    let ready = machine
        .wait_ready(Readiness::ConsoleLine(until), Duration::from_secs(120))
        .await;
    let report = machine.stop(StopPlan::forced()).await?;
    printing.await?;
    println!("ready after {:?}; then {}", ready?, report.exit);
    std::fs::remove_dir_all(&home)?;
    Ok(())
}
