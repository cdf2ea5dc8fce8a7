//! `colima ssh`.

use std::{
    io::IsTerminal as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use super::{Context, unexpected};
use crate::{
    args::SshArgs,
    command_error::{CommandError, ErrorKind},
    control::{Reply, Request},
    exit_code::ExitCode,
    instance::InstanceRecord,
    mounts::path_in_guest,
};

/// Becomes the ssh client, so that its exit code, its signals and its terminal are the user's own.
pub(super) async fn run(context: &Context<'_>, args: &SshArgs) -> Result<ExitCode, CommandError> {
    become_client(context, &args.command).await
}

/// Becomes the ssh client that runs these words in the guest; a shell without any.
pub(super) async fn become_client(
    context: &Context<'_>,
    words: &[String],
) -> Result<ExitCode, CommandError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut client = client(
        context,
        if words.is_empty() || terminal {
            "-t"
        } else {
            "-T"
        },
    )
    .await?;
    match (directory(context), words) {
        (None, []) => {}
        (directory, words) => {
            let line = in_directory(directory.as_deref(), words);
            client.arg("--").arg(line);
        }
    }
    Err(failed(&client.exec()))
}

/// Where we are, as the guest has it; `None` where it has not.
fn directory(context: &Context<'_>) -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let record = InstanceRecord::find(&context.paths.record).ok()??;
    path_in_guest(&record.spec.mounts, here.to_str()?)
}

/// One line for the guest's shell: the words, or a shell without any, in a directory if that can be entered.
fn in_directory(directory: Option<&str>, words: &[String]) -> String {
    let what = match words {
        [] => "exec \"$SHELL\" -l".to_owned(),
        words => remote_command(words),
    };
    match directory {
        Some(directory) => {
            let directory = remote_command(&[directory.to_owned()]);
            format!("cd -- {directory} 2>/dev/null; {what}")
        }
        None => what,
    }
}

/// Runs these words in the guest without a terminal and collects what they print.
pub(super) async fn output(
    context: &Context<'_>,
    words: &[String],
) -> Result<std::process::Output, CommandError> {
    let mut client = client(context, "-T").await?;
    client.arg("--").arg(remote_command(words));
    client.stdin(Stdio::null());
    let mut client = tokio::process::Command::from(client);
    // Whoever gives up waiting takes the guest's command with it.
    client.kill_on_drop(true);
    client.output().await.map_err(|error| failed(&error))
}

/// The ssh client for the profile's machine, which has to run.
async fn client(context: &Context<'_>, terminal: &str) -> Result<Command, CommandError> {
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
    client.arg(terminal).arg(context.profile.instance());
    Ok(client)
}

fn failed(error: &std::io::Error) -> CommandError {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            CommandError::new(ErrorKind::MissingDependency, "the ssh client was not found")
                .hint("install the package openssh-client")
        }
        _ => CommandError::new(ErrorKind::Failure, "cannot run ssh").caused_by(error),
    }
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
    fn a_directory_that_cannot_be_entered_is_no_reason_to_fail() {
        let words = ["ls", "a b"].map(str::to_owned);
        assert_eq!(
            in_directory(Some("/home/ada/it's"), &words),
            r"cd -- '/home/ada/it'\''s' 2>/dev/null; 'ls' 'a b'"
        );
        assert_eq!(
            in_directory(Some("/x"), &[]),
            "cd -- '/x' 2>/dev/null; exec \"$SHELL\" -l"
        );
        assert_eq!(in_directory(None, &words), "'ls' 'a b'");
    }

    #[test]
    fn arguments_arrive_whole() {
        let words = ["sh", "-c", "echo 'a  b' $HOME"].map(str::to_owned);
        assert_eq!(
            remote_command(&words),
            r"'sh' '-c' 'echo '\''a  b'\'' $HOME'"
        );
    }
}
