//! The life of a saved state: decided purely, and carried by the name of one file.
//!
//! ```text
//!   nothing --suspend--> state.saving --fsync, rename, fsync--> state.saved --rename, fsync--> state.consumed
//!      ^                     |                                      |                             |
//!      |                     | failed, or its saver was killed      | discarded                   | cont, unlink
//!      +---------------------+--------------------------------------+-----------------------------+
//! ```
//!
//! A state is used once, because memory that is older than the disks destroys them. Three rules make
//! that provable:
//!
//! * Only `state.saved` is ever loaded, and it gets that name when it is whole, is on the host's disk, and so is
//!   everything the guest wrote before it.
//! * The guest's processors run only by [`super::resume::let_run`], which first takes the name away, durably. Until
//!   then QEMU leaves the disks alone (`late-block-activate` of QEMU's `qapi/migration.json`).
//! * The state names every image file with its size, inode and time of change. One that was written to by
//!   anybody else since makes the state unloadable.
//!
//! Whoever is killed on the way leaves a file name and a QEMU, and [`repair`] says what becomes of them.

use std::{
    fs, io,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use colima_core::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    accelerator::Accelerator,
    directory::Directory,
    error::{Error, Result},
    lock::MachineLock,
    qemu::QemuVersion,
    qmp::RunState,
    spec::MachineSpec,
};

/// How far the state in a directory is, told by the name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Nothing,
    /// Being written, or left so by a saver that was killed.
    Saving,
    /// Whole; the disks are as it knows them.
    Saved,
    /// A guest may have run on from it.
    Consumed,
}

/// What whoever finds a machine has to do for one who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    Nothing,
    /// Let the guest run.
    Run,
    /// Give the save up and let the guest run on.
    TakeBack,
    /// The state is whole: QEMU has to go.
    Finish,
    /// The guest runs: its state is worth nothing.
    Forget,
}

/// Decides that from what the guest does and how far the state is.
pub(super) const fn repair(run: RunState, life: Life) -> Repair {
    match (run, life) {
        // Its launcher was killed before the last step.
        (RunState::Prelaunch, _) | (RunState::Paused, Life::Saved | Life::Consumed) => Repair::Run,
        (RunState::Saved, Life::Saved) => Repair::Finish,
        (RunState::Saved, _) | (RunState::Saving | RunState::Paused, Life::Saving) => {
            Repair::TakeBack
        }
        (RunState::Running, Life::Saving | Life::Saved | Life::Consumed) => Repair::Forget,
        _ => Repair::Nothing,
    }
}

/// What a saved state says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRecord {
    /// The machine it is of.
    pub spec: MachineSpec,
    /// What the guest's processors ran on; they run on nothing else.
    pub accelerator: Accelerator,
    /// The QEMU that wrote it; no other one loads it.
    pub qemu_version: QemuVersion,
    /// Length of the whole file in bytes.
    length: u64,
    /// The image files as the guest's memory knows them.
    images: Vec<ImageMark>,
}

/// An image file at the moment of the save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageMark {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// Bytes before QEMU's part of the file: [`MAGIC`], a [`StateRecord`] as JSON, NULs.
const HEADER: u64 = 64 * 1024;

/// The first line, with the version of everything after it.
const MAGIC: &[u8] = b"colima-vm saved state 1\n";

/// A machine that was saved and does not run. [`super::Machine::load`] brings it back.
///
/// A plain value: dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct SavedState {
    record: StateRecord,
}

impl SavedState {
    /// What is saved in a machine's directory; `None` also when that does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Unloadable`] when there is something that is of no use; see [`SavedState::discard`].
    pub fn find(directory: &Path) -> Result<Option<Self>> {
        let directory = match Directory::existing(directory) {
            Err(Error::NotRunning { .. }) => return Ok(None),
            other => other?,
        };
        Ok(open(&directory)?.map(|(record, _)| Self { record }))
    }

