//! The command line: what can be typed, and nothing of what is done about it.
//!
//! Verbs with many flags have a file of their own. Names, aliases and short flags are Colima's.

mod image;
mod legacy;
mod logs;
mod port;
mod profile_choice;
mod ssh;
mod start;
mod stop;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use self::{
    image::{ImageArgs, ImageVerb},
    legacy::LegacyFlag,
    logs::{LogSource, LogsArgs},
    port::{PortArgs, PortListArgs, PortVerb},
    profile_choice::ProfileArg,
    ssh::SshArgs,
    start::{Activation, MountArg, PortForwarderArg, RuntimeArg, StartArgs},
    stop::{DeleteArgs, RestartArgs, StopArgs},
};

/// Everything that was typed.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "colima",
    version,
    about = "Docker in a small Linux virtual machine",
    before_help = "Examples:
  colima start                        start docker in a virtual machine
  colima start --cpus 4 --memory 8    the same, with more of everything
  colima status                       what runs, and whether it works
  colima ssh -- uname -a              run a command in the machine
  colima stop                         stop it; containers and images are kept",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Profile: a machine of its own, with its own containers and images
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Global options",
        long_help = "Profile: a machine of its own, with its own containers and images.\n\
                     Without it the argument [PROFILE] counts, then the environment variable \
                     COLIMA_PROFILE, then the profile is \"default\""
    )]
    pub profile: Option<String>,
    /// Accepted for scripts that pass it to Colima
    #[arg(short, long, global = true, hide = true, action = ArgAction::SetTrue)]
    pub verbose: bool,
    /// Say everything
    #[arg(long, global = true, hide = true, action = ArgAction::SetTrue)]
    pub very_verbose: bool,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Start a profile's machine and its container runtime
    Start(Box<StartArgs>),
    /// Stop a profile's machine; containers, images and volumes are kept
    Stop(StopArgs),
    /// Stop a profile's machine and boot it again
    Restart(RestartArgs),
    /// Delete a profile's machine; containers, images and volumes are kept unless --data is given
    Delete(DeleteArgs),
    /// Tell whether a profile's machine runs and works
    Status(StatusArgs),
    /// List the profiles
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Open a shell in the machine, or run a command there
    #[command(visible_aliases = ["exec", "x"])]
    Ssh(SshArgs),
    /// Tell which ports of the machine are open on this host
    Port(PortArgs),
    /// Print versions
    Version(VersionArgs),
    /// Print what the machine and its supervisor wrote
    Logs(LogsArgs),
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Build and look after the images that machines boot from
    Image(ImageArgs),
    /// The supervisor of a profile, started by `start`
    #[command(hide = true)]
    Daemon(DaemonArgs),
    /// Joins standard input and output to a unix socket (ProxyCommand of ssh)
    #[command(hide = true)]
    Proxy(ProxyArgs),
}

/// `colima status`
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Also print processors, memory and disk
    #[arg(short, long)]
    pub extended: bool,
    /// Print one JSON object
    #[arg(short, long)]
    pub json: bool,
}

/// `colima list`
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Print one JSON object per line
    #[arg(short, long)]
    pub json: bool,
}

/// `colima version`
#[derive(Args, Clone, Debug)]
pub struct VersionArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
}

/// `colima completion`
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

impl CompletionArgs {
    /// The completion script.
    #[must_use]
    pub fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        let mut command = <Cli as clap::CommandFactory>::command();
        clap_complete::generate(self.shell, &mut command, "colima", &mut script);
        script
    }
}

/// `colima daemon`
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// What the daemon is to do.
    #[command(subcommand)]
    pub verb: DaemonVerb,
}

/// What the daemon is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum DaemonVerb {
    /// Supervise the profile until its machine is stopped
    Run,
}

/// `colima proxy`
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Socket to connect to
    pub socket: PathBuf,
}
