//! Colima's second usual directory, `/tmp/INSTANCE`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// Makes the directory of an instance below `parent`, a place where everybody may make one.
///
/// # Errors
///
/// It is there, and not a directory of this user alone.
pub(crate) fn prepare(parent: &Path, instance: &str) -> io::Result<PathBuf> {
    let path = parent.join(instance);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&path)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && ours && found.mode() & 0o022 == 0 {
        Ok(path)
    } else {
        let what = "it is no directory that only this user can write to";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_directory_of_ones_own() {
        let parent = tempfile::tempdir().unwrap();
        let path = prepare(parent.path(), "colima").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(prepare(parent.path(), "colima").unwrap(), path, "again");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(prepare(parent.path(), "colima").is_err(), "for everybody");
        std::os::unix::fs::symlink(&path, parent.path().join("link")).unwrap();
        assert!(prepare(parent.path(), "link").is_err());
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(prepare(parent.path(), "file").is_err());
    }
}
