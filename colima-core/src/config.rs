//! What a profile wants: flags, `colima.yaml` and defaults, merged with the origin of every value.
//!
//! Three layers say what they want as [`Settings`], in which nothing is mandatory. [`Config::merge`]
//! decides: a flag that was typed wins over the file, the file over the template, the template over the
//! default, and every value remembers its [`Origin`]. All limits are checked then, and all that are exceeded are reported at once.
//!
//! The file is Colima's. [`ConfigFile::parse`] reads the keys this version acts on, collects those it
//! knows but does not act on ([`ConfigFile::not_acted_on`]), and refuses keys that no Colima ever had. The
//! text belongs to the user: [`set_values`] and [`write_back`] change the values they are told to and
//! nothing else, neither comments nor order nor blank lines. [`schema`] tells editors what may stand in it.
//!
//! ```
//! use colima_core::{Bytes, config::{Config, ConfigFile, Layers, Origin, Settings}};
//!
//! let file = ConfigFile::parse("cpu: 4\nmemory: 2.5 # GiB\n")?.settings;
//! let flags = Settings { cpus: Some(6), ..Settings::default() };
//! let config = Config::merge(&Layers { flags, file, ..Layers::default() })?;
//!
//! assert_eq!((config.cpus.value, config.cpus.origin), (6, Origin::Flag));
//! assert_eq!((config.memory.value, config.memory.origin), (Bytes::mib(2560), Origin::File));
//! assert_eq!(config.disk.origin, Origin::Default);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod colima_yaml;
mod dns_hosts;
mod document;
mod edit;
mod explain;
mod known_keys;
mod limits;
mod mounts;
mod protect;
mod schema;
mod spelling;
mod template;

use std::{collections::BTreeMap, fmt, net::IpAddr};

pub use colima_yaml::{ConfigFile, NotActedOn, ParseConfigError, Problem};
pub use dns_hosts::{ResolvedHosts, resolve_hosts};
pub use edit::{EditConfigError, NewValue, set_values, write_back};
pub use explain::{Explained, explain};
pub use known_keys::Standing;
pub use limits::{InvalidConfig, Limit, Violation};
pub use mounts::{MountEntry, Mounts, ParseMountError};
pub use protect::Protect;
pub use schema::schema;
pub use template::TEMPLATE;

use crate::{
    Arch, Bytes,
    boot::{Provision, Runtime},
};

/// What one layer (the flags that were typed, `colima.yaml`, the template) says; `None` leaves it to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Memory of the virtual machine.
    pub memory: Option<Bytes>,
    /// Size of the disk for images, containers and volumes.
    pub disk: Option<Bytes>,
    /// Size of the disk for the guest's system.
    pub root_disk: Option<Bytes>,
    /// The guest's architecture.
    pub arch: Option<Arch>,
    /// Name of the container runtime, as written: limits decide whether it exists.
    pub runtime: Option<String>,
    /// Whether the docker context becomes the current one.
    pub auto_activate: Option<bool>,
    /// The guest's host name.
    pub hostname: Option<String>,
    /// Environment of the guest, name to value. Layers are merged name by name.
    pub env: BTreeMap<String, String>,
    /// Whether ports of the guest appear on the host.
    pub port_forwarder: Option<PortForwarder>,
    /// The host's addresses of ports for which none was asked.
    pub port_bind: Option<Vec<IpAddr>>,
    /// What becomes of the machine at a stop.
    pub stop_mode: Option<StopMode>,
    /// The user's part of the docker daemon's configuration.
    pub docker: Option<serde_json::Map<String, serde_json::Value>>,
    /// Mirrors of docker's registry. They replace those in [`Self::docker`] of the layers below.
    pub registry_mirrors: Option<Vec<String>>,
    /// Name servers of the guest.
    pub dns: Option<Vec<IpAddr>>,
    /// Names in the guest, each with an address or `host.lima.internal`.
    pub dns_hosts: Option<BTreeMap<String, String>>,
    /// Scripts that the guest runs at every boot.
    pub provision: Option<Vec<Provision>>,
    /// Directories of the host in the guest.
    pub mounts: Option<Mounts>,
    /// What of a shared home directory the guest may not change.
    pub protect: Option<Protect>,
    /// Whether sessions in the guest may use the host's ssh agent.
    pub forward_agent: Option<bool>,
    /// Whether the user's ssh configuration includes ours.
    pub ssh_config: Option<bool>,
    /// Port of the host that leads to the guest's ssh server, as written; 0 is none.
    pub ssh_port: Option<u32>,
    /// What carries streams between host and guest.
    pub transport: Option<Transport>,
    /// Files and directories of the host with certificates that the guest trusts.
    pub certificates: Option<Vec<String>>,
    /// Path of a nerdctl on the host, for the guest.
    pub nerdctl_path: Option<String>,
    /// SHA-256 of that file.
    pub nerdctl_digest: Option<String>,
}

/// The layers, topmost first. A new profile begins with the template as its file, so whoever has a file
/// leaves [`Self::template`] empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layers {
    /// Typed on the command line.
    pub flags: Settings,
    /// Written in `colima.yaml`.
    pub file: Settings,
    /// Written in the template of new profiles.
    pub template: Settings,
}

