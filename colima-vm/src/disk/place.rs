//! The place of one disk: its lock, the drafts beside it, and the rename that makes a draft the disk.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use super::Error;

const DRAFT_SUFFIX: &str = ".draft";

/// The path of a disk, locked against other calls for it. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: PathBuf,
    name: OsString,
    _lock: File,
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

impl Place {
    /// Waits for the lock and removes the drafts of runs that were killed.
    ///
    /// The lock is a `flock` on a file of its own: QEMU puts its record locks on the image, and over
    /// NFS the two kinds exclude each other.
    pub(super) fn claim(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(file_error("resolve the path", path))?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::NotAFile { path });
        };
        let (directory, name) = (directory.to_owned(), name.to_owned());
        let lock_path = directory.join(beside(&name, ".lock"));
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(file_error("open the lock", &lock_path))?;
        lock.lock().map_err(file_error("lock", &lock_path))?;
        let place = Self {
            path,
            directory,
            name,
            _lock: lock,
        };
        place.sweep()?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything has the name, be it a symbolic link into nowhere.
    pub(super) fn is_taken(&self) -> Result<bool, Error> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_error("look at", &self.path)(error)),
        }
    }

    /// Nobody else holds the lock, so that whatever looks like a draft is nobody's.
    fn sweep(&self) -> Result<(), Error> {
        let list = file_error("list the directory", &self.directory);
        let entries: Vec<_> = match fs::read_dir(&self.directory).and_then(Iterator::collect) {
            Ok(entries) => entries,
            Err(error) => return Err(list(error)),
        };
        for entry in entries {
            if is_draft(&self.name, &entry.file_name()) {
                let path = entry.path();
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(file_error("remove", &path)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// An empty file beside the disk that only its owner can open.
    ///
    /// Its name is used once: a `qemu-img` that outlived its killed parent writes into a draft that
    /// nobody will rename.
    pub(super) fn draft(&self) -> Result<Draft, Error> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let suffix = format!(".{}-{number}{DRAFT_SUFFIX}", process::id());
        let draft = Draft {
            path: self.directory.join(beside(&self.name, &suffix)),
        };
        let create = |source| file_error("create", &draft.path)(source);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.path)
            .map_err(create)?;
        // The umask may have taken more than the mode asked for.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(create)?;
        Ok(draft)
    }

    /// Makes a finished draft the disk, durably, and never in place of another file.
    pub(super) fn publish(&self, draft: Draft) -> Result<(), Error> {
        sync(&draft.path)?;
        match rustix::fs::renameat_with(CWD, &draft.path, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => draft.forget(),
            // NFS and others do not know the flag. A hard link does not replace either, and the name
            // of the draft goes when it is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                match fs::hard_link(&draft.path, &self.path) {
                    Ok(()) => drop(draft),
                    Err(error) => return Err(self.not_published(error)),
                }
            }
            Err(errno) => return Err(self.not_published(errno.into())),
        }
        sync(&self.directory)
    }

    fn not_published(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Appeared {
                path: self.path.clone(),
            },
            _ => file_error("rename the draft to", &self.path)(error),
        }
    }

    /// Writes the disk through to the device.
    pub(super) fn sync_disk(&self) -> Result<(), Error> {
        sync(&self.path)
    }
}

/// A disk that is being made; dropping it removes it.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn forget(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What stays is swept by the next call.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Both a file and a directory are synchronised by a descriptor that may only read.
fn sync(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(file_error("synchronise", path))
}

/// The name of a file that belongs to the disk `name`.
fn beside(name: &OsStr, suffix: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    hidden
}

/// Whether `entry` is `.NAME.PID-NUMBER.draft`.
fn is_draft(name: &OsStr, entry: &OsStr) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    entry
        .as_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(DRAFT_SUFFIX.as_bytes()))
        .and_then(|rest| {
            let dash = rest.iter().position(|&byte| byte == b'-')?;
            Some(digits(&rest[..dash]) && digits(&rest[dash + 1..]))
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_drafts_are_swept() {
        let is_draft = |entry: &str| is_draft(OsStr::new("data"), OsStr::new(entry));
        assert!(is_draft(".data.12-0.draft"));
        for other in [
            "data",
            ".data",
            ".data.lock",
            "data.12-0.draft",
            ".data2.12-0.draft",
            ".data.x.12-0.draft",
            ".data.-.draft",
            ".data.12-.draft",
            ".data.12.draft",
            ".data.12-0.draft.mine",
        ] {
            assert!(!is_draft(other), "{other}");
        }
    }

    #[test]
    fn a_draft_never_replaces_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let place = Place::claim(&path).unwrap();
        let draft = place.draft().unwrap();
        fs::write(&path, "precious").unwrap();
        let error = place.publish(draft).unwrap_err();
        assert!(matches!(error, Error::Appeared { .. }), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        drop(place);
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".data.lock", "data"]);
    }
}
