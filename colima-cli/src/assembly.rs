//! From what the user wants and what the host has to what the libraries are given.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use colima_core::{
    Arch,
    boot::{BootConfig, Network, Runtime},
    config::{Config, Mounts, Origin, PortForwarder, Transport, resolve_hosts},
    runtime::{DaemonDefaults, Proxies, daemon_json, off_loopback},
};

use crate::{
    certificates,
    command_error::{CommandError, ErrorKind},
    environment::Environment,
    guest_user,
    instance::{
        Carrier, DataDisk, Forwarding, GuestNerdctl, GuestSettings, Images, InstanceSpec,
        LinkSettings, PortSettings, Tools,
    },
    mounts::{
        ProtectSettings, Share,
        plan::{self, Surroundings},
        usual,
    },
    ssh::{self, AgentForwarding, ClientConfig, SshKeyError},
    state_dir::{ProfilePaths, StateDir, write_private},
};

/// Everything a start needs.
#[derive(Debug)]
pub struct Assembly {
    /// What the instance is to be.
    pub spec: InstanceSpec,
    /// What the guest is told.
    pub boot: BootConfig,
    /// What the user should know, a sentence each.
    pub notes: Vec<String>,
}

/// Puts a start together: finds programs, makes keys, writes the ssh client's configuration.
///
/// # Errors
///
/// Names what is missing and the package that has it.
pub fn assemble(
    config: &Config,
    name: &colima_core::ProfileName,
    state: &StateDir,
    paths: &ProfilePaths,
    environment: &Environment,
) -> Result<Assembly, CommandError> {
    let arch = config.arch.value.or(Arch::host()).ok_or_else(|| {
        CommandError::new(
            ErrorKind::Failure,
            "no guest runs on this host's architecture",
        )
    })?;
    let mut network = Network::default();
    let gateway = network.gateway;
    if !config.dns.value.is_empty() {
        network.dns.clone_from(&config.dns.value);
    }
    let hosts = resolve_hosts(&config.dns_hosts.value, gateway.into());
    let env = guest_env(config, environment, gateway);
    let mut spec = InstanceSpec {
        name: name.instance(),
        arch,
        cpus: config.cpus.value,
        memory: config.memory.value,
        data_disk: match config.disk.origin {
            Origin::Flag => DataDisk::Exactly(config.disk.value),
            Origin::File | Origin::Template | Origin::Default => {
                DataDisk::AtLeast(config.disk.value)
            }
        },
        root_disk: config.root_disk.value,
        runtime: config.runtime.value,
        images: images(state, environment)?,
        tools: tools(arch, state, environment)?,
        ports: PortSettings {
            forwarding: match config.port_forwarder.value {
                PortForwarder::On => Forwarding::On,
                PortForwarder::Off => Forwarding::Off,
            },
            plain: config.port_bind.value.clone(),
        },
        link: LinkSettings {
            carrier: match config.transport.value {
                Transport::Ssh => Carrier::Ssh,
                _ => Carrier::Virtio,
            },
            ssh_port: config.ssh_port.value,
        },
        nerdctl: config
            .nerdctl
            .value
            .as_ref()
            .map(GuestNerdctl::find)
            .transpose()?,
        guest: None,
        mounts: Vec::new(),
        protect: ProtectSettings {
            home: environment.home.clone(),
            paths: config.protect.value.clone(),
        },
    };
    let user = guest_user::mirror(&environment.user);
    let mut notes = Vec::new();
    spec.mounts = shares(config, &spec.name, &user.home, environment, &mut notes)?;
    let keys = make_keys(paths, &user.name, name, config.forward_agent.value.into())?;
    let boot = BootConfig {
        version: BootConfig::VERSION,
        host_name: config
            .hostname
            .value
            .clone()
            .unwrap_or_else(|| name.host_name()),
        user,
        ssh_host_key: keys.host.private,
        ssh_authorized_keys: vec![keys.user.public],
        ssh_listen: spec.link.ssh_listen(),
        network,
        runtime: spec.runtime,
        docker_daemon_json: docker_configuration(config, &env, gateway)?,
        env,
        hosts: hosts.addresses,
        certificates: certificates::authorities(&config.certificates.value)?,
        registry_files: match config.runtime.value {
            Runtime::Docker => {
                certificates::registries(&environment.docker_config_dir()?.join("certs.d"))?
            }
            _ => Vec::new(),
        },
        provision: config.provision.value.clone(),
        mounts: spec
            .mounts
            .iter()
            .map(|share| share.guest.clone())
            .collect(),
        clock_unix_nanos: clock(),
    };
    spec.guest = Some(GuestSettings::of(&boot));
    notes.extend(hosts.left_out.iter().map(|host| {
        let target = &config.dns_hosts.value[host];
        format!("network.dnsHosts: {host} needs an address; {target:?} is not available yet and is left aside")
    }));
    Ok(Assembly { notes, spec, boot })
}

