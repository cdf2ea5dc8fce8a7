//! The mark of a start under way.

use std::{fs, path::PathBuf};

use super::failure;
use crate::{
    command_error::CommandError,
    state_dir::{ProfilePaths, write_private},
};

/// A file in the machine's directory. While it is there nobody was told that the machine runs, so
/// what a killed daemon leaves behind may be ended.
#[derive(Debug)]
pub(super) struct Unfinished {
    mark: PathBuf,
}

impl Unfinished {
    fn mark(paths: &ProfilePaths) -> PathBuf {
        paths.machine_dir.join("unfinished")
    }

    /// Sets the mark. Dropping the value leaves it: whoever gives a start up cleans up after it.
    pub(super) fn begin(paths: &ProfilePaths) -> Result<Self, CommandError> {
        let mark = Self::mark(paths);
        write_private(&mark, b"").map_err(|error| failure::file("write", &mark, &error))?;
        Ok(Self { mark })
    }

    /// Takes the mark away: from here on the machine is somebody's.
    pub(super) fn end(self) -> Result<(), CommandError> {
        fs::remove_file(&self.mark).map_err(|error| failure::file("remove", &self.mark, &error))
    }

    pub(super) fn is_there(paths: &ProfilePaths) -> bool {
        Self::mark(paths).exists()
    }

    pub(super) fn forget(paths: &ProfilePaths) {
        // Gone already, or in a directory that cannot be written: the next start says so.
        let _ = fs::remove_file(Self::mark(paths));
    }
}
