//! `config` and `template`.

use clap::{Args, Subcommand};

use super::{ProfileArg, SettingsArgs};

/// `colima config`
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// What to tell.
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// What to tell of the configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every key with its value and where that comes from
    Show(Box<ConfigShowArgs>),
    /// Print the JSON Schema of colima.yaml, for editors
    Schema,
}

/// `colima config show`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "With flags of start: what a start with these flags would use. Nothing is changed."
)]
pub struct ConfigShowArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Print one JSON array
    #[arg(short, long)]
    pub json: bool,
    /// The flags of a start.
    #[command(flatten)]
    pub wanted: SettingsArgs,
}

/// `colima template`
#[derive(Args, Clone, Debug)]
pub struct TemplateArgs {
    /// Print the template and leave it as it is
    #[arg(long)]
    pub print: bool,
    /// Editor [default: EDITOR]
    #[arg(long, value_name = "COMMAND")]
    pub editor: Option<String>,
}
