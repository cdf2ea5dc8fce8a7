//! The flags that say what a machine is to be: one layer of settings.

use std::{collections::BTreeMap, net::IpAddr};

use clap::{Args, ValueEnum};
use colima_core::{
    Bytes,
    config::{PortForwarder, Settings, Transport},
};

/// What a machine is to be.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
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
    /// Environment variable of the machine; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, help_heading = "Runtime")]
    pub env: Vec<(String, String)>,
    /// Host name of the machine [default: follows the profile]
    #[arg(long, value_name = "NAME", help_heading = "Runtime")]
    pub hostname: Option<String>,

    /// Name server of the machine; repeatable
    #[arg(short = 'n', long, value_name = "ADDRESS", help_heading = "Network")]
    dns: Vec<IpAddr>,
    /// Name in the machine, with an address or host.lima.internal; repeatable
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = named, help_heading = "Network")]
    dns_host: Vec<(String, String)>,
    /// Whether ports of containers appear on the host: ssh and grpc mean that they do [default: ssh]
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        hide_possible_values = true,
        help_heading = "Network"
    )]
    port_forwarder: Option<PortForwarderArg>,
    /// Mirror of docker's registry; repeatable
    #[arg(long, value_name = "URL", help_heading = "Runtime")]
    registry_mirror: Vec<String>,
    /// Let sessions in the machine use the ssh agent [default: false]
    #[arg(
        short = 's', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "ssh"
    )]
    ssh_agent: Option<bool>,
    /// Name the machine in ~/.ssh/config [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "ssh"
    )]
    ssh_config: Option<bool>,
    /// Port of 127.0.0.1 that leads to the machine's ssh server; 0 is none [default: 0]
    #[arg(long, value_name = "PORT", help_heading = "ssh")]
    ssh_port: Option<u32>,
    /// What carries streams between host and machine [default: auto, which is virtio]
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        hide_possible_values = true,
        help_heading = "Advanced"
    )]
    transport: Option<TransportArg>,
    /// The guest's architecture: host, x86_64 or aarch64
    #[arg(short, long, hide = true, value_parser = ["host", "x86_64", "amd64", "aarch64", "arm64"])]
    arch: Option<String>,
}

/// A container runtime that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeArg {
    /// docker, with its own containerd
    Docker,
    /// containerd alone, for ctr and nerdctl
    Containerd,
    /// only the machine
    None,
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

/// A transport that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TransportArg {
    /// the best that there is
    Auto,
    /// a virtio-serial port
    Virtio,
    /// the machine's ssh server
    Ssh,
}

impl TransportArg {
    const fn setting(self) -> Transport {
        match self {
            Self::Auto => Transport::Auto,
            Self::Virtio => Transport::Virtio,
            Self::Ssh => Transport::Ssh,
        }
    }
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

impl SettingsArgs {
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
            stop_mode: None,
            docker: None,
            registry_mirrors: typed(&self.registry_mirror),
            dns: typed(&self.dns),
            dns_hosts: typed(&self.dns_host).map(BTreeMap::from_iter),
            provision: None,
            mounts: None,
            protect: None,
            forward_agent: self.ssh_agent,
            ssh_config: self.ssh_config,
            ssh_port: self.ssh_port,
            transport: self.transport.map(TransportArg::setting),
            certificates: None,
            nerdctl_path: None,
            nerdctl_digest: None,
        }
    }
}

/// A list that was typed; an empty one was not.
fn typed<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    named(text).map_err(|_| "write NAME=VALUE")
}

fn named(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=ADDRESS"),
    }
}
