//! `stop`, `restart` and `delete`.

use clap::Args;

use super::ProfileArg;

/// `colima stop`
#[derive(Args, Clone, Debug)]
pub struct StopArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Power the machine off, whatever stopMode says
    #[arg(long, conflicts_with = "force")]
    pub shutdown: bool,
    /// Do not wait for the guest: end the machine at once
    #[arg(short, long)]
    pub force: bool,
}

/// `colima restart`
#[derive(Args, Clone, Debug)]
pub struct RestartArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Do not wait for the guest to stop: end the machine at once
    #[arg(short, long)]
    pub force: bool,
}

/// `colima delete`
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Do not ask
    #[arg(short, long, visible_short_alias = 'y', visible_alias = "yes")]
    pub force: bool,
    /// Also delete containers, images and volumes
    #[arg(short, long)]
    pub data: bool,
}
