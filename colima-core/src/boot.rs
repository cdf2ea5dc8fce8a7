//! What a guest is told when it boots.
//!
//! The host writes [`BootConfig`] as JSON to [`CONFIG_PATH`] of an initramfs that it appends to the
//! image's own, for every boot anew. There is no cloud-init, no ISO and no second source of truth.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

/// Where the initramfs holds the configuration, and where `init` copies it for the agent (under
/// `/run` of the booted system).
pub const CONFIG_PATH: &str = "/colima/boot.json";

/// The path of the guest program in the initramfs and, copied by `init`, in the booted system.
pub const GUEST_PROGRAM: &str = "/run/colima/colima-guest";

/// `serial` of the virtio disk that holds the root file system.
pub const ROOT_DISK_SERIAL: &str = "colima-root";

/// `serial` of the virtio disk that holds what survives: images, containers, volumes.
pub const DATA_DISK_SERIAL: &str = "colima-data";

/// Where the data disk is mounted in the guest.
pub const DATA_MOUNT: &str = "/mnt/colima-data";

/// Name of the virtio-serial port that carries the multiplexer.
pub const MUX_PORT_NAME: &str = "colima.0";

/// The socket of the guest's ssh server; there is no TCP port.
pub const SSH_SOCKET: &str = "/run/colima/sshd.sock";

/// Everything a guest learns at boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Version of this document; the guest refuses one it does not know.
    pub version: u32,
    /// Host name of the guest.
    pub host_name: String,
    /// The host's user, mirrored in the guest.
    pub user: User,
    /// Private host key of the guest's ssh server, OpenSSH format; without one nobody can log in. Made
    /// on the host, so that the host can pin it.
    pub ssh_host_key: String,
    /// Public keys that may log in as `user`, one line each.
    pub ssh_authorized_keys: Vec<String>,
    /// Address of the guest's network interface; nothing is asked of a DHCP server.
    pub network: Network,
    /// Which container runtime to start.
    pub runtime: Runtime,
    /// Text of the docker daemon's configuration.
    pub docker_daemon_json: String,
    /// Environment of login sessions and of the container runtime.
    pub env: BTreeMap<String, String>,
    /// The host's clock when the configuration was written, nanoseconds since the Unix epoch; 0 leaves
    /// the guest's clock as the machine sets it.
    pub clock_unix_nanos: u64,
}

impl BootConfig {
    /// The version this program writes.
    pub const VERSION: u32 = 1;

    /// A guest with docker and nothing else: no keys for ssh, no environment, QEMU's own network.
    #[must_use]
    pub fn new(host_name: impl Into<String>, user: User) -> Self {
        Self {
            version: Self::VERSION,
            host_name: host_name.into(),
            user,
            ssh_host_key: String::new(),
            ssh_authorized_keys: Vec::new(),
            network: Network::default(),
            runtime: Runtime::default(),
            docker_daemon_json: "{}".to_owned(),
            env: BTreeMap::new(),
            clock_unix_nanos: 0,
        }
    }
}

/// The guest's one network interface, configured before systemd starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Address of the interface.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits, at most 32.
    pub prefix: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Name servers, written to `/etc/resolv.conf`.
    pub dns: Vec<IpAddr>,
}

impl Default for Network {
    /// What QEMU's user network hands out when nobody configures it.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3))],
        }
    }
}

/// A user account of the guest, with the name and number of the host's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name, already made valid for a guest.
    pub name: String,
    /// User number, at least 1; a host user who is root becomes an ordinary user of the guest.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Home directory in the guest.
    pub home: String,
}

impl User {
    /// The first ordinary user of a Debian system: number 1000, at home in `/home/NAME`.
    #[must_use]
    pub fn first(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            uid: 1000,
            gid: 1000,
            home: format!("/home/{name}"),
            name,
        }
    }
}

/// A container runtime of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Runtime {
    /// dockerd with its own containerd.
    #[default]
    Docker,
    /// No runtime: only the virtual machine.
    None,
}