/// The directories that are shared.
fn shares(
    config: &Config,
    instance: &str,
    guest_home: &str,
    environment: &Environment,
    notes: &mut Vec<String>,
) -> Result<Vec<Share>, CommandError> {
    let mounts = &config.mounts.value;
    let usual = match mounts {
        Mounts::Usual => usual::prepare(Path::new("/tmp"), instance)
            .map_err(|error| notes.push(format!("/tmp/{instance} is not shared: {error}")))
            .ok(),
        Mounts::None | Mounts::These(_) => None,
    };
    surroundings(environment, guest_home, usual.as_deref(), |surroundings| {
        plan::plan(mounts, surroundings)
    })
}

/// Plans with what is around a start on this host.
pub(crate) fn surroundings<T>(
    environment: &Environment,
    guest_home: &str,
    usual: Option<&Path>,
    plan: impl FnOnce(&Surroundings<'_>) -> T,
) -> T {
    let current = std::env::current_dir().ok();
    let resolve = |path: &Path| {
        let resolved = path.canonicalize()?;
        match resolved.is_dir() {
            true => Ok(resolved),
            false => Err(std::io::ErrorKind::NotADirectory.into()),
        }
    };
    plan(&Surroundings {
        home: environment.home.as_deref(),
        current: current.as_deref(),
        usual,
        guest_home,
        resolve: &resolve,
    })
}

/// The guest's environment: the host's proxies, and over them what the user wants. A proxy on the host's
/// loopback is reached through the gateway.
fn guest_env(
    config: &Config,
    environment: &Environment,
    gateway: Ipv4Addr,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    // Some programs read only the one, some only the other.
    for (name, value) in environment.proxies.from_guest(gateway.into()).variables() {
        env.insert(name.to_ascii_uppercase(), value.clone());
        env.insert(name, value);
    }
    let wanted = config.plain_env();
    // Who names a proxy in one case does not want the host's in the other.
    env.retain(|name, _| !wanted.keys().any(|other| other.eq_ignore_ascii_case(name)));
    for (name, value) in wanted {
        let is_proxy = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy"]
            .iter()
            .any(|proxy| name.eq_ignore_ascii_case(proxy));
        let value = match is_proxy {
            true => off_loopback(&value, gateway.into()),
            false => value,
        };
        env.insert(name, value);
    }
    env
}

fn docker_configuration(
    config: &Config,
    env: &BTreeMap<String, String>,
    gateway: Ipv4Addr,
) -> Result<String, CommandError> {
    if config.runtime.value != Runtime::Docker {
        return Ok(String::new());
    }
    let gateway = IpAddr::V4(gateway);
    let either = |name: &str| {
        let value = env
            .get(name)
            .or_else(|| env.get(&name.to_ascii_uppercase()));
        value.filter(|value| !value.is_empty()).cloned()
    };
    let proxies = Proxies {
        http: either("http_proxy"),
        https: either("https_proxy"),
        no_proxy: either("no_proxy"),
    };
    let defaults = DaemonDefaults::new(gateway).proxies(proxies);
    let merged = daemon_json(&config.docker.value, &defaults)
        .map_err(|error| CommandError::new(ErrorKind::Config, error.to_string()))?;
    Ok(format!("{:#}\n", serde_json::Value::Object(merged)))
}

/// Where images and downloads are kept.
///
/// # Errors
///
/// Fails where no cache directory can be told.
pub fn images(state: &StateDir, environment: &Environment) -> Result<Images, CommandError> {
    Ok(Images {
        store: state.root().join("_images"),
        packages: environment.cache_root()?.join("packages"),
        id: None,
        download_env: environment.proxies.variables(),
    })
}

fn tools(arch: Arch, state: &StateDir, environment: &Environment) -> Result<Tools, CommandError> {
    let found = |(program, package): (&str, &str)| {
        environment.find_program(program).ok_or_else(|| {
            CommandError::new(
                ErrorKind::MissingDependency,
                format!("{program} was not found"),
            )
            .hint(format!("install the package {package}"))
        })
    };
    Ok(Tools {
        qemu: found(qemu_of(arch))?,
        qemu_img: found(("qemu-img", "qemu-utils"))?,
        guest_program: guest_program(arch, environment)?,
        accelerator_memory: state.root().join(format!("_accelerator-{arch}.json")),
    })
}

/// QEMU's program for guests of an architecture, and the package that has it.
#[must_use]
pub const fn qemu_of(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Aarch64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

/// The file name of the guest's program.
#[must_use]
pub fn guest_program_name(arch: Arch) -> String {
    format!("colima-guest-{arch}")
}

/// Finds the guest's program: it lies beside this one, or where distributions put what is not for people.
///
/// # Errors
///
/// Names the places that were looked at.
pub fn guest_program(arch: Arch, environment: &Environment) -> Result<PathBuf, CommandError> {
    let name = guest_program_name(arch);
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned));
    let installed = beside
        .as_ref()
        .map(|directory| directory.join("../lib/colima"));
    let places: Vec<PathBuf> = environment
        .guest_dir
        .iter()
        .cloned()
        .chain(beside)
        .chain(installed)
        .collect();
    places
        .iter()
        .map(|place| place.join(&name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let looked: Vec<String> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            CommandError::new(
                ErrorKind::MissingDependency,
                format!("{name} was not found"),
            )
            .because(format!("looked in {}", looked.join(", ")))
            .hint("build it beside colima: make build")
        })
}

