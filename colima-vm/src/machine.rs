//! The machine: specification, QEMU process, QMP, console, readiness, termination.

pub mod accelerator;
mod command_line;
pub mod console;
mod control;
mod directory;
mod error;
mod handle;
mod launch;
mod lock;
mod presence;
mod process;
mod qemu;
pub mod qmp;
mod readiness;
mod record;
mod spawn;
pub mod spec;
mod termination;

pub use accelerator::Accelerator;
pub use command_line::Firmware;
pub use console::Console;
pub use error::{Error, Result};
pub use handle::{Exit, Machine, OnDrop, Status};
pub use launch::{LAUNCH_LIMIT, Qemu};
pub use process::{ExitStatus, Identity, Pid, host_boot_id};
pub use qemu::QemuVersion;
pub use readiness::{BoxError, BoxFuture, Evidence, FirstByte, Readiness, Reason};
pub use record::MachineRecord;
pub use spec::{Boot, Kernel, MachineSpec, Network};
pub use termination::{AskGuest, Rung, RungOutcome, RungReport, StopPlan, StopReport};
