//! `colima ssh`.

use std::{io::IsTerminal as _, os::unix::process::CommandExt as _, process::Command};

use super::{Context, unexpected};
use crate::{
    args::SshArgs,
    command_error::{CommandError, ErrorKind},
    control::{Reply, Request},
    exit_code::ExitCode,
};

/// Becomes the ssh client, so that its exit code, its signals and its terminal are the user's own.
pub(super) async fn run(context: &Context<'_>, args: &SshArgs) -> Result<ExitCode, CommandError> {
    let mut talk = context
        .ask_if_running(&Request::Hello)
        .await?
        .ok_or_else(|| context.not_running())?;
    match talk.answer().await.map_err(super::client_error)? {
        Reply::Hello { .. } => {}
        other => return Err(unexpected(&other)),
    }
    let mut client = Command::new("ssh");
    client.arg("-F").arg(&context.paths.ssh_config);
    if args.command.is_empty() || std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    {
        client.arg("-t");
    } else {
        client.arg("-T");
    }
    client.arg(context.profile.instance());
    if !args.command.is_empty() {
        client.arg("--").arg(remote_command(&args.command));
    }
    let error = client.exec();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => {
            CommandError::new(ErrorKind::MissingDependency, "the ssh client was not found")
                .hint("install the package openssh-client")
        }
        _ => CommandError::new(ErrorKind::Failure, "cannot run ssh").caused_by(&error),
    })
}

/// One line for the guest's shell that gives every argument through as it is.
fn remote_command(arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
        .collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_arrive_whole() {
        let words = ["sh", "-c", "echo 'a  b' $HOME"].map(str::to_owned);
        assert_eq!(
            remote_command(&words),
            r"'sh' '-c' 'echo '\''a  b'\'' $HOME'"
        );
    }
}
