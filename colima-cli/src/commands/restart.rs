//! `colima restart`.

use colima_core::config::Settings;

use super::{Context, configuration::TemplateUse, start, stop};
use crate::{
    args::RestartArgs,
    command_error::{CommandError, ErrorKind},
    control::WhenSuspended,
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
    let nothing = Settings::default();
    let config = start::configure(
        context,
        &nothing,
        start::Save::OnlyIfNew,
        TemplateUse::Begin,
    )
    .await?;
    let assembly = start::prepare(context, &config)?;
    stop::stop(context, stop::manner(args.force)).await?;
    let on_host = start::OnHost::of(&config);
    start::start(context, assembly, on_host, WhenSuspended::ShutDown).await?;
    Ok(ExitCode::Ok)
}
