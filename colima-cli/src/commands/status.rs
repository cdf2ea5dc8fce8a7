//! `colima status`, and what `list` shares with it.

use colima_core::{Arch, boot::Runtime, config::Config};

use super::{Context, print};
use crate::{
    args::StatusArgs,
    command_error::{CommandError, ErrorKind, naming},
    exit_code::ExitCode,
    instance::{InstanceRecord, Probe},
    output::{Detail, ListEntry, State, StatusReport},
};

pub(super) async fn run(
    context: &Context<'_>,
    args: &StatusArgs,
) -> Result<ExitCode, CommandError> {
    let probe = context.probe().await?;
    let Probe::Running {
        record,
        problems,
        ports,
        mounts,
    } = probe
    else {
        return Err(not_usable(context, probe));
    };
    let spec = &record.spec;
    let report = StatusReport {
        display_name: context.profile.display_name(),
        state: state_of(&problems),
        problems: problems
            .iter()
            .map(|problem| naming(problem, &context.profile))
            .collect(),
        driver: "QEMU".to_owned(),
        accelerator: Some(record.accelerator.clone()),
        arch: spec.arch,
        runtime: spec.runtime,
        // The one of Colima's words that is true: files over SFTP, made a file system by FUSE.
        mount_type: (!mounts.is_empty()).then(|| "sshfs".to_owned()),
        ip_address: None,
        docker_socket: (spec.runtime == Runtime::Docker)
            .then(|| context.paths.docker_socket.clone()),
        containerd_socket: (spec.runtime == Runtime::Containerd)
            .then(|| context.paths.containerd_socket.clone()),
        cpus: spec.cpus,
        memory: spec.memory,
        disk: record.data_disk_size,
        ports,
        mounts,
    };
    let detail = if args.extended {
        Detail::Extended
    } else {
        Detail::Brief
    };
    print(if args.json {
        report.json()
    } else {
        report.human(detail)
    })?;
    Ok(ExitCode::Ok)
}

/// Why a profile cannot be asked anything but whether it runs.
pub(super) fn not_usable(context: &Context<'_>, probe: Probe) -> CommandError {
    let on_its_way = |how: &str| {
        let what = format!("{} is {how}", context.profile.display_name());
        CommandError::new(ErrorKind::NotRunning, what)
    };
    match probe {
        Probe::Stranded { why } => why,
        Probe::Starting => on_its_way("starting"),
        Probe::Stopping => on_its_way("stopping"),
        Probe::Suspended { size } => on_its_way(&format!("suspended, {size} on disk"))
            .hint(format!("it goes on: {}", context.start_command())),
        _ => context.not_running(),
    }
}

const fn state_of(problems: &[String]) -> State {
    if problems.is_empty() {
        State::Running
    } else {
        State::Degraded
    }
}

/// The line of `list` for a profile in the state that was probed; one that never ran has the defaults.
pub(super) fn entry(
    name: &str,
    probe: &Probe,
    last: Option<&InstanceRecord>,
    defaults: &Config,
) -> ListEntry {
    let (state, record) = match probe {
        Probe::Stopped => (State::Stopped, last),
        Probe::Suspended { .. } => (State::Suspended, last),
        Probe::Starting => (State::Starting, last),
        Probe::Stopping => (State::Stopping, last),
        Probe::Stranded { .. } => (State::Broken, last),
        Probe::Running {
            record, problems, ..
        } => (state_of(problems), Some(&**record)),
    };
    let spec = record.map(|record| &record.spec);
    ListEntry {
        name: name.to_owned(),
        state,
        arch: spec
            .map(|spec| spec.arch)
            .or(Arch::host())
            .unwrap_or(Arch::X86_64),
        cpus: spec.map_or(defaults.cpus.value, |spec| spec.cpus),
        memory: spec.map_or(defaults.memory.value, |spec| spec.memory),
        disk: record.map_or(defaults.disk.value, |record| record.data_disk_size),
        runtime: spec
            .filter(|_| matches!(probe, Probe::Running { .. }))
            .map(|spec| spec.runtime),
        address: None,
    }
}
