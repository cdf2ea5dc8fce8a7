//! What a guest is told when it boots.
//!
//! The host writes [`BootConfig`] as JSON to [`CONFIG_PATH`] of an initramfs that it appends to the
//! image's own, for every boot anew. There is no cloud-init, no ISO and no second source of truth.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::mounts::GuestMount;

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

/// The socket of the guest's ssh server.
pub const SSH_SOCKET: &str = "/run/colima/sshd.sock";

/// The port on which the guest's ssh server listens as well, on the address of its interface, where the host
/// wants one ([`BootConfig::ssh_listen`]). It is none that a container would publish, nor one that the
/// kernel hands out.
pub const GUEST_SSH_PORT: u16 = 61_022;

/// The socket on which the agent serves the multiplexer where the host comes by ssh. It is for the user of
/// [`BootConfig::user`], who may become root anyway.
pub const AGENT_SOCKET: &str = "/run/colima/agent.sock";

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
    /// Where the ssh server listens besides [`SSH_SOCKET`].
    #[serde(default)]
    pub ssh_listen: SshListen,
    /// Address of the guest's network interface; nothing is asked of a DHCP server.
    pub network: Network,
    /// Which container runtime to start.
    pub runtime: Runtime,
    /// Text of the docker daemon's configuration.
    pub docker_daemon_json: String,
    /// Environment of login sessions and of the container runtime.
    pub env: BTreeMap<String, String>,
    /// Further names in `/etc/hosts`.
    #[serde(default)]
    pub hosts: BTreeMap<String, IpAddr>,
    /// Whom the guest trusts beyond what its image does.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// What docker shows to registries, and what it trusts in them.
    #[serde(default)]
    pub registry_files: Vec<RegistryFile>,
    /// Scripts to run, in the order of the configuration.
    #[serde(default)]
    pub provision: Vec<Provision>,
    /// Host directories, parents before what lies in them.
    #[serde(default)]
    pub mounts: Vec<GuestMount>,
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
            ssh_listen: SshListen::default(),
            network: Network::default(),
            runtime: Runtime::default(),
            docker_daemon_json: "{}".to_owned(),
            env: BTreeMap::new(),
            hosts: BTreeMap::new(),
            certificates: Vec::new(),
            registry_files: Vec::new(),
            provision: Vec::new(),
            mounts: Vec::new(),
            clock_unix_nanos: 0,
        }
    }
}

/// Where the guest's ssh server listens besides its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SshListen {
    /// Nowhere.
    #[default]
    Nowhere,
    /// On [`GUEST_SSH_PORT`] of the network interface.
    Port,
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
    /// containerd alone, for `ctr` and `nerdctl`.
    Containerd,
    /// No runtime: only the virtual machine.
    None,
}

impl Runtime {
    /// The word of `colima.yaml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::None => "none",
        }
    }
}

/// Certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// File name without directory and ending.
    pub name: String,
    /// PEM text (RFC 7468) of one or more.
    pub pem: String,
}

/// A file of `/etc/docker/certs.d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// The registry, as in the name of an image: host, and port where there is one.
    pub registry: String,
    /// File name: `*.crt` is trusted, `*.cert` and `*.key` are the client's own.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A script that the guest runs at every boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    /// When it runs, and as whom.
    pub mode: ProvisionMode,
    /// Its text. One that does not begin with `#!` is run by `/bin/sh`.
    pub script: String,
}

/// When a [`Provision`] runs, and as whom. The modes are Colima's, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProvisionMode {
    /// First of all, as root.
    Boot,
    /// As root, before everything that may need what it installs.
    Dependency,
    /// As root, before the container runtime starts.
    System,
    /// As the user, before the container runtime starts.
    User,
    /// As the user, after all of those and before the container runtime starts.
    AfterBoot,
    /// As the user, when containers can run.
    Ready,
}

impl ProvisionMode {
    /// Colima's words.
    pub const WORDS: &'static [&'static str] = &[
        "system",
        "user",
        "boot",
        "dependency",
        "after-boot",
        "ready",
    ];

    /// Colima's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Dependency => "dependency",
            Self::System => "system",
            Self::User => "user",
            Self::AfterBoot => "after-boot",
            Self::Ready => "ready",
        }
    }
}

/// A script that did not end well, as the guest tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionFailure {
    /// Its place in the configuration, from 1.
    pub number: u32,
    /// Its mode.
    pub mode: ProvisionMode,
    /// How it ended.
    pub why: String,
    /// The last lines that it printed.
    pub output: Vec<String>,
}

/// A word that is no [`ProvisionMode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no mode of a script: write {}", ProvisionMode::WORDS.join(", "))]
pub struct ParseProvisionModeError {
    /// The word that was given.
    pub word: String,
}

impl FromStr for ProvisionMode {
    type Err = ParseProvisionModeError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "boot" => Self::Boot,
            "dependency" => Self::Dependency,
            "system" => Self::System,
            "user" => Self::User,
            "after-boot" => Self::AfterBoot,
            "ready" => Self::Ready,
            _ => {
                return Err(ParseProvisionModeError {
                    word: word.to_owned(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_one_word() {
        for word in ProvisionMode::WORDS {
            let mode: ProvisionMode = word.parse().unwrap();
            assert_eq!(mode.as_str(), *word);
            assert_eq!(serde_json::json!(mode), *word);
        }
        assert!("System".parse::<ProvisionMode>().is_err());
    }

    #[test]
    fn an_older_document_lacks_what_came_later() {
        let mut old = serde_json::json!(BootConfig::new("colima", User::first("ada")));
        for newer in [
            "hosts",
            "provision",
            "ssh_listen",
            "certificates",
            "registry_files",
            "mounts",
        ] {
            old.as_object_mut().unwrap().remove(newer).unwrap();
        }
        let read: BootConfig = serde_json::from_value(old).unwrap();
        assert_eq!(read, BootConfig::new("colima", User::first("ada")));
    }
}
