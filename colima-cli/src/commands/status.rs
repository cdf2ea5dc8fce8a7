//! `colima status`, and what `list` shares with it.

use colima_core::{Arch, boot::Runtime, config::Config};

use super::{Context, print};
use crate::{
    args::StatusArgs,
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    instance::{InstanceRecord, Probe, Problem},
    output::{Detail, ListEntry, State, StatusReport, at_rest_json},
};

pub(super) async fn run(
    context: &Context<'_>,
    args: &StatusArgs,
) -> Result<ExitCode, CommandError> {
    let probe = context.probe().await.or_else(unanswered)?;
    let Probe::Running {
        record,
        problems,
        ports,
        mounts,
    } = probe
    else {
        if args.json {
            print(at_rest_json(
                &context.profile.display_name(),
                state_of(&probe),
                &problems_of(context, &probe),
            ))?;
        }
        return Err(not_usable(context, probe));
    };
    let spec = &record.spec;
    let report = StatusReport {
        display_name: context.profile.display_name(),
        state: running(&problems),
        problems: named(context, &problems),
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

/// A daemon that does not answer says something of its profile, too.
fn unanswered(why: CommandError) -> Result<Probe, CommandError> {
    match why.kind {
        ErrorKind::Timeout => Ok(Probe::Stranded { why }),
        _ => Err(why),
    }
}

const fn running(problems: &[Problem]) -> State {
    match problems {
        [] => State::Running,
        [..] => State::Degraded,
    }
}

const fn state_of(probe: &Probe) -> State {
    match probe {
        Probe::Stopped => State::Stopped,
        Probe::Suspended { .. } => State::Suspended,
        Probe::Starting => State::Starting,
        Probe::Stopping => State::Stopping,
        Probe::Stranded { .. } => State::Broken,
        Probe::Running { problems, .. } => running(problems.as_slice()),
    }
}

/// What is wrong, with the profile in every command.
pub(super) fn problems_of(context: &Context<'_>, probe: &Probe) -> Vec<Problem> {
    match probe {
        Probe::Running { problems, .. } => named(context, problems),
        Probe::Stranded { why } => {
            let what = std::iter::once(&why.what).chain(&why.causes);
            let what: Vec<&str> = what.map(String::as_str).collect();
            let hint = why.hint.as_deref();
            let hint = hint.unwrap_or("what led to it is printed by: colima logs");
            named(context, &[Problem::new(what.join(": "), hint)])
        }
        Probe::Stopped | Probe::Suspended { .. } | Probe::Starting | Probe::Stopping => Vec::new(),
    }
}

fn named(context: &Context<'_>, problems: &[Problem]) -> Vec<Problem> {
    let named = |problem: &Problem| problem.for_profile(&context.profile);
    problems.iter().map(named).collect()
}

/// The line of `list` for a profile in the state that was probed; one that never ran has the defaults.
pub(super) fn entry(
    context: &Context<'_>,
    probe: &Probe,
    last: Option<&InstanceRecord>,
    defaults: &Config,
) -> ListEntry {
    let record = match probe {
        Probe::Running { record, .. } => Some(&**record),
        _ => last,
    };
    let spec = record.map(|record| &record.spec);
    ListEntry {
        name: context.profile.to_string(),
        state: state_of(probe),
        problems: problems_of(context, probe),
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
