//! `colima restart`.

use colima_core::config::Settings;

use super::{Context, start, stop};
use crate::{
    args::{Activation, RestartArgs},
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
};

pub(super) async fn run(
    context: &Context<'_>,
    args: &RestartArgs,
) -> Result<ExitCode, CommandError> {
    if !context.paths.exists() {
        let what = format!("there is no profile {}", context.profile);
        return Err(CommandError::new(ErrorKind::NoSuchProfile, what)
            .hint("the profiles there are: colima list"));
    }
    // Before anything is stopped: what cannot be started again is better left running.
    let config = start::configure(context, &Settings::default(), start::Save::OnlyIfNew).await?;
    let assembly = start::prepare(context, &config)?;
    stop::stop(context, stop::manner(args.force)).await?;
    let activation = Activation::from(config.auto_activate.value);
    start::start(context, assembly, activation).await?;
    Ok(ExitCode::Ok)
}
