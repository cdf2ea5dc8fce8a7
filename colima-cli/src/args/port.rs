//! `colima port`

use clap::{Args, Subcommand};

use super::ProfileArg;

/// `colima port`
#[derive(Args, Clone, Debug)]
pub struct PortArgs {
    /// What to do about ports.
    #[command(subcommand)]
    pub verb: PortVerb,
}

/// What to do about ports.
#[derive(Clone, Debug, Subcommand)]
pub enum PortVerb {
    /// List the ports of the machine that are open on this host
    #[command(visible_alias = "ls")]
    List(PortListArgs),
}

/// `colima port list`
#[derive(Args, Clone, Debug)]
pub struct PortListArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Print one JSON object per line
    #[arg(short, long)]
    pub json: bool,
}