impl Layers {
    const fn topmost_first(&self) -> [(Origin, &Settings); 3] {
        [
            (Origin::Flag, &self.flags),
            (Origin::File, &self.file),
            (Origin::Template, &self.template),
        ]
    }
}

/// Whether ports of the guest appear on the host.
///
/// Colima's `ssh` and `grpc` are two ways of doing it; there is one here, which does what both do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortForwarder {
    /// They do.
    #[default]
    On,
    /// They do not.
    Off,
}

impl PortForwarder {
    /// How `colima.yaml` spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::On => "ssh",
            Self::Off => "none",
        }
    }
}

/// What carries streams between host and guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The best that there is.
    #[default]
    Auto,
    /// A virtio-serial port of the machine.
    Virtio,
    /// The guest's ssh server, at a port of the host's loopback.
    Ssh,
}

impl Transport {
    /// The words of `colima.yaml`.
    pub const WORDS: &'static [&'static str] = &["auto", "virtio", "ssh"];

    /// The word of `colima.yaml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Virtio => "virtio",
            Self::Ssh => "ssh",
        }
    }

    /// The transport of that word.
    pub(crate) fn of(word: &str) -> Option<Self> {
        [Self::Auto, Self::Virtio, Self::Ssh]
            .into_iter()
            .find(|transport| transport.as_str() == word)
    }
}

/// What becomes of the machine at a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopMode {
    /// Its memory is kept in a file, and the next start goes on from there.
    #[default]
    Suspend,
    /// It is powered off, and the next start boots it.
    Shutdown,
}

impl StopMode {
    /// How `colima.yaml` spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Typed on the command line.
    Flag,
    /// Written in `colima.yaml`.
    File,
    /// Written in the template of new profiles.
    Template,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::File => "colima.yaml",
            Self::Template => "template",
            Self::Default => "default",
        })
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// The layer that gave it.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// The topmost layer's value, else the default.
    fn choose(layers: &Layers, of: impl Fn(&Settings) -> Option<T>, default: T) -> Self {
        let said = layers
            .topmost_first()
            .into_iter()
            .find_map(|(origin, layer)| of(layer).map(|value| Self { value, origin }));
        said.unwrap_or(Self {
            value: default,
            origin: Origin::Default,
        })
    }
}

/// What a profile wants, complete and within its limits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Virtual processors; 2 unless said otherwise.
    pub cpus: Setting<u32>,
    /// Memory of the virtual machine; 2 GiB unless said otherwise.
    pub memory: Setting<Bytes>,
    /// Size of the disk for images, containers and volumes; 100 GiB unless said otherwise.
    pub disk: Setting<Bytes>,
    /// Size of the disk for the guest's system; 20 GiB unless said otherwise.
    pub root_disk: Setting<Bytes>,
    /// The guest's architecture; `None` is the host's.
    pub arch: Setting<Option<Arch>>,
    /// The container runtime; docker unless said otherwise.
    pub runtime: Setting<Runtime>,
    /// Whether the docker context becomes the current one; true unless said otherwise.
    pub auto_activate: Setting<bool>,
    /// The guest's host name; `None` follows the profile's name.
    pub hostname: Setting<Option<String>>,
    /// Whether ports of the guest appear on the host; they do unless said otherwise.
    pub port_forwarder: Setting<PortForwarder>,
    /// The host's addresses of ports for which none was asked; empty for 127.0.0.1 and ::1.
    pub port_bind: Setting<Vec<IpAddr>>,
    /// What becomes of the machine at a stop; it is suspended unless said otherwise.
    pub stop_mode: Setting<StopMode>,
    /// Environment of the guest, each name with its own origin.
    pub env: BTreeMap<String, Setting<String>>,
    /// The user's part of the docker daemon's configuration.
    pub docker: Setting<serde_json::Map<String, serde_json::Value>>,
    /// Name servers of the guest; empty leaves them to the network.
    pub dns: Setting<Vec<IpAddr>>,
    /// Names in the guest, each with an address or `host.lima.internal`.
    pub dns_hosts: Setting<BTreeMap<String, String>>,
    /// Scripts that the guest runs at every boot.
    pub provision: Setting<Vec<Provision>>,
    /// Directories of the host in the guest.
    pub mounts: Setting<Mounts>,
    /// What of a shared home directory the guest may not change.
    pub protect: Setting<Protect>,
    /// Whether sessions in the guest may use the host's ssh agent; false unless said otherwise.
    pub forward_agent: Setting<bool>,
    /// Whether the user's ssh configuration includes ours; false unless said otherwise: the file is the user's.
    pub ssh_config: Setting<bool>,
    /// Port of the host's loopback that leads to the guest's ssh server; `None` unless said otherwise.
    pub ssh_port: Setting<Option<u16>>,
    /// What carries streams between host and guest; the best that there is unless said otherwise.
    pub transport: Setting<Transport>,
    /// Files and directories of the host with certificates that the guest trusts.
    pub certificates: Setting<Vec<String>>,
    /// The nerdctl that the guest is given; none unless said otherwise.
    pub nerdctl: Setting<Option<Nerdctl>>,
}

