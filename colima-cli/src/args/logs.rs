//! `logs`.

use clap::Args;

use super::ProfileArg;

/// `colima logs`
#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// The profile.
    #[command(flatten)]
    pub profile: ProfileArg,
    /// Keep printing what comes
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines to print from the end
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    pub lines: usize,
    /// The machine's serial console: kernel and boot
    #[arg(long, group = "source")]
    serial: bool,
    /// The profile's supervisor (the default)
    #[arg(long, group = "source")]
    daemon: bool,
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// The profile's supervisor.
    Daemon,
    /// The machine's serial console.
    Serial,
}

impl LogsArgs {
    /// Which log was asked for.
    #[must_use]
    pub fn source(&self) -> LogSource {
        match (self.serial, self.daemon) {
            (true, _) => LogSource::Serial,
            (false, _) => LogSource::Daemon,
        }
    }
}
