//! `colima env`.

use colima_core::runtime::docker_context::overridden;

use super::{Context, print, say, state_error};
use crate::{
    args::{EnvArgs, EnvShell},
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    shell_variables::{Shell, docker_variables},
};

/// Prints the variables whether the machine runs or not: a socket has its path for good.
pub(super) fn run(context: &Context<'_>, args: &EnvArgs) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let socket = &context.paths.docker_socket;
    let variables = docker_variables(socket).ok_or_else(|| {
        let what = format!("no variable can carry the path {socket:?}");
        CommandError::new(ErrorKind::Usage, what)
            .hint("choose a directory whose name is text: export COLIMA_HOME=...")
    })?;
    let shell = match args.shell {
        EnvShell::Sh => Shell::Sh,
        EnvShell::Fish => Shell::Fish,
    };
    if !args.unset && !socket.exists() {
        let error = context.not_running();
        say(&format!("note: {}", error.what));
    }
    let context_variable = context.environment.docker_context.as_deref();
    let name = context.profile.instance();
    if !args.unset
        && let Some(sentence) = overridden(None, context_variable, &name, socket)
    {
        say(&format!("note: {sentence}"));
    }
    let lines = variables.iter().map(|(name, value)| match args.unset {
        true => shell.unset(name),
        false => shell.export(name, value),
    });
    print(lines.collect::<String>())?;
    Ok(ExitCode::Ok)
}