/// A nerdctl of the user's: the image has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nerdctl {
    /// Absolute path on the host.
    pub path: String,
    /// The SHA-256 that the file has to have, in hexadecimal digits.
    pub digest: String,
}

impl Default for Config {
    /// What a profile gets that wants nothing.
    fn default() -> Self {
        Self::choose(&Layers::default(), Runtime::default())
    }
}

impl Config {
    /// Merges the layers, and checks every limit.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with everything that is out of its limits, not only the first.
    pub fn merge(layers: &Layers) -> Result<Self, InvalidConfig> {
        let mut violations = Vec::new();
        let word = Setting::choose(layers, |layer| layer.runtime.clone(), "docker".to_owned());
        let runtime = limits::runtime(&word, &mut violations);
        limits::ssh_port(
            &Setting::choose(layers, |layer| layer.ssh_port, 0),
            &mut violations,
        );
        let config = Self::choose(layers, runtime);
        limits::check(&config, &mut violations);
        if violations.is_empty() {
            Ok(config)
        } else {
            Err(InvalidConfig { violations })
        }
    }

    /// Merges the layers unchecked; `runtime` is what their word for it means.
    fn choose(layers: &Layers, runtime: Runtime) -> Self {
        let runtime = Setting {
            value: runtime,
            origin: Setting::choose(layers, |layer| layer.runtime.clone(), String::new()).origin,
        };
        let mut docker =
            Setting::choose(layers, |layer| layer.docker.clone(), serde_json::Map::new());
        let mirrors = Setting::choose(layers, |layer| layer.registry_mirrors.clone(), Vec::new());
        if mirrors.origin != Origin::Default {
            docker
                .value
                .insert("registry-mirrors".to_owned(), mirrors.value.into());
            docker.origin = mirrors.origin;
        }
        Self {
            cpus: Setting::choose(layers, |layer| layer.cpus, 2),
            memory: Setting::choose(layers, |layer| layer.memory, Bytes::gib(2)),
            disk: Setting::choose(layers, |layer| layer.disk, Bytes::gib(100)),
            root_disk: Setting::choose(layers, |layer| layer.root_disk, Bytes::gib(20)),
            arch: Setting::choose(layers, |layer| layer.arch.map(Some), None),
            runtime,
            auto_activate: Setting::choose(layers, |layer| layer.auto_activate, true),
            hostname: Setting::choose(layers, |layer| layer.hostname.clone().map(Some), None),
            port_forwarder: Setting::choose(
                layers,
                |layer| layer.port_forwarder,
                PortForwarder::default(),
            ),
            port_bind: Setting::choose(layers, |layer| layer.port_bind.clone(), Vec::new()),
            stop_mode: Setting::choose(layers, |layer| layer.stop_mode, StopMode::default()),
            env: merge_env(layers),
            docker,
            dns: Setting::choose(layers, |layer| layer.dns.clone(), Vec::new()),
            dns_hosts: Setting::choose(layers, |layer| layer.dns_hosts.clone(), BTreeMap::new()),
            provision: Setting::choose(layers, |layer| layer.provision.clone(), Vec::new()),
            mounts: Setting::choose(layers, |layer| layer.mounts.clone(), Mounts::default()),
            protect: Setting::choose(layers, |layer| layer.protect.clone(), Protect::default()),
            forward_agent: Setting::choose(layers, |layer| layer.forward_agent, false),
            ssh_config: Setting::choose(layers, |layer| layer.ssh_config, false),
            ssh_port: Setting::choose(
                layers,
                |layer| Some(u16::try_from(layer.ssh_port?).ok().filter(|&port| port > 0)),
                None,
            ),
            transport: Setting::choose(layers, |layer| layer.transport, Transport::default()),
            certificates: Setting::choose(layers, |layer| layer.certificates.clone(), Vec::new()),
            nerdctl: Setting::choose(
                layers,
                |layer| {
                    let (path, digest) = (&layer.nerdctl_path, &layer.nerdctl_digest);
                    let said = path.is_some() || digest.is_some();
                    said.then(|| {
                        Some(Nerdctl {
                            path: path.clone().unwrap_or_default(),
                            digest: digest.clone().unwrap_or_default(),
                        })
                    })
                },
                None,
            ),
        }
    }

    /// The environment without the origins.
    #[must_use]
    pub fn plain_env(&self) -> BTreeMap<String, String> {
        self.env
            .iter()
            .map(|(name, setting)| (name.clone(), setting.value.clone()))
            .collect()
    }
}

fn merge_env(layers: &Layers) -> BTreeMap<String, Setting<String>> {
    // A later entry of the same name replaces the earlier one.
    let lowest_first = layers.topmost_first().into_iter().rev();
    lowest_first
        .flat_map(|(origin, layer)| {
            let env = layer.env.clone();
            env.into_iter()
                .map(move |(name, value)| (name, Setting { value, origin }))
        })
        .collect()
}
