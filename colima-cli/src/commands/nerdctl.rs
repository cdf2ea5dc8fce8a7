//! `colima nerdctl`: in the machine, as root, with the caller's settings of nerdctl.

use super::{Context, ssh};
use crate::{
    args::NerdctlArgs,
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
};

/// Exits as nerdctl does; says what to do where the machine has none.
const RUN: &str = r#"
command -v nerdctl >/dev/null || {
    echo "error: there is no nerdctl in the machine" >&2
    echo "hint: give it one: nerdctl.path and nerdctl.digest in colima.yaml, then colima restart" >&2
    exit 4
}
exec sudo --preserve-env nerdctl "$@"
"#;

pub(super) async fn run(
    context: &Context<'_>,
    args: &NerdctlArgs,
) -> Result<ExitCode, CommandError> {
    if args
        .arguments
        .first()
        .is_some_and(|first| first == "install")
    {
        return Err(CommandError::new(
            ErrorKind::NotYet,
            "a nerdctl command on the host is not available yet",
        )
        .hint("run it in the machine: colima nerdctl -- ps"));
    }
    let settings = context.environment.nerdctl.iter();
    let mut words: Vec<String> = vec!["env".to_owned()];
    words.extend(settings.map(|(name, value)| format!("{name}={value}")));
    words.extend(["sh", "-c", RUN, "nerdctl"].map(str::to_owned));
    words.extend(args.arguments.iter().cloned());
    ssh::become_client(context, &words).await
}
