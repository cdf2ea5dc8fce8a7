//! Whether a machine runs, without taking hold of it.

use std::path::Path;

use super::{
    directory::Directory,
    error::{Error, Result},
    handle::Machine,
    lock,
    process::Process,
    record::MachineRecord,
};

impl Machine {
    /// Whether the machine of `directory` runs, by the same proof as [`Machine::attach`]; a missing
    /// directory has none. Opens no connection, so it takes microseconds and disturbs nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] and [`Error::Directory`] when the files that tell cannot be read.
    pub fn is_running(directory: &Path) -> Result<bool> {
        let directory = match Directory::existing(directory) {
            Err(Error::NotRunning { .. }) => return Ok(false),
            other => other?,
        };
        let Some(record) = MachineRecord::read(&directory.record())? else {
            return Ok(false);
        };
        match Process::open(&record.process) {
            Ok(Some(_)) => {
                lock::is_held(&directory.lock()).map_err(Error::directory("test", directory.lock()))
            }
            Ok(None) => Ok(false),
            Err(source) => Err(Error::Process {
                action: "watch",
                pid: record.process.pid,
                source,
            }),
        }
    }
}
