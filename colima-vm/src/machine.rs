//! The machine: specification, QEMU process, QMP, console, readiness, termination.
