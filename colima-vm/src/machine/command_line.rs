//! Specification and facts about the host to QEMU's argument vector. No I/O.
//!
//! User text never stands between commas: disk paths are in JSON, sockets are descriptors, and the
//! kernel's path and command line are arguments of their own, which QEMU takes whole.
//!
//! Every device has a fixed PCI address, because a saved state loads only into the same tree:
//!
//! | address | device |
//! |---|---|
//! | 2 | random numbers |
//! | 3 | balloon, which returns free pages to the host |
//! | 4 | serial bus of the stream ports 1 to 16 (0 is reserved for a console) |
//! | 5 | network |
//! | 6 | panic notifier |
//! | 0x10 to 0x1d | disks in their order |

use std::{
    ffi::OsString,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use colima_core::Arch;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    accelerator::Accelerator,
    spec::{
        Access, Boot, Disk, DiskFormat, Durability, HostPort, MachineSpec, Network, STREAM_PORTS,
    },
};

/// What the argument vector depends on besides the specification.
#[derive(Clone, Debug)]
pub(super) struct HostFacts {
    pub(super) accelerator: Accelerator,
    pub(super) firmware: Firmware,
    /// The joined initial RAM file system, if the specification has any part of it.
    pub(super) initrd: Option<PathBuf>,
    pub(super) sockets: SocketNumbers,
    pub(super) beginning: Beginning,
}

/// What a machine's memory holds at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Nothing: the guest boots.
    Boot,
    /// What was saved, once the control channel names it.
    SavedState,
}

/// The firmware of an x86-64 machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Firmware {
    /// The machine's own: SeaBIOS.
    #[default]
    Standard,
    /// `qboot.rom`, which does nothing but start the kernel. Ignored when booting from a disk.
    Minimal,
}

/// Numbers of the listening sockets as QEMU inherits them.
#[derive(Clone, Debug)]
pub(super) struct SocketNumbers {
    pub(super) qmp: RawFd,
    pub(super) qmp_debug: RawFd,
    pub(super) console: RawFd,
    pub(super) ports: [RawFd; STREAM_PORTS as usize],
}

/// The arguments of QEMU, without the program itself. The specification must be valid.
pub(super) fn arguments(spec: &MachineSpec, host: &HostFacts) -> Vec<OsString> {
    let mut line = CommandLine::default();
    identity(&mut line, spec);
    confinement(&mut line);
    processor(&mut line, spec, host);
    boot(&mut line, spec, host);
    control(&mut line, &host.sockets);
    small_devices(&mut line);
    stream_ports(&mut line, &host.sockets.ports);
    network(&mut line, &spec.network);
    for (index, disk) in spec.disks.iter().enumerate() {
        block_device(&mut line, index, disk);
    }
    if host.beginning == Beginning::SavedState {
        line.option("-incoming", "defer");
    }
    line.0
}

#[derive(Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn option(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.option(option, value.to_string());
    }
}

fn identity(line: &mut CommandLine, spec: &MachineSpec) {
    line.option("-name", format!("guest={},debug-threads=on", spec.name));
    line.option("-uuid", uuid_of(&spec.name));
}

/// The same name gives the same UUID, so that a guest that derives its identity from it keeps it.
/// Layout: RFC 9562, version 8 (vendor specific).
fn uuid_of(name: &str) -> String {
    let digest = Sha256::digest(format!("colima-vm machine {name}"));
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff,
    )
}

fn confinement(line: &mut CommandLine) {
    line.flag("-no-user-config");
    line.flag("-nodefaults");
    line.option("-display", "none");
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // Paused until somebody listens to console and events: nothing the guest says is lost, and a
    // machine nobody has recorded has never run.
    line.flag("-S");
    // A guest that resets ends QEMU, which says why in its last event. The owner decides whether to
    // start anew, with a fresh initial RAM file system; a reset inside would reuse the old one.
    line.flag("-no-reboot");
}

fn processor(line: &mut CommandLine, spec: &MachineSpec, host: &HostFacts) {
    let machine = match spec.arch {
        // What no container machine needs costs boot time and attack surface.
        Arch::X86_64 => {
            "pc-q35-7.2,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,hpet=off,\
             graphics=off,dump-guest-core=off,mem-merge=off"
        }
        Arch::Aarch64 => "virt-7.2,gic-version=max,usb=off,dump-guest-core=off,mem-merge=off",
    };
    line.option("-machine", machine);
    match host.accelerator {
        Accelerator::Kvm => line.option("-accel", "kvm"),
        Accelerator::Hvf => line.option("-accel", "hvf"),
        Accelerator::Tcg => line.option("-accel", "tcg,thread=multi"),
    }
    line.option(
        "-cpu",
        match host.accelerator {
            Accelerator::Kvm | Accelerator::Hvf => "host",
            Accelerator::Tcg => "max",
        },
    );
    let cpus = spec.cpus;
    line.option(
        "-smp",
        format!("cpus={cpus},sockets=1,cores={cpus},threads=1"),
    );
    line.option("-m", format!("size={}M", spec.memory.whole_mib()));
    line.option("-rtc", "base=utc,clock=host");
}

