//! What a configuration may not exceed.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{Config, Nerdctl, Origin, Setting};
use crate::{Arch, Bytes, boot::Runtime};

/// The most processors that the machine type can have.
const MOST_CPUS: u32 = 255;
/// Below this the guest's kernel and docker do not fit.
const LEAST_MEMORY: Bytes = Bytes::mib(512);
const LEAST_DISK: Bytes = Bytes::gib(1);
/// The guest's system has to fit, with room for what people install.
const LEAST_ROOT_DISK: Bytes = Bytes::gib(3);
/// ext4 with 4 KiB blocks ends here.
const LARGEST_DISK: Bytes = Bytes::gib(16 << 10);
/// RFC 1035, section 2.3.4; Linux itself allows 64.
const LONGEST_HOST_NAME: usize = 63;
/// RFC 1035, section 2.3.4, without the root's dot.
const LONGEST_DOMAIN_NAME: usize = 253;

/// One value that is out of its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The key in `colima.yaml`.
    pub key: &'static str,
    /// The value as a person would write it.
    pub value: String,
    /// The layer that asked for it.
    pub origin: Origin,
    /// The limit, and the figure that would do.
    pub limit: Limit,
}

/// The limit that a [`Violation`] exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The value is below this.
    AtLeast(String),
    /// The value is above this.
    AtMost(String),
    /// The value is not of this form.
    Form(&'static str),
    /// Colima has it; this program does not yet.
    NotYet(&'static str),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value, self.origin)?;
        match &self.limit {
            Limit::AtLeast(least) => write!(f, ": use at least {least}"),
            Limit::AtMost(most) => write!(f, ": use at most {most}"),
            Limit::Form(form) => write!(f, ": {form}"),
            Limit::NotYet(instead) => write!(f, " is not available yet: {instead}"),
        }
    }
}

/// The configuration asks for something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used: {}", list(.violations))]
pub struct InvalidConfig {
    /// Everything that is wrong, in the order of the keys.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// The runtime of that name; where there is none, a violation is noted.
pub(super) fn runtime(name: &Setting<String>, violations: &mut Vec<Violation>) -> Runtime {
    let limit = match name.value.as_str() {
        "docker" => return Runtime::Docker,
        "containerd" => return Runtime::Containerd,
        "none" => return Runtime::None,
        "incus" => Limit::NotYet("use docker, containerd or none"),
        _ => Limit::Form("use docker, containerd or none"),
    };
    violations.push(Violation {
        key: "runtime",
        value: name.value.clone(),
        origin: name.origin,
        limit,
    });
    Runtime::default()
}

/// Notes a port that cannot be one.
pub(super) fn ssh_port(port: &Setting<u32>, violations: &mut Vec<Violation>) {
    if u16::try_from(port.value).is_err() {
        violations.push(Violation {
            key: "sshPort",
            value: port.value.to_string(),
            origin: port.origin,
            limit: Limit::AtMost(u16::MAX.to_string()),
        });
    }
}

/// Notes everything that is out of its limits.
pub(super) fn check(config: &Config, violations: &mut Vec<Violation>) {
    let mut range = |key, value: String, origin, limit: Option<Limit>| {
        if let Some(limit) = limit {
            violations.push(Violation {
                key,
                value,
                origin,
                limit,
            });
        }
    };

    let cpus = &config.cpus;
    let limit = between(cpus.value, 1, MOST_CPUS);
    range("cpu", cpus.value.to_string(), cpus.origin, limit);

    let memory = &config.memory;
    let limit = between(memory.value, LEAST_MEMORY, LARGEST_DISK);
    range("memory", memory.value.to_string(), memory.origin, limit);

    let disk = &config.disk;
    let limit = between(disk.value, LEAST_DISK, LARGEST_DISK);
    range("disk", disk.value.to_string(), disk.origin, limit);

    let root = &config.root_disk;
    let limit = between(root.value, LEAST_ROOT_DISK, LARGEST_DISK);
    range("rootDisk", root.value.to_string(), root.origin, limit);

    if let Some(arch) = config.arch.value
        && Arch::host().is_some_and(|host| host != arch)
    {
        let limit = Limit::NotYet("leave the key out to get the host's architecture");
        range("arch", arch.to_string(), config.arch.origin, Some(limit));
    }

    if let Some(name) = &config.hostname.value
        && !is_host_name(name)
    {
        let form = "use 1 to 63 of a-z A-Z 0-9 -, beginning and ending with a letter or digit";
        range(
            "hostname",
            format!("{name:?}"),
            config.hostname.origin,
            Some(Limit::Form(form)),
        );
    }

    for (name, setting) in &config.env {
        if !is_variable_name(name) {
            let form = "the name of a variable takes a-z A-Z 0-9 _ and does not begin with a digit";
            range(
                "env",
                format!("{name:?}"),
                setting.origin,
                Some(Limit::Form(form)),
            );
        } else if setting.value.contains(['\n', '\0']) {
            let form = "the value of a variable is one line";
            range("env", name.clone(), setting.origin, Some(Limit::Form(form)));
        }
    }
    check_hosts(&config.dns_hosts, violations);
    check_nerdctl(&config.nerdctl, violations);
    let relative = |path: &&String| !path.starts_with('/');
    for path in config.certificates.value.iter().filter(relative) {
        violations.push(Violation {
            key: "certificates",
            value: format!("{path:?}"),
            origin: config.certificates.origin,
            limit: Limit::Form("use the absolute path of a file or directory of this host"),
        });
    }
}

/// A program for the guest is named by where it is and what it is; neither alone will do.
fn check_nerdctl(nerdctl: &Setting<Option<Nerdctl>>, violations: &mut Vec<Violation>) {
    let Some(Nerdctl { path, digest }) = &nerdctl.value else {
        return;
    };
    let mut refuse = |key, value: &str, form| {
        violations.push(Violation {
            key,
            value: format!("{value:?}"),
            origin: nerdctl.origin,
            limit: Limit::Form(form),
        });
    };
    if !path.starts_with('/') {
        refuse(
            "nerdctl.path",
            path,
            "use the absolute path of a file of this host",
        );
    }
    if digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()) {
        let form = "use the SHA-256 of the file, 64 hexadecimal digits, as sha256sum prints it";
        refuse("nerdctl.digest", digest, form);
    }
}

/// Notes names that `/etc/hosts` cannot carry.
fn check_hosts(hosts: &Setting<BTreeMap<String, String>>, violations: &mut Vec<Violation>) {
    let dotted = |name: &str| name.len() <= LONGEST_DOMAIN_NAME && name.split('.').all(is_label);
    for (name, target) in &hosts.value {
        if !dotted(name) || !(target.parse::<IpAddr>().is_ok() || dotted(target)) {
            violations.push(Violation {
                key: "network.dnsHosts",
                value: format!("{name:?}: {target:?}"),
                origin: hosts.origin,
                limit: Limit::Form("use a host name, and an address or host.lima.internal"),
            });
        }
    }
}

/// A part of a name between dots. `_` is in no host name and in many DNS names.
fn is_label(label: &str) -> bool {
    (1..=LONGEST_HOST_NAME).contains(&label.len())
        && label.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && label
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn between<T: Copy + PartialOrd + fmt::Display>(value: T, least: T, most: T) -> Option<Limit> {
    if value < least {
        Some(Limit::AtLeast(least.to_string()))
    } else if value > most {
        Some(Limit::AtMost(most.to_string()))
    } else {
        None
    }
}

fn is_host_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=LONGEST_HOST_NAME).contains(&name.len())
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-')
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
