//! Virtual machines under QEMU: images, disks, process control, QMP.
//!
//! Three modules that can be used alone, with an error enum each:
//!
//! * [`image`]: what a machine boots. Bundles of kernel, initramfs and root disk, built from
//!   Debian's packages, locked, stored and verified.
//! * [`disk`]: what a machine writes to. Overlays and data disks that only grow, and a reader that
//!   refuses crafted images before QEMU sees them.
//! * [`machine`]: the machine itself. A plain [`machine::MachineSpec`] becomes a QEMU in its own
//!   session, which outlives the program that started it and is found again by it.
//!
//! The crate reads no environment, prints nothing, and has no runtime of its own: async functions run
//! on the caller's tokio. Paths, programs and limits in time come from the caller.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//!
//! use colima_core::{Arch, Bytes};
//! use colima_vm::machine::{
//!     Accelerator, Boot, Firmware, Kernel, Machine, MachineSpec, Network, Qemu, Readiness, StopPlan,
//! };
//!
//! # async fn example() -> colima_vm::machine::Result<()> {
//! let spec = MachineSpec {
//!     name: "demo".to_owned(),
//!     arch: Arch::X86_64,
//!     cpus: 2,
//!     memory: Bytes::gib(1),
//!     boot: Boot::Kernel(Kernel {
//!         image: "/images/vmlinuz".into(),
//!         initrd: vec!["/images/initrd".into()],
//!         command_line: "console=ttyS0".to_owned(),
//!     }),
//!     disks: Vec::new(),
//!     network: Network::User,
//! };
//! let qemu = Qemu {
//!     program: "/usr/bin/qemu-system-x86_64".into(),
//!     accelerator: Accelerator::Tcg,
//!     firmware: Firmware::default(),
//! };
//! let machine = Machine::launch(&spec, &qemu, Path::new("/run/demo")).await?;
//! let login = Readiness::ConsoleLine("login:".to_owned());
//! machine.wait_ready(login, Duration::from_secs(60)).await?;
//! let report = machine.stop(StopPlan::default()).await?;
//! assert_eq!(report.exit.to_string(), "the guest powered off");
//! # Ok(())
//! # }
//! ```

pub mod disk;
pub mod image;
pub mod machine;
