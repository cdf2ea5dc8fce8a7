//! From what the user wants and what the host has to what the libraries are given.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use colima_core::{
    Arch,
    boot::{BootConfig, Network, Runtime},
    config::{Config, Origin, PortForwarder},
    runtime::{DaemonDefaults, daemon_json},
};

use crate::{
    command_error::{CommandError, ErrorKind},
    environment::Environment,
    guest_user,
    instance::{DataDisk, Forwarding, Images, InstanceSpec, PortSettings, Tools},
    ssh::{self, ClientConfig, SshKeyError},
    state_dir::{ProfilePaths, StateDir, write_private},
};

/// Everything a start needs.
#[derive(Debug)]
pub struct Assembly {
    /// What the instance is to be.
    pub spec: InstanceSpec,
    /// What the guest is told.
    pub boot: BootConfig,
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
    let network = Network::default();
    let gateway = network.gateway;
    let spec = InstanceSpec {
        name: name.instance(),
        arch,
        cpus: config.cpus.value,
        memory: config.memory.value,
        data_disk: match config.disk.origin {
            Origin::Flag => DataDisk::Exactly(config.disk.value),
            Origin::File | Origin::Default => DataDisk::AtLeast(config.disk.value),
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
    };
    let user = guest_user::mirror(&environment.user);
    let keys = make_keys(paths, &user.name, name)?;
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
        network,
        runtime: spec.runtime,
        docker_daemon_json: docker_configuration(config, environment, gateway)?,
        env: config.plain_env(),
        clock_unix_nanos: clock(),
    };
    Ok(Assembly { spec, boot })
}

fn docker_configuration(
    config: &Config,
    environment: &Environment,
    gateway: Ipv4Addr,
) -> Result<String, CommandError> {
    if config.runtime.value != Runtime::Docker {
        return Ok(String::new());
    }
    let gateway = IpAddr::V4(gateway);
    let proxies = environment.proxies.from_guest(gateway);
    let defaults = DaemonDefaults::new(gateway).proxies(proxies);
    let merged = daemon_json(&config.docker, &defaults)
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
    let qemu = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Aarch64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
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
        qemu: found(qemu)?,
        qemu_img: found(("qemu-img", "qemu-utils"))?,
        guest_program: guest_program(arch, environment)?,
        accelerator_memory: state.root().join(format!("_accelerator-{arch}.json")),
    })
}

/// The guest's program lies beside this one, or where distributions put what is not for people.
fn guest_program(arch: Arch, environment: &Environment) -> Result<PathBuf, CommandError> {
    let name = format!("colima-guest-{arch}");
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
