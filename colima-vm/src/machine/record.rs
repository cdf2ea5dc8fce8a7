//! `machine.json`: what was started, for whoever comes later.
//!
//! The record alone proves nothing. It is believed when the lock is held and the process has the
//! recorded identity.

use std::{fs, io, io::Write as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    accelerator::Accelerator,
    error::{Error, Result},
    process::Identity,
    spec::MachineSpec,
};

/// What `machine.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// [`MachineRecord::VERSION`].
    pub version: u32,
    /// QEMU's process.
    pub process: Identity,
    /// What the guest's processors run on.
    pub accelerator: Accelerator,
    /// Version of the QEMU that was started, as it said itself.
    pub qemu_version: String,
    /// SHA-256 of QEMU's arguments, each followed by a NUL, in hexadecimal.
    pub arguments_digest: String,
    /// What was asked for.
    pub spec: MachineSpec,
}

impl MachineRecord {
    /// The version this program writes and reads.
    pub const VERSION: u32 = 1;

    /// Reads the record; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let refuse = |reason: String| Error::Record {
            path: path.to_owned(),
            reason,
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::directory("read", path)(error)),
        };
        // The version is looked at first, so that a newer record is named as such.
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(Self::VERSION) => {}
            other => return Err(refuse(format!("its version is {other:?}"))),
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| refuse(error.to_string()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Record {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        replace_file(path, &text).map_err(Error::directory("write", path))
    }
}

/// Replaces a file so that a crash leaves the old or the new content, never a mixture.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let parent = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = parent.join(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    fs::File::open(parent)?.sync_all()
}
