//! The machine: specification, QEMU process, QMP, console, readiness, termination.
//!
//! ```text
//!   MachineSpec --launch--> [ QEMU, paused ] --recorded, cont--> running --stop--> Exit
//!   SavedState ---load----> [ QEMU, paused ] --used up, cont--->    |  `--suspend--> SavedState
//!                                                              ^    |
//!                                                           attach  detach, or the launcher is killed
//! ```
//!
//! A machine is a directory. While it runs the directory holds its sockets, its logs, the record
//! `machine.json` and `machine.lock`. Three rules make it trustworthy:
//!
//! * **The lock is the liveness.** QEMU inherits the locked descriptor, and nobody else keeps it. The
//!   kernel lets go of it when QEMU ends, however that happens, and not before.
//! * **A number is not a process.** The record names a process by number, start time and boot of the
//!   host. It is signalled through a handle that cannot come to mean another process.
//! * **QEMU is never waited for without a limit.** It may be stopped, hang, or lie.
//!
//! QEMU gets no more than it needs: its own session, an empty environment, seccomp without the right to
//! start programs, only the descriptors it is meant to have, and devices at fixed addresses. Sockets are
//! bound here and handed over listening, so their mode and the length of their path are no concern of
//! QEMU's.
//!
//! The guest is not trusted: its console is bounded and escaped, and a reset ends the machine, so that
//! every boot is a launch.

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
mod resume;
mod spawn;
pub mod spec;
mod state;
mod suspend;
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
pub use resume::Loaded;
pub use spec::{Boot, HostPort, Kernel, MachineSpec, Network};
pub use state::{SavedState, StateRecord};
pub use suspend::Suspended;
pub use termination::{AskGuest, Rung, RungOutcome, RungReport, StopPlan, StopReport};
