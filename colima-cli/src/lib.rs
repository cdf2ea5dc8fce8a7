//! The command line of Colima, as a library with `Instance`.

pub mod args;
pub mod assembly;
pub mod certificates;
pub mod command_error;
mod commands;
pub mod control;
pub mod daemon;
pub mod docker_context;
mod docker_relay;
pub mod doctor;
pub mod environment;
pub mod exit_code;
pub mod guest_user;
mod inherited;
pub mod instance;
pub mod mounts;
pub mod other_colima;
pub mod output;
pub mod progress;
pub mod shell_variables;
pub mod ssh;
pub mod ssh_include;
pub mod state_dir;

pub use commands::run;

/// Writes a line to the daemon's log.
pub(crate) fn log_line(line: &str) {
    use std::io::Write as _;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Nobody can be told that the log cannot be written.
    let _ = writeln!(
        std::io::stderr(),
        "{} {}",
        now.unwrap_or_default().as_secs(),
        output::escaped(line)
    );
}
