//! `start`: the long table of flags, and what they say as one layer of settings.

use clap::{Args, ValueEnum};
use colima_core::{
    Bytes,
    config::{PortForwarder, Settings, Standing},
};

use super::{
    ProfileArg,
    legacy::{LegacyFlag, LegacyFlags},
};
use crate::environment::Environment;

/// `colima start`
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:
  colima start                            with what colima.yaml says, or the defaults
  colima start --cpus 4 --memory 8        more processors and memory, also for later starts
  colima start work --disk 200GiB         another profile, with a larger disk
  colima start --runtime none             a machine without container runtime",
    after_help = "A flag wins over colima.yaml and is written back to it. Sizes without a unit count GiB."
)]
pub struct StartArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,

    /// Processors of the machine [default: 2]
    #[arg(
        short,
        long,
        alias = "cpu",
        value_name = "COUNT",
        help_heading = "Resources"
    )]
    pub cpus: Option<u32>,
    /// Memory of the machine, such as 4, 2.5 or 512MiB [default: 2]
    #[arg(short, long, value_name = "SIZE", help_heading = "Resources")]
    pub memory: Option<Bytes>,
    /// Disk for images, containers and volumes; it can grow, not shrink [default: 100]
    #[arg(short, long, value_name = "SIZE", help_heading = "Resources")]
    pub disk: Option<Bytes>,
    /// Disk for the machine's system [default: 20]
    #[arg(long, value_name = "SIZE", help_heading = "Resources")]
    pub root_disk: Option<Bytes>,

    /// Container runtime [default: docker]
    #[arg(short, long, value_enum, value_name = "NAME", help_heading = "Runtime")]
    pub runtime: Option<RuntimeArg>,
    /// Make the profile the current docker context [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Runtime"
    )]
    pub activate: Option<bool>,
    /// Environment variable of the machine, for this run; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, help_heading = "Runtime")]
    pub env: Vec<(String, String)>,
    /// Host name of the machine [default: follows the profile]
    #[arg(long, value_name = "NAME", help_heading = "Runtime")]
    pub hostname: Option<String>,

    /// Host directory to share; only `none` is available yet
    #[arg(
        short = 'V',
        long,
        value_name = "PATH[:MOUNT][:w]|none",
        help_heading = "Mounts"
    )]
    pub mount: Vec<MountArg>,

    /// Whether ports of containers appear on the host: ssh and grpc mean that they do [default: ssh]
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        hide_possible_values = true,
        help_heading = "Network"
    )]
    pub port_forwarder: Option<PortForwarderArg>,

    /// Stay in the foreground until interrupted, then stop the machine
    #[arg(short, long, help_heading = "Advanced")]
    pub foreground: bool,

    /// The guest's architecture: host, x86_64 or aarch64
    #[arg(short, long, hide = true, value_parser = ["host", "x86_64", "amd64", "aarch64", "arm64"])]
    arch: Option<String>,
    /// Whether flags are written back to colima.yaml
    #[arg(
        long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL"
    )]
    save_config: Option<bool>,
    #[command(flatten)]
    legacy: LegacyFlags,
}

/// A container runtime that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeArg {
    /// docker, with its own containerd
    Docker,
    /// only the machine
    None,
    /// not available yet
    #[value(hide = true)]
    Containerd,
    /// not available yet
    #[value(hide = true)]
    Incus,
}

/// A port forwarder that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PortForwarderArg {
    /// ports appear on the host
    Ssh,
    /// the same
    Grpc,
    /// they do not
    None,
}

impl PortForwarderArg {
    const fn setting(self) -> PortForwarder {
        match self {
            Self::Ssh | Self::Grpc => PortForwarder::On,
            Self::None => PortForwarder::Off,
        }
    }
}

impl RuntimeArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::None => "none",
            Self::Containerd => "containerd",
            Self::Incus => "incus",
        }
    }
}

/// Whether the docker context becomes the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It does.
    Activate,
    /// The current context stays.
    Leave,
}

impl From<bool> for Activation {
    fn from(activate: bool) -> Self {
        if activate {
            Self::Activate
        } else {
            Self::Leave
        }
    }
}

/// A value of `--mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountArg {
    /// No host directory is shared.
    None,
    /// A directory, which cannot be shared yet.
    NotYet(String),
}

impl std::str::FromStr for MountArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            path => Self::NotYet(path.to_owned()),
        })
    }
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}

impl StartArgs {
    /// What was typed, as the topmost layer of settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            root_disk: self.root_disk,
            arch: self.arch.as_deref().and_then(|arch| arch.parse().ok()),
            runtime: self.runtime.map(|runtime| runtime.as_str().to_owned()),
            auto_activate: self.activate,
            hostname: self.hostname.clone(),
            env: self.env.iter().cloned().collect(),
            port_forwarder: self.port_forwarder.map(PortForwarderArg::setting),
            port_bind: None,
            docker: None,
        }
    }

    /// Whether what was typed is to be written back to `colima.yaml`.
    #[must_use]
    pub fn saves_config(&self, environment: &Environment) -> bool {
        self.save_config.or(environment.save_config).unwrap_or(true)
    }

    /// The flags of Colima's that were typed and have no effect, to be answered with one line each.
    #[must_use]
    pub fn without_effect(&self) -> Vec<LegacyFlag> {
        let mut flags = self.legacy.typed.clone();
        if self.mount.iter().any(|mount| *mount != MountArg::None) {
            flags.push(LegacyFlag {
                flag: "--mount",
                standing: Standing::NotYet,
            });
        }
        flags
    }
}
