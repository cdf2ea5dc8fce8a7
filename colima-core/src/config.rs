//! What a profile wants: flags, `colima.yaml` and defaults, merged with the origin of every value.
//!
//! Three layers say what they want as [`Settings`], in which nothing is mandatory. [`Config::merge`]
//! decides: a flag that was typed wins over the file, the file wins over the default, and every value
//! remembers its [`Origin`]. All limits are checked then, and all that are exceeded are reported at once.
//!
//! The file is Colima's. [`ConfigFile::parse`] reads the keys this version acts on, collects those it
//! knows but does not act on ([`ConfigFile::not_acted_on`]), and refuses keys that no Colima ever had. The
//! text belongs to the user: [`set_scalars`] and [`write_back`] change the values they are told to and
//! nothing else, neither comments nor order nor blank lines.
//!
//! ```
//! use colima_core::{Bytes, config::{Config, ConfigFile, Origin, Settings}};
//!
//! let file = ConfigFile::parse("cpu: 4\nmemory: 2.5 # GiB\n")?;
//! let flags = Settings { cpus: Some(6), ..Settings::default() };
//! let config = Config::merge(&flags, &file.settings)?;
//!
//! assert_eq!((config.cpus.value, config.cpus.origin), (6, Origin::Flag));
//! assert_eq!((config.memory.value, config.memory.origin), (Bytes::mib(2560), Origin::File));
//! assert_eq!(config.disk.origin, Origin::Default);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod colima_yaml;
mod document;
mod edit;
mod known_keys;
mod limits;
mod template;

use std::{collections::BTreeMap, fmt, net::IpAddr};

pub use colima_yaml::{ConfigFile, NotActedOn, ParseConfigError, Problem};
pub use edit::{EditConfigError, Scalar, set_scalars, write_back};
pub use known_keys::Standing;
pub use limits::{InvalidConfig, Limit, Violation};
pub use template::TEMPLATE;

use crate::{Arch, Bytes, boot::Runtime};

/// What one layer (the flags that were typed, or `colima.yaml`) says; `None` leaves it to the next.
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
    /// The user's part of the docker daemon's configuration.
    pub docker: Option<serde_json::Map<String, serde_json::Value>>,
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

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Typed on the command line.
    Flag,
    /// Written in `colima.yaml`.
    File,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::File => "colima.yaml",
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

impl<T: Clone> Setting<T> {
    fn choose(flag: Option<&T>, file: Option<&T>, default: T) -> Self {
        match (flag, file) {
            (Some(value), _) => Self {
                value: value.clone(),
                origin: Origin::Flag,
            },
            (None, Some(value)) => Self {
                value: value.clone(),
                origin: Origin::File,
            },
            (None, None) => Self {
                value: default,
                origin: Origin::Default,
            },
        }
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
    /// Environment of the guest, each name with its own origin.
    pub env: BTreeMap<String, Setting<String>>,
    /// The user's part of the docker daemon's configuration.
    pub docker: serde_json::Map<String, serde_json::Value>,
}

impl Config {
    /// Merges flags over file over defaults, and checks every limit.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with everything that is out of its limits, not only the first.
    pub fn merge(flags: &Settings, file: &Settings) -> Result<Self, InvalidConfig> {
        let mut violations = Vec::new();
        let runtime = Setting::choose(
            flags.runtime.as_ref(),
            file.runtime.as_ref(),
            "docker".to_owned(),
        );
        let runtime = Setting {
            value: limits::runtime(&runtime, &mut violations),
            origin: runtime.origin,
        };
        let optional = |flag: &Option<Arch>, file: &Option<Arch>| {
            Setting::choose(flag.map(Some).as_ref(), file.map(Some).as_ref(), None)
        };
        let config = Self {
            cpus: Setting::choose(flags.cpus.as_ref(), file.cpus.as_ref(), 2),
            memory: Setting::choose(flags.memory.as_ref(), file.memory.as_ref(), Bytes::gib(2)),
            disk: Setting::choose(flags.disk.as_ref(), file.disk.as_ref(), Bytes::gib(100)),
            root_disk: Setting::choose(
                flags.root_disk.as_ref(),
                file.root_disk.as_ref(),
                Bytes::gib(20),
            ),
            arch: optional(&flags.arch, &file.arch),
            runtime,
            auto_activate: Setting::choose(
                flags.auto_activate.as_ref(),
                file.auto_activate.as_ref(),
                true,
            ),
            hostname: Setting::choose(
                flags.hostname.clone().map(Some).as_ref(),
                file.hostname.clone().map(Some).as_ref(),
                None,
            ),
            port_forwarder: Setting::choose(
                flags.port_forwarder.as_ref(),
                file.port_forwarder.as_ref(),
                PortForwarder::default(),
            ),
            port_bind: Setting::choose(
                flags.port_bind.as_ref(),
                file.port_bind.as_ref(),
                Vec::new(),
            ),
            env: merge_env(&flags.env, &file.env),
            docker: flags
                .docker
                .as_ref()
                .or(file.docker.as_ref())
                .cloned()
                .unwrap_or_default(),
        };
        limits::check(&config, &mut violations);
        if violations.is_empty() {
            Ok(config)
        } else {
            Err(InvalidConfig { violations })
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

fn merge_env(
    flags: &BTreeMap<String, String>,
    file: &BTreeMap<String, String>,
) -> BTreeMap<String, Setting<String>> {
    let layer = |env: &BTreeMap<String, String>, origin| {
        let env = env.clone();
        env.into_iter()
            .map(move |(name, value)| (name, Setting { value, origin }))
    };
    // A later entry of the same name replaces the earlier one.
    layer(file, Origin::File)
        .chain(layer(flags, Origin::Flag))
        .collect()
}
