//! What a command says when it fails: what, why, and what to do.

use std::{error::Error, fmt};

use colima_core::ProfileName;
use serde::{Deserialize, Serialize};

use crate::{exit_code::ExitCode, output::escaped};

/// The kind of a failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// None of the others.
    Failure,
    /// The command line is wrong.
    Usage,
    /// `colima.yaml` is wrong.
    Config,
    /// The profile does not run.
    NotRunning,
    /// There is no profile of that name.
    NoSuchProfile,
    /// A program that is needed is not installed.
    MissingDependency,
    /// A step did not finish in its time.
    Timeout,
    /// Another command is at work on the profile.
    Busy,
    /// Colima has it, and this program does not yet.
    NotYet,
    /// Ended by Ctrl-C or a signal.
    Interrupted,
    /// Whoever read the output left. Nothing is printed for it.
    ReaderLeft,
}

impl ErrorKind {
    /// The exit code of a command that failed so.
    #[must_use]
    pub const fn exit_code(self) -> ExitCode {
        match self {
            Self::Failure => ExitCode::Failure,
            Self::Usage | Self::Config => ExitCode::Usage,
            Self::NotRunning | Self::NoSuchProfile => ExitCode::NotRunning,
            Self::MissingDependency => ExitCode::MissingDependency,
            Self::Timeout => ExitCode::Timeout,
            Self::Busy => ExitCode::Busy,
            Self::NotYet => ExitCode::NotYet,
            Self::Interrupted => ExitCode::Interrupted,
            Self::ReaderLeft => ExitCode::Ok,
        }
    }
}

/// A command's failure, ready to be printed.
///
/// Displays as one or more lines without a final newline: `error: what`, a `caused by:` line per
/// cause, a `hint:` line. Control characters are escaped: much of it was written by the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What failed.
    pub what: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl CommandError {
    /// A failure without causes or hint.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Adds an error and all its sources as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        self.causes.extend(causes(error));
        self
    }

    /// Adds one line of explanation as a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the profile in the commands of the hint, unless it is the default one: a hint that was
    /// followed must not act on another profile.
    #[must_use]
    pub fn for_profile(&self, profile: &ProfileName) -> Self {
        let hint = self.hint.as_deref().map(|hint| naming(hint, profile));
        Self {
            hint,
            ..self.clone()
        }
    }

    /// The exit code of the command.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        self.kind.exit_code()
    }
}

/// `text` with `--profile` added to the commands of `colima` in it that take one.
#[must_use]
pub fn naming(text: &str, profile: &ProfileName) -> String {
    if *profile == ProfileName::default() || text.contains("--profile") {
        return text.to_owned();
    }
    [
        "start",
        "stop",
        "restart",
        "delete",
        "status",
        "logs",
        "ssh",
        "config show",
        "update",
        "doctor",
    ]
    .iter()
    .fold(text.to_owned(), |text, verb| {
        let command = format!("colima {verb}");
        text.replace(&command, &format!("{command} --profile {profile}"))
    })
}

/// What an error says, and then each of its causes.
fn causes(error: &dyn Error) -> impl Iterator<Item = String> {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string)
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    causes(error).collect::<Vec<_>>().join(": ")
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", escaped(&self.what))?;
        for cause in &self.causes {
            // What another program said may have lines; each is escaped, none can pass for ours.
            for (number, line) in cause.lines().enumerate() {
                let head = if number == 0 {
                    "caused by:"
                } else {
                    "          "
                };
                write!(f, "\n{head} {}", escaped(line))?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", escaped(hint))?;
        }
        Ok(())
    }
}

impl Error for CommandError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_profile() {
        let work: ProfileName = "work".parse().unwrap();
        let error =
            CommandError::new(ErrorKind::Failure, "x").hint("begin anew: colima delete --data");
        let hint = |profile: &ProfileName| error.for_profile(profile).hint.unwrap();
        assert_eq!(
            hint(&ProfileName::default()),
            "begin anew: colima delete --data"
        );
        assert_eq!(
            hint(&work),
            "begin anew: colima delete --profile work --data"
        );
        assert_eq!(
            naming("colima restart", &work),
            "colima restart --profile work"
        );
    }
}
