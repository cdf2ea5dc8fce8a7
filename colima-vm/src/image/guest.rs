//! From an image to a machine that boots it as a Colima guest.

use std::path::PathBuf;

use colima_core::{
    Bytes,
    boot::{BootConfig, CONFIG_PATH, DATA_DISK_SERIAL, ROOT_DISK_SERIAL},
};

use super::{Image, cpio::Archive};
use crate::machine::{
    Boot, Kernel, MachineSpec, Network,
    spec::{Access, Base, Disk, DiskFormat, Durability},
};

/// What a guest is given besides its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestParts {
    /// Name of the machine, as in [`MachineSpec::name`].
    pub name: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory; a fraction of a MiB is dropped.
    pub memory: Bytes,
    /// File with the bytes of [`boot_archive`].
    pub boot_archive: PathBuf,
    /// Overlay over [`Image::root_disk`].
    pub root_disk: PathBuf,
    /// The disk that survives.
    pub data_disk: PathBuf,
}

/// What the kernel is told. The console is for boot trouble: quiet, because every character of an
/// emulated serial line costs.
///
/// Of the security modules, those that work without a configuration of their own: where BPF is one of
/// them, systemd attaches a hook that no unit here uses, which takes seconds of an emulated processor.
/// Grace periods are expedited because a boot waits for many, one after the other. The timer is not tested:
/// the test counts the ticks of a moment, which an emulated machine on a busy host misses, and then
/// the kernel panics ("IO-APIC + timer doesn't work"); under KVM it leaves the test out by itself. Nor are
/// the ciphers, whose self-tests are meant for hardware that may be wrong.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=1 no_timer_check lsm=landlock,yama rcupdate.rcu_expedited=1 cryptomgr.notests";

impl Image {
    /// The machine that boots this image. Pure.
    #[must_use]
    pub fn machine(&self, parts: GuestParts) -> MachineSpec {
        let disk = |path, base, serial: &str| Disk {
            path,
            format: DiskFormat::Qcow2,
            base,
            access: Access::ReadWrite,
            serial: serial.to_owned(),
            durability: Durability::Durable,
        };
        let base = Base {
            path: self.root_disk(),
            format: DiskFormat::Qcow2,
        };
        MachineSpec {
            name: parts.name,
            arch: self.manifest.arch,
            cpus: parts.cpus,
            memory: Bytes::mib(parts.memory.whole_mib()),
            boot: Boot::Kernel(Kernel {
                image: self.kernel(),
                initrd: vec![self.initrd(), parts.boot_archive],
                command_line: KERNEL_COMMAND_LINE.to_owned(),
            }),
            disks: vec![
                disk(parts.root_disk, Some(base), ROOT_DISK_SERIAL),
                disk(parts.data_disk, None, DATA_DISK_SERIAL),
            ],
            network: Network::User,
        }
    }
}

/// The archive that is appended to an image's initramfs at every boot: the bytes of the guest's
/// program, and what it is told. It holds a private key, so it is for its owner's eyes only.
///
/// # Panics
///
/// As [`Archive::file`]: for a program of 4 GiB or more.
#[must_use]
pub fn boot_archive(program: &[u8], config: &BootConfig) -> Vec<u8> {
    // Plain data with text keys: there is nothing in it that JSON cannot carry.
    let config = serde_json::to_vec(config).unwrap_or_default();
    let mut archive = Archive::new();
    archive.file("init", 0o755, program);
    archive.directory("colima", 0o755);
    archive.file(CONFIG_PATH.trim_start_matches('/'), 0o600, &config);
    archive.finish()
}