fn boot(line: &mut CommandLine, spec: &MachineSpec, host: &HostFacts) {
    match &spec.boot {
        Boot::Kernel(kernel) => {
            if spec.arch == Arch::X86_64 && host.firmware == Firmware::Minimal {
                line.option("-bios", "qboot.rom");
            }
            line.option("-kernel", kernel.image.as_os_str());
            if let Some(initrd) = &host.initrd {
                line.option("-initrd", initrd.as_os_str());
            }
            line.option("-append", kernel.command_line.as_str());
        }
        Boot::Disk => line.option("-boot", "order=c,menu=off"),
    }
}

fn listening(line: &mut CommandLine, id: &str, fd: RawFd) {
    line.option(
        "-chardev",
        format!("socket,id={id},fd={fd},server=on,wait=off"),
    );
}

fn control(line: &mut CommandLine, sockets: &SocketNumbers) {
    listening(line, "qmp", sockets.qmp);
    line.option("-mon", "chardev=qmp,mode=control");
    // A QMP socket serves one client at a time; the second is for a person with a debugger's mind.
    listening(line, "qmp-debug", sockets.qmp_debug);
    line.option("-mon", "chardev=qmp-debug,mode=control");
    listening(line, "console", sockets.console);
    line.option("-serial", "chardev:console");
}

fn small_devices(line: &mut CommandLine) {
    line.json(
        "-object",
        &json!({"qom-type": "rng-random", "id": "entropy", "filename": "/dev/urandom"}),
    );
    line.option("-device", "virtio-rng-pci,rng=entropy,bus=pcie.0,addr=0x2");
    line.option(
        "-device",
        "virtio-balloon-pci,id=balloon,free-page-reporting=on,bus=pcie.0,addr=0x3",
    );
    line.option("-device", "pvpanic-pci,bus=pcie.0,addr=0x6");
}

fn stream_ports(line: &mut CommandLine, fds: &[RawFd; STREAM_PORTS as usize]) {
    line.option(
        "-device",
        "virtio-serial-pci,id=streams,max_ports=17,bus=pcie.0,addr=0x4",
    );
    for (port, fd) in fds.iter().enumerate() {
        listening(line, &format!("port{port}"), *fd);
        line.option(
            "-device",
            format!(
                "virtserialport,bus=streams.0,nr={},chardev=port{port},name=colima.{port}",
                port + 1
            ),
        );
    }
}

fn network(line: &mut CommandLine, network: &Network) {
    let ports: &[HostPort] = match network {
        Network::None => return,
        Network::User => &[],
        Network::Reachable(ports) => ports,
    };
    // The guest is configured for IPv4 only; half an IPv6 would only delay its connections.
    let mut backend = "user,id=net0,ipv6=off".to_owned();
    for HostPort { host, guest } in ports {
        // Without an address of the guest it is the first that QEMU hands out: 10.0.2.15.
        backend.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
    }
    line.option("-netdev", backend);
    line.option(
        "-device",
        "virtio-net-pci,netdev=net0,mac=52:54:00:c0:11:0a,romfile=,bus=pcie.0,addr=0x5",
    );
}

fn block_device(line: &mut CommandLine, index: usize, disk: &Disk) {
    let top = format!("disk{index}");
    let backing = match &disk.base {
        None => Value::Null,
        Some(base) => {
            let name = format!("disk{index}-base");
            let below = Layer {
                node: &name,
                path: &base.path,
                format: base.format,
                access: Access::ReadOnly,
                durability: disk.durability,
                backing: Value::Null,
            };
            below.declare(line);
            Value::from(name)
        }
    };
    let layer = Layer {
        node: &top,
        path: &disk.path,
        format: disk.format,
        access: disk.access,
        durability: disk.durability,
        backing,
    };
    layer.declare(line);
    line.option(
        "-device",
        format!(
            "virtio-blk-pci,drive={top},serial={},bus=pcie.0,addr={:#x}",
            disk.serial,
            0x10 + index
        ),
    );
}

/// One image file: a node for the file and one for the format on top of it.
struct Layer<'a> {
    node: &'a str,
    path: &'a Path,
    format: DiskFormat,
    access: Access,
    durability: Durability,
    backing: Value,
}

impl Layer<'_> {
    fn declare(self, line: &mut CommandLine) {
        let read_only = self.access == Access::ReadOnly;
        let cache = json!({"direct": false, "no-flush": self.durability == Durability::Unsafe});
        let file = format!("{}-file", self.node);
        let mut lower = json!({
            "driver": "file",
            "node-name": file,
            "filename": self.path.to_string_lossy(),
            "read-only": read_only,
            "cache": cache,
        });
        let mut upper = json!({
            "driver": match self.format {
                DiskFormat::Qcow2 => "qcow2",
                DiskFormat::Raw => "raw",
            },
            "node-name": self.node,
            "file": file,
            "read-only": read_only,
            "cache": cache,
        });
        if self.format == DiskFormat::Qcow2 {
            // Always said, even when there is none: otherwise QEMU follows what the header names.
            upper["backing"] = self.backing;
        }
        if !read_only {
            // What the guest trims, and what it overwrites with zeroes, is given back to the host.
            lower["discard"] = "unmap".into();
            upper["discard"] = "unmap".into();
            upper["detect-zeroes"] = "unmap".into();
        }
        line.json("-blockdev", &lower);
        line.json("-blockdev", &upper);
    }
}

/// Digest of an argument vector, to tell later whether a machine was started the same way.
pub(super) fn digest(arguments: &[OsString]) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    let mut hasher = Sha256::new();
    for argument in arguments {
        hasher.update(argument.as_bytes());
        hasher.update([0]);
    }
    hasher
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests;
