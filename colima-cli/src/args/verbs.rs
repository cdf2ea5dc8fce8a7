//! Verbs with few flags.

use clap::{Args, ValueEnum};

use super::ProfileArg;

/// `colima env`
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:
  eval \"$(colima env)\"              in sh, bash, zsh
  colima env --shell fish | source  in fish")]
pub struct EnvArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Shell that is to read it
    #[arg(long, value_enum, default_value_t = EnvShell::Sh)]
    pub shell: EnvShell,
    /// Print what takes the variables away again
    #[arg(short, long)]
    pub unset: bool,
}

/// A shell that reads variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvShell {
    /// sh, bash, zsh and their relatives
    Sh,
    /// fish
    Fish,
}

/// `colima events`
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Lines of JSON; there is no other form.
    #[arg(short, long)]
    pub json: bool,
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
}

/// `colima nerdctl`
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:
  colima nerdctl -- ps -a        nerdctl ps -a, in the machine")]
pub struct NerdctlArgs {
    /// Arguments of nerdctl
    #[arg(
        value_name = "ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = false
    )]
    pub arguments: Vec<String>,
}

/// `colima prune`
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Also delete images that no profile's machine uses
    #[arg(short, long)]
    pub all: bool,
}

/// `colima update`
#[derive(Args, Clone, Debug)]
pub struct UpdateArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
}

/// `colima doctor`
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Print one JSON object
    #[arg(short, long)]
    pub json: bool,
}

/// Something of Colima's that is not there yet: whatever is typed, the answer is the same.
#[derive(Args, Clone, Debug)]
pub struct NotYetArgs {
    /// Ignored
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}
