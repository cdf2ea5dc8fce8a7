//! `colima ssh-config`, and the line in the user's own ssh configuration.

use std::{fs, io};

use super::{Context, print, say, state_error};
use crate::{
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    ssh_include::{SshInclude, SshIncludeError},
};

/// Prints what ssh has to know of the profile's machine.
pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, CommandError> {
    context.state.check_version().map_err(state_error)?;
    let path = &context.paths.ssh_config;
    match fs::read(path) {
        Ok(text) => print(text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = context.profile.display_name();
            return Err(CommandError::new(
                ErrorKind::NoSuchProfile,
                format!("{name} was never started, so ssh knows nothing of it"),
            )
            .hint("start it: colima start"));
        }
        Err(error) => {
            let what = format!("cannot read {}", path.display());
            return Err(CommandError::new(ErrorKind::Failure, what).caused_by(&error));
        }
    }
    Ok(ExitCode::Ok)
}

/// Whether `~/.ssh/config` names the profile's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// It does.
    Named,
    /// It does not.
    Unnamed,
}

impl From<bool> for Naming {
    fn from(named: bool) -> Self {
        if named { Self::Named } else { Self::Unnamed }
    }
}

/// Names the profile's machine in `~/.ssh/config`, or takes it out.
///
/// The machine runs by then, so a failure is told and does not undo the start.
pub(super) fn include(context: &Context<'_>, wanted: Naming) {
    let included = files(context).and_then(|files| {
        let config = &context.paths.ssh_config;
        let done = match wanted {
            Naming::Named => files.add(config),
            Naming::Unnamed => files.remove(config),
        };
        done.map_err(|error| failed(&error))
    });
    if let Err(error) = included {
        say(&error.to_string());
    }
}

fn files(context: &Context<'_>) -> Result<SshInclude, CommandError> {
    Ok(SshInclude {
        user_config: context.environment.home()?.join(".ssh/config"),
        included: context.state.ssh_include(),
    })
}

fn failed(error: &SshIncludeError) -> CommandError {
    CommandError::new(ErrorKind::Failure, "~/.ssh/config was left as it is")
        .caused_by(error)
        .hint("ssh can be told without it: colima ssh-config > FILE && ssh -F FILE colima")
}
