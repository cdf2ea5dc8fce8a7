//! The command line: what can be typed, and nothing of what is done about it.
//!
//! Verbs with many flags have a file of their own. Names, aliases and short flags are Colima's.

mod completion;
mod config;
mod image;
mod legacy;
mod logs;
mod mount;
mod port;
mod profile_choice;
mod settings;
mod ssh;
mod start;
mod stop;
mod verbs;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use self::{
    completion::CompletionArgs,
    config::{ConfigArgs, ConfigShowArgs, ConfigVerb, TemplateArgs},
    image::{ImageArgs, ImageVerb},
    legacy::LegacyFlag,
    logs::{LogSource, LogsArgs},
    mount::{MountAddArgs, MountArg, MountArgs, MountListArgs, MountRemoveArgs, MountVerb},
    port::{PortArgs, PortListArgs, PortVerb},
    profile_choice::ProfileArg,
    settings::{PortForwarderArg, RuntimeArg, SettingsArgs},
    ssh::SshArgs,
    start::{Activation, StartArgs},
    stop::{DeleteArgs, RestartArgs, StopArgs},
    verbs::{
        DoctorArgs, EnvArgs, EnvShell, EventsArgs, NerdctlArgs, NotYetArgs, PruneArgs, UpdateArgs,
    },
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
    /// How progress is shown on standard error: auto, tty, plain, json or none
    #[arg(
        long, global = true, value_enum, value_name = "HOW", default_value_t = ProgressArg::Auto,
        hide_possible_values = true, help_heading = "Global options"
    )]
    pub progress: ProgressArg,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressArg {
    /// a line that is rewritten on a terminal, else plain lines
    #[default]
    Auto,
    /// a line that is rewritten
    Tty,
    /// plain lines
    Plain,
    /// a JSON object per line
    Json,
    /// nothing
    None,
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
    /// Tell which directories of this host the machine has, and change that
    Mount(MountArgs),
    /// Print what ssh has to know of the machine
    SshConfig(SshConfigArgs),
    /// Print the variables that lead docker and its relatives to the machine
    Env(EnvArgs),
    /// Print a line of JSON now and whenever the machine starts, runs, stops or breaks
    Events(EventsArgs),
    /// Run nerdctl in the machine
    #[command(visible_aliases = ["nerd", "n"])]
    Nerdctl(NerdctlArgs),
    /// Update the container runtime in the machine; containers and images are kept
    #[command(visible_aliases = ["u", "up"])]
    Update(UpdateArgs),
    /// Delete what was downloaded and can be downloaded again
    Prune(PruneArgs),
    /// Look for what keeps machines from starting or working on this host
    Doctor(DoctorArgs),
    /// Kubernetes in the machine; not available yet
    #[command(hide = true, visible_aliases = ["kube", "k8s", "k3s", "k"], disable_help_flag = true)]
    Kubernetes(NotYetArgs),
    /// Language models in the machine; not available yet
    #[command(hide = true, disable_help_flag = true)]
    Model(NotYetArgs),
    /// Show what a profile wants, and where each value comes from
    Config(ConfigArgs),
    /// Edit the colima.yaml that new profiles begin with
    #[command(visible_aliases = ["tmpl", "tpl", "t"])]
    Template(TemplateArgs),
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
    /// Serves one shared directory, started by the daemon
    #[command(hide = true)]
    MountWorker(MountWorkerArgs),
    /// Writes a manual page of every verb into a directory
    #[command(hide = true)]
    Man(ManArgs),
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
    /// Print the names alone and ask no profile how it is; for completion
    #[arg(long, hide = true)]
    pub names: bool,
}

/// `colima ssh-config`
#[derive(Args, Clone, Debug)]
pub struct SshConfigArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
}

/// `colima version`
#[derive(Args, Clone, Debug)]
pub struct VersionArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
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

/// `colima mount-worker`
#[derive(Args, Clone, Debug)]
pub struct MountWorkerArgs {
    /// The directory, for whoever looks at the list of processes
    #[arg(hide = true)]
    pub location: Option<std::ffi::OsString>,
}

/// `colima man`
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Directory, such as ~/.local/share/man/man1
    pub directory: PathBuf,
}

/// `colima proxy`
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Socket to connect to
    pub socket: PathBuf,
}