struct Keys {
    user: ssh::KeyPair,
    host: ssh::KeyPair,
}

fn make_keys(
    paths: &ProfilePaths,
    user: &str,
    profile: &colima_core::ProfileName,
    agent: AgentForwarding,
) -> Result<Keys, CommandError> {
    let host = profile.instance();
    let failed = |error: &SshKeyError| {
        let kind = match error {
            SshKeyError::KeygenMissing => ErrorKind::MissingDependency,
            _ => ErrorKind::Failure,
        };
        CommandError::new(kind, "the keys for ssh could not be made").caused_by(error)
    };
    let keys = Keys {
        user: ssh::ensure_key_pair(&paths.ssh_user_key, "colima").map_err(|e| failed(&e))?,
        host: ssh::ensure_key_pair(&paths.ssh_host_key, &host).map_err(|e| failed(&e))?,
    };
    let write = |path: &Path, text: &str| {
        write_private(path, text.as_bytes()).map_err(|error| {
            CommandError::new(
                ErrorKind::Failure,
                format!("cannot write {}", path.display()),
            )
            .caused_by(&error)
        })
    };
    let program = std::env::current_exe().map_err(|error| {
        CommandError::new(ErrorKind::Failure, "cannot find this program").caused_by(&error)
    })?;
    let config = ssh::client_config(&ClientConfig {
        host: &host,
        user,
        identity: &paths.ssh_user_key,
        known_hosts: &paths.ssh_known_hosts,
        program: &program,
        socket: &paths.ssh_socket,
        agent,
    });
    let config = config.ok_or_else(|| {
        let what = format!("ssh cannot be given a path such as {:?}", paths.dir);
        CommandError::new(ErrorKind::Usage, what)
            .hint("choose a directory without quotes and line breaks: export COLIMA_HOME=...")
    })?;
    write(&paths.ssh_config, &config)?;
    write(
        &paths.ssh_known_hosts,
        &ssh::known_hosts_line(&host, &keys.host.public),
    )?;
    Ok(keys)
}

fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use colima_core::config::{ConfigFile, Layers};

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.into())
        };
        Environment::from_variables(lookup, "", 1000, 1000)
    }

    fn config(text: &str) -> Config {
        let file = ConfigFile::parse(text).unwrap().settings;
        Config::merge(&Layers {
            file,
            ..Layers::default()
        })
        .unwrap()
    }

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    #[test]
    fn the_guest_has_the_hosts_proxies() {
        let host = environment(&[
            ("HTTPS_PROXY", "http://localhost:3128"),
            ("no_proxy", "localhost,.example"),
        ]);
        let env = guest_env(&config("env: {A: 1}"), &host, GATEWAY);
        let seen: Vec<(&str, &str)> = env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("A", "1"),
                ("HTTPS_PROXY", "http://10.0.2.2:3128"),
                ("NO_PROXY", "localhost,.example"),
                ("https_proxy", "http://10.0.2.2:3128"),
                ("no_proxy", "localhost,.example"),
            ]
        );
        let docker = docker_configuration(&config(""), &env, GATEWAY).unwrap();
        assert!(
            docker.contains("\"https-proxy\": \"http://10.0.2.2:3128\""),
            "{docker}"
        );
    }

    #[test]
    fn a_proxy_of_the_users_replaces_the_hosts() {
        let host = environment(&[("http_proxy", "http://host.example:1")]);
        let wanted = config("env: {HTTP_PROXY: 'http://127.0.0.1:2', NOTE: 'http://127.0.0.1:2'}");
        let env = guest_env(&wanted, &host, GATEWAY);
        assert_eq!(env.get("http_proxy"), None);
        assert_eq!(env["HTTP_PROXY"], "http://10.0.2.2:2");
        assert_eq!(env["NOTE"], "http://127.0.0.1:2");
        let docker = docker_configuration(&wanted, &env, GATEWAY).unwrap();
        assert!(
            docker.contains("\"http-proxy\": \"http://10.0.2.2:2\""),
            "{docker}"
        );
        // Switched off for the guest alone.
        let off = guest_env(&config("env: {http_proxy: ''}"), &host, GATEWAY);
        let docker = docker_configuration(&config(""), &off, GATEWAY).unwrap();
        assert!(!docker.contains("proxies"), "{docker}");
    }
}
