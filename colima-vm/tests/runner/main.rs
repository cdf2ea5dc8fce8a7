//! The machine against real QEMUs, one test binary.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

mod guest_code;
mod machine_accelerator;
mod machine_failures;
mod machine_full_disk;
mod machine_life;
mod machine_qmp;
mod machine_stop;
mod machine_suspend;
mod machine_suspend_killed;