    /// Removes whatever is saved in a machine's directory; says whether there was a state.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyRunning`] when a machine runs there: then there is nothing to discard.
    pub fn discard(directory: &Path) -> Result<bool> {
        let directory = match Directory::existing(directory) {
            Err(Error::NotRunning { .. }) => return Ok(false),
            other => other?,
        };
        let lock = MachineLock::take(&directory.lock())
            .map_err(Error::directory("lock", directory.lock()))?;
        if lock.is_none() {
            return Err(Error::AlreadyRunning {
                directory: directory.path().to_owned(),
                pid: None,
            });
        }
        let there = life(&directory)? == Life::Saved;
        forget(&directory)?;
        Ok(there)
    }

    /// What it says of itself.
    #[must_use]
    pub const fn record(&self) -> &StateRecord {
        &self.record
    }

    /// The machine it is of.
    #[must_use]
    pub const fn spec(&self) -> &MachineSpec {
        &self.record.spec
    }

    /// Its size on disk.
    #[must_use]
    pub const fn size(&self) -> Bytes {
        Bytes::new(self.record.length)
    }
}

fn saving(directory: &Directory) -> PathBuf {
    directory.path().join("state.saving")
}

fn saved(directory: &Directory) -> PathBuf {
    directory.path().join("state.saved")
}

fn consumed(directory: &Directory) -> PathBuf {
    directory.path().join("state.consumed")
}

pub(super) fn life(directory: &Directory) -> Result<Life> {
    for (path, life) in [
        (saved(directory), Life::Saved),
        (consumed(directory), Life::Consumed),
        (saving(directory), Life::Saving),
    ] {
        match fs::symlink_metadata(&path) {
            Ok(_) => return Ok(life),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::directory("look for", path)(error)),
        }
    }
    Ok(Life::Nothing)
}

/// A new file for a state, positioned where QEMU's part begins.
pub(super) fn begin(directory: &Directory) -> Result<fs::File> {
    forget(directory)?;
    let path = saving(directory);
    let create = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.seek(SeekFrom::Start(HEADER))?;
        Ok(file)
    };
    create().map_err(Error::directory("create", &path))
}

/// Makes the file that QEMU has finished a state. Returns its size.
pub(super) fn seal(
    directory: &Directory,
    file: &fs::File,
    spec: MachineSpec,
    accelerator: Accelerator,
    qemu_version: QemuVersion,
) -> Result<Bytes> {
    // A flush of the guest may mean nothing to the host (`Durability::Unsafe`), and memory that
    // survives a loss of power is worth nothing over disks that do not.
    let images = marks(&spec, Durably::Yes)?;
    let path = saving(directory);
    let write = || {
        let length = file.metadata()?.len();
        let record = StateRecord {
            spec,
            accelerator,
            qemu_version,
            length,
            images,
        };
        let mut header = MAGIC.to_vec();
        header.append(&mut serde_json::to_vec(&record)?);
        if header.len() as u64 > HEADER || length <= HEADER {
            return Err(io::Error::other("it does not fit, or QEMU wrote nothing"));
        }
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        fs::rename(&path, saved(directory))?;
        sync_directory(directory)?;
        Ok(Bytes::new(length))
    };
    write().map_err(Error::directory("finish", &path))
}

/// The state that can be loaded, positioned where QEMU's part begins.
pub(super) fn open(directory: &Directory) -> Result<Option<(StateRecord, fs::File)>> {
    let path = saved(directory);
    let unloadable = |reason: String| unloadable(directory, reason);
    let mut file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::directory("open", path)(error)),
    };
    let failed = |error| Error::directory("read", &path)(error);
    let mut header = Vec::new();
    (&mut file)
        .take(HEADER)
        .read_to_end(&mut header)
        .map_err(failed)?;
    let text = header
        .strip_prefix(MAGIC)
        .ok_or_else(|| unloadable("it is not of this version, or damaged".to_owned()))?;
    let end = text.iter().position(|byte| *byte == 0);
    let record: StateRecord = serde_json::from_slice(&text[..end.unwrap_or(text.len())])
        .map_err(|error| unloadable(format!("its description is damaged: {error}")))?;
    let length = file.metadata().map_err(failed)?.len();
    if length != record.length {
        return Err(unloadable(format!(
            "it has {length} bytes of {}",
            record.length
        )));
    }
    Ok(Some((record, file)))
}

