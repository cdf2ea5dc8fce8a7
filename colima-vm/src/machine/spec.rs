//! What a machine is, without a word of QEMU.

use std::path::{Path, PathBuf};

use colima_core::{Arch, Bytes};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// Number of byte streams between host and guest. Fixed, so that a saved state always fits the
/// machine it is loaded into.
pub const STREAM_PORTS: u8 = 16;

/// Largest number of disks: each has a fixed PCI address.
pub const MOST_DISKS: usize = 14;

/// Longest serial of a virtio block device (`VIRTIO_BLK_ID_BYTES` of the virtio specification 1.2,
/// section 5.2.4).
pub const LONGEST_SERIAL: usize = 20;

/// A machine as plain data: what somebody wants, not how QEMU is told.
///
/// It is recorded beside the running machine, so it serializes; unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Name of the machine, seen in the host's process list: 1 to 63 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Architecture of the guest.
    pub arch: Arch,
    /// Virtual processors, 1 to 255.
    pub cpus: u32,
    /// Memory; whole MiB, at least 16.
    pub memory: Bytes,
    /// What the machine starts.
    pub boot: Boot,
    /// Block devices, in the order of their PCI addresses; at most [`MOST_DISKS`].
    pub disks: Vec<Disk>,
    /// The network.
    pub network: Network,
}

/// What a machine starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Boot {
    /// A kernel, loaded directly: no boot loader, no firmware menu.
    Kernel(Kernel),
    /// The boot sector of the first disk, by the machine's own firmware (x86-64 only).
    Disk,
}

/// A kernel and what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The kernel image, by absolute path.
    pub image: PathBuf,
    /// Parts of the initial RAM file system. They are joined in this order, each padded to four
    /// bytes, which is how the kernel wants them concatenated
    /// (Documentation/driver-api/early-userspace/buffer-format.rst). None at all is fine.
    pub initrd: Vec<PathBuf>,
    /// The kernel's command line; at most 2047 bytes.
    pub command_line: String,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The image file, by absolute path. Any name is safe: it never becomes part of an option list.
    pub path: PathBuf,
    /// How the file is encoded. Never guessed: a guest can write a qcow2 header into a raw disk.
    pub format: DiskFormat,
    /// The file below an overlay. Exactly this one is opened; what the image's own header says about
    /// a backing file is ignored.
    pub base: Option<Base>,
    /// Whether the guest may write.
    pub access: Access,
    /// How the guest finds the disk (`/dev/disk/by-id/virtio-SERIAL`): 1 to 20 of `a-z A-Z 0-9 . _ -`.
    pub serial: String,
    /// What a guest's flush means.
    pub durability: Durability,
}

/// The read-only file below an overlay. It has no base of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The image file, by absolute path.
    pub path: PathBuf,
    /// How the file is encoded.
    pub format: DiskFormat,
}

/// How a disk image is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DiskFormat {
    /// QEMU's own format: sparse, growable, can be an overlay.
    Qcow2,
    /// The bytes of the disk and nothing else.
    Raw,
}

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The file is opened for reading only.
    ReadOnly,
    /// The guest may write.
    ReadWrite,
}

/// What a guest's flush means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A flush reaches the host's disk before it is acknowledged.
    Durable,
    /// Flushes are ignored: fast, and lost when the host loses power. For what can be made again.
    Unsafe,
}

/// The network of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// QEMU's user network: outgoing IPv4 as an ordinary process of the host's user. The guest can
    /// reach everything that process can, the host's loopback (as 10.0.2.2) included; QEMU has no
    /// switch that forbids just that. Nothing can reach the guest through it.
    User,
    /// The same, and these ports of the host lead to the guest. QEMU itself listens on them, so they are
    /// there as long as the machine is; one that somebody else has fails the launch.
    Reachable(Vec<HostPort>),
    /// No network device.
    None,
}

/// A TCP port of the host's 127.0.0.1 that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// The host's port, not 0.
    pub host: u16,
    /// The guest's port, not 0. The guest sees its gateway connect.
    pub guest: u16,
}

impl MachineSpec {
    /// Says whether every field is within its limits.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSpec`] names the first field that is not.
    pub fn validate(&self) -> Result<()> {
        plain_word("name", &self.name, 63)?;
        if !(1..=255).contains(&self.cpus) {
            return Err(Error::invalid("cpus", "must be 1 to 255"));
        }
        if self.memory.whole_mib() < 16 || self.memory != Bytes::mib(self.memory.whole_mib()) {
            return Err(Error::invalid(
                "memory",
                "must be whole MiB and at least 16MiB",
            ));
        }
        match &self.boot {
            Boot::Kernel(kernel) => kernel.validate()?,
            Boot::Disk if self.arch != Arch::X86_64 => {
                return Err(Error::invalid("boot", "from disk is for x86_64 only"));
            }
            Boot::Disk if self.disks.is_empty() => {
                return Err(Error::invalid("boot", "from disk needs a disk"));
            }
            Boot::Disk => {}
        }
        if self.disks.len() > MOST_DISKS {
            return Err(Error::invalid("disks", format!("are at most {MOST_DISKS}")));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.validate()?;
            if self.disks[..index].iter().any(|d| d.serial == disk.serial) {
                return Err(Error::invalid("serial", "must be unique among the disks"));
            }
        }
        if let Network::Reachable(ports) = &self.network {
            for (index, port) in ports.iter().enumerate() {
                if port.host == 0 || port.guest == 0 {
                    return Err(Error::invalid("port", "must be 1 to 65535"));
                }
                if ports[..index].iter().any(|other| other.host == port.host) {
                    return Err(Error::invalid("port", "of the host must be given once"));
                }
            }
        }
        Ok(())
    }
}

impl Kernel {
    fn validate(&self) -> Result<()> {
        plain_path("kernel", &self.image)?;
        for part in &self.initrd {
            plain_path("initrd", part)?;
        }
        // COMMAND_LINE_SIZE is 2048 on both architectures, its terminator included.
        if self.command_line.len() > 2047 || self.command_line.contains(['\0', '\n']) {
            return Err(Error::invalid(
                "kernel command line",
                "is one line of at most 2047 bytes",
            ));
        }
        Ok(())
    }
}

impl Disk {
    fn validate(&self) -> Result<()> {
        plain_path("disk", &self.path)?;
        plain_word("serial", &self.serial, LONGEST_SERIAL)?;
        if let Some(base) = &self.base {
            plain_path("disk base", &base.path)?;
            if self.format != DiskFormat::Qcow2 {
                return Err(Error::invalid("disk base", "needs an overlay in qcow2"));
            }
        }
        Ok(())
    }
}

/// Paths travel as JSON, so they must be text; relative ones would depend on a working directory.
fn plain_path(field: &str, path: &Path) -> Result<()> {
    if !path.is_absolute() {
        return Err(Error::invalid(field, "must be an absolute path"));
    }
    match path.to_str() {
        Some(text) if !text.contains('\0') => Ok(()),
        _ => Err(Error::invalid(field, "must be a path in UTF-8 without NUL")),
    }
}

/// Words that end up between commas.
fn plain_word(field: &str, word: &str, longest: usize) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=longest).contains(&word.len()) && word.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("must be 1 to {longest} of a-z A-Z 0-9 . _ -"),
    ))
}
