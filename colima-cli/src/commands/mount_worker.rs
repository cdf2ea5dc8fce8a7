//! `colima mount-worker`: a process of the daemon's that serves one shared directory.

use crate::{
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    mounts::worker,
};

pub(super) fn run() -> Result<ExitCode, CommandError> {
    crate::inherited::close();
    worker::run().map_err(|error| {
        CommandError::new(ErrorKind::Failure, "the directory is not served any more")
            .caused_by(&error)
    })?;
    Ok(ExitCode::Ok)
}
