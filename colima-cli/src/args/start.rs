//! `start`.

use clap::Args;
use colima_core::config::Settings;

use super::{
    MountArg, ProfileArg, SettingsArgs,
    legacy::{LegacyFlag, LegacyFlags},
    mount,
};
use crate::environment::Environment;

/// `colima start`
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:
  colima start                            with what colima.yaml says, or the defaults
  colima start --cpus 4 --memory 8        more processors and memory, also for later starts
  colima start work --disk 200GiB         another profile, with a larger disk
  colima start --mount ~/src:w            with one directory of this host, writable
  colima start --runtime none             a machine without container runtime",
    after_help = "A flag wins over colima.yaml and is written back to it. Sizes without a unit count GiB."
)]
pub struct StartArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,

    /// What the machine is to be.
    #[command(flatten)]
    pub wanted: SettingsArgs,

    /// Directory of this host to share, read-only without w; repeatable [default: home and /tmp/colima, writable]
    #[arg(
        short = 'V',
        long,
        value_name = "PATH[:MOUNT][:w]|none",
        help_heading = "Mounts"
    )]
    pub mount: Vec<MountArg>,

    /// Stay in the foreground until interrupted, then stop the machine
    #[arg(short, long, help_heading = "Advanced")]
    pub foreground: bool,

    /// Boot, and drop the memory of a machine that is suspended
    #[arg(long, help_heading = "Advanced")]
    pub cold: bool,

    /// Edit colima.yaml before the start
    #[arg(short, long, help_heading = "Configuration")]
    pub edit: bool,
    /// Editor for --edit [default: EDITOR]
    #[arg(long, value_name = "COMMAND", help_heading = "Configuration")]
    pub editor: Option<String>,
    /// Begin a new profile with the template [default: true]
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", help_heading = "Configuration"
    )]
    template: Option<bool>,
    /// Write flags back to colima.yaml [default: true]
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", help_heading = "Configuration"
    )]
    save_config: Option<bool>,
    #[command(flatten)]
    legacy: LegacyFlags,
}

/// Whether the docker context becomes the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It does.
    Activate,
    /// The current context stays.
    Leave,
}

impl From<bool> for Activation {
    fn from(activate: bool) -> Self {
        if activate {
            Self::Activate
        } else {
            Self::Leave
        }
    }
}

impl StartArgs {
    /// What was typed, as the topmost layer of settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            mounts: mount::typed(&self.mount),
            ..self.wanted.settings()
        }
    }

    /// Whether a new profile begins with the user's template.
    #[must_use]
    pub fn uses_template(&self) -> bool {
        self.template.unwrap_or(true)
    }

    /// Whether what was typed is to be written back to `colima.yaml`.
    #[must_use]
    pub fn saves_config(&self, environment: &Environment) -> bool {
        self.save_config.or(environment.save_config).unwrap_or(true)
    }

    /// The flags of Colima's that were typed and have no effect, to be answered with one line each.
    #[must_use]
    pub fn without_effect(&self) -> Vec<LegacyFlag> {
        self.legacy.typed.clone()
    }
}
