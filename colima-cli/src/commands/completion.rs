//! `colima completion`.

use super::print;
use crate::{args::CompletionArgs, command_error::CommandError, exit_code::ExitCode};

pub(super) fn run(args: &CompletionArgs) -> Result<ExitCode, CommandError> {
    print(args.script())?;
    Ok(ExitCode::Ok)
}
