//! Which profile is meant.

use clap::Args;
use colima_core::{ParseProfileNameError, ProfileName};

use super::{Cli, ConfigArgs, ConfigVerb, MountArgs, MountVerb, PortArgs, PortVerb, Verb};
use crate::environment::Environment;

/// The profile as an argument.
#[derive(Args, Clone, Debug, Default)]
pub struct ProfileArg {
    /// Profile, as with --profile
    #[arg(value_name = "PROFILE")]
    pub name: Option<String>,
}

impl Cli {
    /// The profile that is meant: `--profile`, else the argument, else `COLIMA_PROFILE`, else the default.
    ///
    /// # Errors
    ///
    /// The name that was given cannot be one.
    pub fn profile(&self, environment: &Environment) -> Result<ProfileName, ParseProfileNameError> {
        let named = self
            .global
            .profile
            .as_deref()
            .or_else(|| self.verb.profile_argument())
            .or(environment.profile.as_deref());
        named.map_or_else(|| Ok(ProfileName::default()), str::parse)
    }

    /// Whether the command line itself names a profile: `list` then shows only that one.
    #[must_use]
    pub fn names_profile(&self) -> bool {
        self.global.profile.is_some() || self.verb.profile_argument().is_some()
    }
}

impl Verb {
    fn profile_argument(&self) -> Option<&str> {
        let argument = match self {
            Self::Start(args) => &args.profile,
            Self::Stop(args) => &args.profile,
            Self::Restart(args) => &args.profile,
            Self::Delete(args) => &args.profile,
            Self::Status(args) => &args.profile,
            Self::List(args) => &args.profile,
            Self::Version(args) => &args.profile,
            Self::SshConfig(args) => &args.profile,
            Self::Env(args) => &args.profile,
            Self::Events(args) => &args.profile,
            Self::Update(args) => &args.profile,
            Self::Doctor(args) => &args.profile,
            Self::Logs(args) => &args.profile,
            Self::Port(PortArgs {
                verb: PortVerb::List(args),
            }) => &args.profile,
            Self::Config(ConfigArgs {
                verb: ConfigVerb::Show(args),
            }) => &args.profile,
            Self::Mount(MountArgs {
                verb: MountVerb::List(args),
            }) => &args.profile,
            Self::Ssh(_)
            | Self::Mount(_)
            | Self::MountWorker(_)
            | Self::Config(_)
            | Self::Template(_)
            | Self::Nerdctl(_)
            | Self::Prune(_)
            | Self::Kubernetes(_)
            | Self::Model(_)
            | Self::Man(_)
            | Self::Completion(_)
            | Self::Image(_)
            | Self::Daemon(_)
            | Self::Proxy(_) => return None,
        };
        argument.name.as_deref()
    }
}
