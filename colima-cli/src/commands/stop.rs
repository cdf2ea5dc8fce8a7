//! `colima stop`.

use super::{Context, docker, follow, say, unexpected};
use crate::{
    args::StopArgs,
    command_error::CommandError,
    control::{Reply, Request, StopManner, Stopped},
    exit_code::ExitCode,
};

pub(super) async fn run(context: &Context<'_>, args: &StopArgs) -> Result<ExitCode, CommandError> {
    match stop(context, manner(args.force)).await? {
        Stopped::Now { .. } => {}
        Stopped::Before => say(&format!(
            "{} is not running",
            context.profile.display_name()
        )),
    }
    Ok(ExitCode::Ok)
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
    if let Stopped::Now { how, .. } = &stopped {
        let name = context.profile.display_name();
        let _ = progress.done(&format!("stopped {name}: {how},"));
    }
    Ok(stopped)
}
