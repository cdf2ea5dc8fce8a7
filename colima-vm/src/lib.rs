//! Virtual machines under QEMU: images, disks, process control, QMP.

pub mod disk;
pub mod image;
pub mod machine;
