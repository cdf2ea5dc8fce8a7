//! `ssh`.

use clap::Args;

/// `colima ssh`
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:
  colima ssh                     a shell in the machine
  colima ssh -- docker info      one command; its exit code becomes colima's
  colima ssh -p work -- ls /     in another profile")]
pub struct SshArgs {
    /// Command and its arguments; without one a shell is opened
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = false
    )]
    pub command: Vec<String>,
}
