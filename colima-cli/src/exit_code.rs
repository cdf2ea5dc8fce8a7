//! What the exit code of `colima` means.

/// How a command ended, as scripts see it. Every failure is non-zero, as in Colima.
///
/// | code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | failed |
/// | 2 | the command line or `colima.yaml` is wrong |
/// | 3 | the profile does not run, or there is none of that name |
/// | 4 | a program that is needed is not installed |
/// | 5 | a step did not finish in its time |
/// | 6 | another command is at work on the profile |
/// | 7 | Colima has it, and this program does not yet |
/// | 130 | interrupted |
///
/// `colima ssh` with a command exits with the command's own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Ok,
    /// Failed for a reason that no other code names.
    Failure,
    /// The command line or the configuration is wrong.
    Usage,
    /// The profile does not run, or there is none of that name.
    NotRunning,
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
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::MissingDependency => 4,
            Self::Timeout => 5,
            Self::Busy => 6,
            Self::NotYet => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}