pub(super) fn unloadable(directory: &Directory, reason: impl Into<String>) -> Error {
    Error::Unloadable {
        path: saved(directory),
        reason: reason.into(),
    }
}

/// Refuses a state whose disks are not the ones it knows.
pub(super) fn check_images(directory: &Directory, record: &StateRecord) -> Result<()> {
    let found = marks(&record.spec, Durably::No)
        .map_err(|error| unloadable(directory, error.to_string()))?;
    match record.images.iter().find(|known| !found.contains(known)) {
        None => Ok(()),
        Some(other) => Err(unloadable(
            directory,
            format!("{} was changed after it", other.path.display()),
        )),
    }
}

/// Takes the state's name away, durably: from here on the guest may run.
pub(super) fn consume(directory: &Directory) -> Result<()> {
    let path = saved(directory);
    match fs::rename(&path, consumed(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::directory("rename", &path))?,
    }
    sync_directory(directory).map_err(Error::directory("sync", directory.path()))
}

/// Removes every trace of a state, durably.
pub(super) fn forget(directory: &Directory) -> Result<()> {
    let mut changed = false;
    for path in [saved(directory), consumed(directory), saving(directory)] {
        match fs::remove_file(&path) {
            Ok(()) => changed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::directory("remove", path)(error)),
        }
    }
    match changed {
        true => sync_directory(directory).map_err(Error::directory("sync", directory.path())),
        false => Ok(()),
    }
}

fn sync_directory(directory: &Directory) -> io::Result<()> {
    fs::File::open(directory.path())?.sync_all()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durably {
    Yes,
    No,
}

fn marks(spec: &MachineSpec, durably: Durably) -> Result<Vec<ImageMark>> {
    let paths = spec
        .disks
        .iter()
        .flat_map(|disk| [Some(&disk.path), disk.base.as_ref().map(|base| &base.path)]);
    paths
        .flatten()
        .map(|path| mark(path, durably).map_err(Error::directory("look at", path)))
        .collect()
}

fn mark(path: &Path, durably: Durably) -> io::Result<ImageMark> {
    let file = fs::File::open(path)?;
    if durably == Durably::Yes {
        file.sync_all()?;
    }
    let metadata = file.metadata()?;
    Ok(ImageMark {
        path: path.to_owned(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: [RunState; 6] = [
        RunState::Prelaunch,
        RunState::Running,
        RunState::Paused,
        RunState::Saving,
        RunState::Saved,
        RunState::Loading,
    ];
    const LIVES: [Life; 4] = [Life::Nothing, Life::Saving, Life::Saved, Life::Consumed];

    #[test]
    fn every_leftover_has_its_repair() {
        let mut table = String::new();
        for run in RUNS {
            for life in LIVES {
                table += &format!("{run:?} {life:?}: {:?}\n", repair(run, life));
            }
        }
        insta::assert_snapshot!(table);
    }

    /// A QEMU goes only where its state is whole, and a whole state outlives it only there.
    #[test]
    fn nothing_is_lost_and_nothing_is_used_twice() {
        for run in RUNS {
            for life in LIVES {
                let finishes = repair(run, life) == Repair::Finish;
                assert_eq!(finishes, run == RunState::Saved && life == Life::Saved);
            }
            // A guest that runs beside a state that could be loaded never stays so.
            if run == RunState::Running {
                assert_eq!(repair(run, Life::Saved), Repair::Forget);
            }
        }
    }
}
