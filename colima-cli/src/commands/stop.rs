//! `colima stop`.

use colima_core::config::{Settings, StopMode};
use colima_vm::machine::SavedState;

use super::{
    Context,
    configuration::{Configuration, TemplateUse},
    docker, follow, say, unexpected,
};
use crate::{
    args::StopArgs,
    command_error::{CommandError, ErrorKind},
    control::{Reply, Request, StopManner, Stopped},
    exit_code::ExitCode,
    instance::Probe,
};

pub(super) async fn run(context: &Context<'_>, args: &StopArgs) -> Result<ExitCode, CommandError> {
    let manner = match args.shutdown {
        true => StopManner::Orderly,
        false if args.force => StopManner::Forced,
        false => usual(context),
    };
    if stop(context, manner).await? == Stopped::Before {
        at_rest(context, manner)?;
    }
    Ok(ExitCode::Ok)
}

/// A machine that does not run: says so, and lets go of the memory that it may have been suspended with.
fn at_rest(context: &Context<'_>, manner: StopManner) -> Result<(), CommandError> {
    let name = context.profile.display_name();
    let Probe::Suspended { size } = Probe::at_rest(&context.paths) else {
        say(&format!("{name} is not running"));
        return Ok(());
    };
    if manner == StopManner::Suspend {
        say(&format!("{name} is suspended already, {size} on disk"));
        return Ok(());
    }
    SavedState::discard(&context.paths.machine_dir).map_err(|error| {
        let what = format!("the memory of {name} cannot be removed");
        CommandError::new(ErrorKind::Failure, what).caused_by(&error)
    })?;
    say(&format!(
        "{name} was suspended, and its memory ({size}) is dropped; every file was written before"
    ));
    Ok(())
}

/// How the profile stops when nothing else is typed.
pub(super) fn usual(context: &Context<'_>) -> StopManner {
    let config = Configuration::read(context, TemplateUse::Begin)
        .and_then(|configuration| configuration.merge(&Settings::default()));
    let mode = match config {
        Ok(config) => config.stop_mode.value,
        // What the file says besides is no reason to let the machine run.
        Err(error) => {
            say(&format!("note: stopMode is not known: {error}"));
            StopMode::default()
        }
    };
    match mode {
        StopMode::Suspend => StopManner::Suspend,
        StopMode::Shutdown => StopManner::Orderly,
    }
}

pub(super) const fn manner(force: bool) -> StopManner {
    if force {
        StopManner::Forced
    } else {
        StopManner::Orderly
    }
}

/// Stops the machine, if it runs, and takes back what a start did on the host.
pub(super) async fn stop(
    context: &Context<'_>,
    manner: StopManner,
) -> Result<Stopped, CommandError> {
    let mut progress = context.progress();
    let stopped = match context.ask_if_running(&Request::Stop { manner }).await? {
        None => Stopped::Before,
        Some(mut talk) => match follow(&mut talk, &mut progress).await? {
            Reply::Stopped(stopped) => stopped,
            other => return Err(unexpected(&other)),
        },
    };
    // Also when the machine had died: its context is still there.
    docker::withdraw(context);
    let name = context.profile.display_name();
    match &stopped {
        Stopped::Now { how, .. } => drop(progress.done(&format!("stopped {name}: {how},"))),
        Stopped::Suspended { size, .. } => {
            let cost = format!("{} MiB on disk", size.whole_mib());
            let _ = progress.done(&format!(
                "suspended {name}, {cost} (--shutdown powers off),"
            ));
        }
        Stopped::Before => {}
    }
    Ok(stopped)
}
