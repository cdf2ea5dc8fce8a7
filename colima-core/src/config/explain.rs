//! Every key with the value that is in force and where it came from.

use serde_json::{Value, json};

use super::{
    Config, ConfigFile, Nerdctl, Origin, Standing,
    known_keys::{Role, leaves},
};

/// One key of `colima.yaml`, explained.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The key, with dots between levels.
    pub key: String,
    /// The value, as it could stand in the file.
    pub value: Value,
    /// The layer that gave it.
    pub origin: Origin,
    /// Why the key has no effect; `None` where it has.
    pub standing: Option<Standing>,
}

/// Explains every key that a released Colima has, in the order of their names.
///
/// `file` and `template` are what [`Config::merge`] was given; only the keys without effect are taken from there.
#[must_use]
pub fn explain(config: &Config, file: &ConfigFile, template: &ConfigFile) -> Vec<Explained> {
    let mut explained = Vec::new();
    for (key, found) in leaves() {
        match found.role {
            Role::Known(standing, _, default) => {
                explained.push(without_effect(
                    key,
                    standing,
                    default.to_json(),
                    file,
                    template,
                ));
            }
            Role::Acted(..) | Role::Items(_) | Role::Section(_) => {
                explained.extend(in_effect(&key, config));
            }
        }
    }
    explained
}

fn without_effect(
    key: String,
    standing: Standing,
    default: Value,
    file: &ConfigFile,
    template: &ConfigFile,
) -> Explained {
    let (value, origin) = match (file.others.get(&key), template.others.get(&key)) {
        (Some(value), _) => (value.clone(), Origin::File),
        (None, Some(value)) => (value.clone(), Origin::Template),
        (None, None) => (default, Origin::Default),
    };
    Explained {
        key,
        value,
        origin,
        standing: Some(standing),
    }
}

/// A key that is acted on; each variable of the environment is one.
fn in_effect(key: &str, config: &Config) -> Vec<Explained> {
    let explained = |key: &str, value: Value, origin| Explained {
        key: key.to_owned(),
        value,
        origin,
        standing: None,
    };
    if key == "env" && !config.env.is_empty() {
        let variables = config.env.iter();
        return variables
            .map(|(name, setting)| {
                explained(&format!("env.{name}"), json!(setting.value), setting.origin)
            })
            .collect();
    }
    let (value, origin) = value_of(key, config);
    vec![explained(key, value, origin)]
}

fn value_of(key: &str, config: &Config) -> (Value, Origin) {
    match key {
        "certificates" => (json!(config.certificates.value), config.certificates.origin),
        "cpu" => (json!(config.cpus.value), config.cpus.origin),
        "memory" => (json!(config.memory.value.exact()), config.memory.origin),
        "disk" => (json!(config.disk.value.exact()), config.disk.origin),
        "rootDisk" => (
            json!(config.root_disk.value.exact()),
            config.root_disk.origin,
        ),
        "arch" => (
            json!(config.arch.value.map_or("host", crate::Arch::as_str)),
            config.arch.origin,
        ),
        "runtime" => (json!(config.runtime.value.as_str()), config.runtime.origin),
        "autoActivate" => (
            json!(config.auto_activate.value),
            config.auto_activate.origin,
        ),
        "hostname" => (
            json!(config.hostname.value.as_deref().unwrap_or_default()),
            config.hostname.origin,
        ),
        "env" => (json!({}), Origin::Default),
        "docker" => (json!(config.docker.value), config.docker.origin),
        "portForwarder" => (
            json!(config.port_forwarder.value.as_str()),
            config.port_forwarder.origin,
        ),
        "stopMode" => (
            json!(config.stop_mode.value.as_str()),
            config.stop_mode.origin,
        ),
        "network.portBind" => (json!(config.port_bind.value), config.port_bind.origin),
        "network.dns" => (json!(config.dns.value), config.dns.origin),
        "network.dnsHosts" => (json!(config.dns_hosts.value), config.dns_hosts.origin),
        "mounts" => (config.mounts.value.to_json(), config.mounts.origin),
        "protect" => (config.protect.value.to_json(), config.protect.origin),
        "provision" => (json!(config.provision.value), config.provision.origin),
        "forwardAgent" => (
            json!(config.forward_agent.value),
            config.forward_agent.origin,
        ),
        "sshConfig" => (json!(config.ssh_config.value), config.ssh_config.origin),
        "sshPort" => (
            json!(config.ssh_port.value.unwrap_or_default()),
            config.ssh_port.origin,
        ),
        "nerdctl.path" => nerdctl(config, |nerdctl| &nerdctl.path),
        "nerdctl.digest" => nerdctl(config, |nerdctl| &nerdctl.digest),
        "transport" => (
            json!(config.transport.value.as_str()),
            config.transport.origin,
        ),
        _ => unreachable!("the table of known keys marks {key} as acted on"),
    }
}

fn nerdctl(config: &Config, of: impl Fn(&Nerdctl) -> &str) -> (Value, Origin) {
    let value = config.nerdctl.value.as_ref();
    (json!(value.map_or("", of)), config.nerdctl.origin)
}
