//! `colima mount`, and `--mount`.

use clap::{Args, Subcommand};
use colima_core::config::{MountEntry, Mounts, ParseMountError};

use super::ProfileArg;

/// A value of `--mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountArg {
    /// No host directory is shared.
    None,
    /// This one.
    Directory(MountEntry),
}

impl std::str::FromStr for MountArg {
    type Err = ParseMountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            text => text.parse().map(Self::Directory),
        }
    }
}

/// What was typed, taken together. As in Colima, `none` is what counts beside anything else.
pub(super) fn typed(mounts: &[MountArg]) -> Option<Mounts> {
    let directories = mounts.iter().map(|mount| match mount {
        MountArg::None => None,
        MountArg::Directory(entry) => Some(entry.clone()),
    });
    (!mounts.is_empty()).then(|| {
        directories
            .collect::<Option<_>>()
            .map_or(Mounts::None, Mounts::These)
    })
}

/// `colima mount`
#[derive(Args, Clone, Debug)]
pub struct MountArgs {
    /// What to do about shared directories.
    #[command(subcommand)]
    pub verb: MountVerb,
}

/// What to do about shared directories.
#[derive(Clone, Debug, Subcommand)]
pub enum MountVerb {
    /// List the directories of this host that the machine has, and whether they work
    #[command(visible_alias = "ls")]
    List(MountListArgs),
    /// Share a directory with the running machine, until it stops
    Add(MountAddArgs),
    /// Take a shared directory away from the running machine, until it stops
    #[command(visible_alias = "rm")]
    Remove(MountRemoveArgs),
}

/// `colima mount list`
#[derive(Args, Clone, Debug)]
pub struct MountListArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Print one JSON object per line
    #[arg(short, long)]
    pub json: bool,
}

/// `colima mount add`
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:
  colima mount add ~/src:w            writable, under the same path
  colima mount add /data:/fixtures    read-only, under another path")]
pub struct MountAddArgs {
    /// Directory of this host, where the machine has it, and w where the machine may change it
    #[arg(value_name = "PATH[:MOUNT][:w]")]
    pub directory: MountEntry,
    /// Write it into colima.yaml as well, for later starts
    #[arg(long)]
    pub save: bool,
}

/// `colima mount remove`
#[derive(Args, Clone, Debug)]
pub struct MountRemoveArgs {
    /// Its path, on this host or in the machine
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Take it out of colima.yaml as well, for later starts
    #[arg(long)]
    pub save: bool,
}
