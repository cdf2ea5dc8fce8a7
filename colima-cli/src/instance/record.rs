//! What is remembered of an instance between commands: `instance.json`.

use std::{fs, io, path::Path};

use colima_core::{Bytes, boot::User};
use colima_vm::image::ImageId;
use serde::{Deserialize, Serialize};

use super::{DataDisk, InstanceSpec, failure};
use crate::{
    command_error::{CommandError, ErrorKind},
    mounts::Share,
    state_dir::write_private,
};

/// What was started last. Whether it still runs is not in here: that is asked of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceRecord {
    /// [`InstanceRecord::VERSION`].
    pub version: u32,
    /// What was asked for.
    pub spec: InstanceSpec,
    /// The image that the root disk lies over.
    pub image: ImageId,
    /// Size that the data disk has.
    pub data_disk_size: Bytes,
    /// The account in the guest.
    pub user: User,
    /// What the guest's processors run on.
    pub accelerator: String,
    /// The port of 127.0.0.1 that leads to the guest's ssh server.
    #[serde(default)]
    pub ssh_port: Option<u16>,
    /// Versions in the guest, by component.
    pub versions: std::collections::BTreeMap<String, String>,
}

impl InstanceRecord {
    /// The version this program writes and reads.
    pub const VERSION: u32 = 1;

    /// The names of settings in which `wanted` differs from what was started.
    #[must_use]
    pub fn differing(&self, wanted: &InstanceSpec) -> Vec<String> {
        let running = &self.spec;
        let mut differing = Vec::new();
        let mut compare = |name: &str, same: bool| {
            if !same {
                differing.push(name.to_owned());
            }
        };
        compare("cpus", running.cpus == wanted.cpus);
        compare("memory", running.memory == wanted.memory);
        let grows = match wanted.data_disk {
            DataDisk::Exactly(size) => size != self.data_disk_size,
            DataDisk::AtLeast(size) => size > self.data_disk_size,
        };
        compare("disk", !grows);
        compare("root-disk", running.root_disk == wanted.root_disk);
        compare("runtime", running.runtime == wanted.runtime);
        compare("ports", running.ports == wanted.ports);
        compare("transport", running.link.carrier == wanted.link.carrier);
        compare("nerdctl", running.nerdctl == wanted.nerdctl);
        compare("ssh-port", running.link.ssh_port == wanted.link.ssh_port);
        compare("mounts", same_shares(&running.mounts, &wanted.mounts));
        compare("protect", running.protect.paths == wanted.protect.paths);
        if let (Some(told), Some(wanted)) = (&running.guest, &wanted.guest) {
            differing.extend(told.differing(wanted));
        }
        differing
    }

    /// Reads the record at `path`.
    ///
    /// # Errors
    ///
    /// Fails when there is none, or one of another version.
    pub fn read(path: &Path) -> Result<Self, CommandError> {
        match Self::find(path)? {
            Some(record) => Ok(record),
            None => Err(failure::file("read", path, &io::ErrorKind::NotFound.into())),
        }
    }

    /// Reads the record at `path`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or understood.
    pub fn find(path: &Path) -> Result<Option<Self>, CommandError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure::file("read", path, &error)),
        };
        // The version is read first: another version may look quite different.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| {
            let what = format!("{} is damaged", path.display());
            CommandError::new(ErrorKind::Failure, what)
                .caused_by(&error)
                .hint("remove that file and start again: images, containers and volumes are kept")
        };
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version != Self::VERSION {
            let what = format!(
                "{} has version {version}, this program knows {}",
                path.display(),
                Self::VERSION
            );
            return Err(CommandError::new(ErrorKind::Failure, what)
                .hint("use the version of colima that wrote it, or a newer one"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes the record to `path`: after a crash there is the old one or the new one.
    ///
    /// # Errors
    ///
    /// Fails as the file system does.
    pub fn write(&self, path: &Path) -> Result<(), CommandError> {
        let failed = |error: &io::Error| failure::file("write", path, error);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(&error.into()))?;
        text.push(b'\n');
        write_private(path, &text).map_err(|error| failed(&error))
    }
}
/// Whether both are the same directories at the same places, in any order and over any ports.
fn same_shares(some: &[Share], others: &[Share]) -> bool {
    some.len() == others.len()
        && some
            .iter()
            .all(|share| others.iter().any(|other| other.is_like(share)))
}
