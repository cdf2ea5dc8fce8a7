//! Whether a machine runs, without taking hold of it.

use std::path::Path;

use super::{
    directory::Directory,
    error::{Error, Result},
    handle::Machine,
    lock,
    process::Identity,
    record::MachineRecord,
};

impl Machine {
    /// Whether the machine of `directory` runs, by the same proof as [`Machine::attach`]; a missing
    /// directory has none. Opens no connection, so it takes microseconds and disturbs nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Record`], [`Error::Directory`] and [`Error::Process`] when what tells cannot be read.
    pub fn is_running(directory: &Path) -> Result<bool> {
        let directory = match Directory::existing(directory) {
            Err(Error::NotRunning { .. }) => return Ok(false),
            other => other?,
        };
        let Some(record) = MachineRecord::read(&directory.record())? else {
            return Ok(false);
        };
        let pid = record.process.pid;
        let found = Identity::of(pid).map_err(|source| Error::Process {
            action: "identify",
            pid,
            source,
        })?;
        if found.as_ref() != Some(&record.process) {
            return Ok(false);
        }
        lock::is_held(&directory.lock()).map_err(Error::directory("test", directory.lock()))
    }
}
