//! The machine against real QEMUs, one test binary.

mod guest_code;
mod machine_accelerator;
mod machine_failures;
mod machine_life;
mod machine_qmp;
mod machine_stop;
