//! `colima doctor`: looks, and lets [`crate::doctor`] judge.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use colima_core::{
    Arch, Bytes, config::Config, ports::Protocol, runtime::docker_context::overridden,
};
use colima_net::forward::{Place, obstacle};
use colima_vm::{
    image::ImageStore,
    machine::{QemuVersion, accelerator},
};

use super::{
    Context,
    configuration::{Configuration, TemplateUse},
    print,
    status::problems_of,
};
use crate::{
    args::DoctorArgs,
    assembly,
    command_error::{CommandError, chain},
    docker_context::DockerContexts,
    doctor::{Kvm, Observed, ProfileSeen, Program, Purpose, examine, human, in_json, is_well},
    exit_code::ExitCode,
    instance::Probe,
    other_colima,
};

pub(super) async fn run(
    context: &Context<'_>,
    args: &DoctorArgs,
) -> Result<ExitCode, CommandError> {
    let findings = examine(&look(context).await?);
    print(match args.json {
        true => in_json(&findings),
        false => human(&findings),
    })?;
    Ok(match is_well(&findings) {
        true => ExitCode::Ok,
        false => ExitCode::Failure,
    })
}

/// Changes nothing, and starts nothing but `qemu --version`, and the daemon of a machine that has lost its own.
async fn look(context: &Context<'_>) -> Result<Observed, CommandError> {
    let environment = context.environment;
    let root = context.state.root();
    let arch = Arch::host().unwrap_or(Arch::X86_64);
    let programs = programs(context, arch);
    let qemu = match programs[0].found.as_deref() {
        Some(program) => Some(
            QemuVersion::of(program, accelerator::DEFAULT_LIMIT)
                .await
                .map(|version| version.to_string())
                .map_err(|error| chain(&error)),
        ),
        None => None,
    };
    let (profile, its_port) = profile(context).await;
    let wanted = wanted(context);
    let images = assembly::images(&context.state, environment)?;
    let newest = ImageStore::new(&images.store).newest(arch);
    Ok(Observed {
        kvm: kvm(),
        remembered: remembered(&root.join(format!("_accelerator-{arch}.json"))),
        programs,
        qemu,
        has_image: newest.is_ok_and(|image| image.is_some()),
        is_root: rustix::process::geteuid().is_root(),
        most_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        free: free(root),
        host: host(),
        port_obstacles: wanted
            .as_ref()
            .map_or_else(|_| Vec::new(), |config| port_obstacles(config, its_port)),
        profile,
        wanted: wanted.map(|config| (config.cpus.value, config.memory.value)),
        first_free_port: number("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        docker_override: overridden(
            environment.docker_host.as_deref(),
            environment.docker_context.as_deref(),
            &context.profile.instance(),
            &context.paths.docker_socket,
        ),
        docker_config: environment.docker_config_dir().ok().and_then(|directory| {
            let current = DockerContexts::new(directory).current();
            current.err().map(|error| chain(&error))
        }),
        state: match context.state.look().and_then(|()| context.paths.look()) {
            Ok(()) => Ok(root.to_owned()),
            Err(error) => Err(chain(&error)),
        },
        other_colimas: other_colima::instances(root),
    })
}

/// QEMU first.
fn programs(context: &Context<'_>, arch: Arch) -> Vec<Program> {
    let environment = context.environment;
    let (qemu, package) = assembly::qemu_of(arch);
    let mut programs: Vec<Program> = [
        (qemu, package, Purpose::Running),
        ("qemu-img", "qemu-utils", Purpose::Running),
        ("ssh-keygen", "openssh-client", Purpose::Running),
        ("mmdebstrap", "mmdebstrap", Purpose::Building),
        ("newuidmap", "uidmap", Purpose::Building),
        ("ssh", "openssh-client", Purpose::Using),
        ("docker", "docker-cli", Purpose::Using),
    ]
    .map(|(name, package, purpose)| Program {
        name: name.to_owned(),
        package: package.to_owned(),
        purpose,
        found: environment.find_program(name),
    })
    .into();
    if rustix::process::geteuid().is_root() {
        programs.retain(|program| program.name != "newuidmap");
    }
    programs.push(Program {
        name: assembly::guest_program_name(arch),
        package: String::new(),
        purpose: Purpose::Running,
        found: assembly::guest_program(arch, environment).ok(),
    });
    programs
}

fn kvm() -> Kvm {
    let path = Path::new("/dev/kvm");
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Kvm::Opens,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Kvm::Missing,
            io::ErrorKind::PermissionDenied => Kvm::Forbidden {
                group: fs::metadata(path).map_or_else(|_| "kvm".to_owned(), |kvm| group(kvm.gid())),
            },
            _ => Kvm::Fails(error.to_string()),
        },
    }
}

/// The group's name, else its number.
fn group(gid: u32) -> String {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}

fn remembered(path: &Path) -> Option<(String, String)> {
    let verdict: accelerator::Verdict = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some((verdict.accelerator.to_string(), verdict.reason()))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What is free for an ordinary user in the nearest directory that exists.
fn free(root: &Path) -> Option<(Bytes, std::path::PathBuf)> {
    let there = root.ancestors().find(|path| path.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    let bytes = space.f_bavail.saturating_mul(space.f_frsize);
    Some((Bytes::new(bytes), there.to_owned()))
}

fn host() -> (u32, Option<Bytes>) {
    let cpus = std::thread::available_parallelism();
    let cpus = cpus.map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    });
    (cpus, memory.map(Bytes::kib))
}

fn wanted(context: &Context<'_>) -> Result<Config, String> {
    let configuration = Configuration::read(context, TemplateUse::Begin);
    let config = configuration.and_then(|configuration| configuration.merge(&Default::default()));
    config.map_err(|error| format!("{}: {}", error.what, error.causes.join("; ")))
}

/// What the machine says, and the port that is its own.
async fn profile(context: &Context<'_>) -> (ProfileSeen, Option<u16>) {
    match context.probe().await {
        Ok(Probe::Stopped | Probe::Suspended { .. }) => (ProfileSeen::Stopped, None),
        Ok(
            ref probe @ Probe::Running {
                ref record,
                ref ports,
                ..
            },
        ) => {
            let problems = problems_of(context, probe);
            let ports = ports.clone();
            let conflicts = ports.map_or_else(Vec::new, |ports| ports.conflicts);
            let seen = ProfileSeen::Running {
                problems,
                conflicts,
            };
            (seen, record.ssh_port)
        }
        Ok(Probe::Stranded { why }) | Err(why) => {
            let problems = problems_of(context, &Probe::Stranded { why });
            let problem = problems.into_iter().next();
            let seen = problem.map_or(ProfileSeen::Changing, ProfileSeen::Unusable);
            (seen, None)
        }
        Ok(_) => (ProfileSeen::Changing, None),
    }
}

/// What the configuration names and cannot be had now.
fn port_obstacles(config: &Config, its_port: Option<u16>) -> Vec<String> {
    let ssh = config.ssh_port.value.filter(|port| Some(*port) != its_port);
    let ssh = ssh.map(|port| ("sshPort", SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    // Any port shows whether the address is one of this host's.
    let bind = config.port_bind.value.iter();
    let bind = bind.map(|address| ("network.portBind", SocketAddr::new(*address, 0)));
    ssh.into_iter()
        .chain(bind)
        .filter_map(|(key, address)| {
            let place = Place {
                protocol: Protocol::Tcp,
                address,
            };
            Some(format!("{key}: {}", obstacle(address)?.at(place)))
        })
        .collect()
}
