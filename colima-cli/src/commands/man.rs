//! `colima man`: manual pages from the definitions that also parse.

use clap::CommandFactory as _;

use super::say;
use crate::{
    args::{Cli, ManArgs},
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
};

pub(super) fn run(args: &ManArgs) -> Result<ExitCode, CommandError> {
    let directory = &args.directory;
    let failed = |error: std::io::Error| {
        let what = format!("cannot write manual pages to {}", directory.display());
        CommandError::new(ErrorKind::Failure, what).caused_by(&error)
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    say(&format!(
        "read them: man -l {}/colima.1",
        directory.display()
    ));
    Ok(ExitCode::Ok)
}
