//! The cache of downloaded packages, by digest, and the local repository made of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    super::{Digest, Error, LockedPackage, PackageLock, error::at, store::make_private_directory},
    install::Payload,
    tool::{Cancel, Tool, Toolbox},
};

/// Downloaded `.deb` files, each named by its digest. Several builds may share one.
#[derive(Clone, Debug)]
pub(super) struct PackageCache {
    directory: PathBuf,
}

impl PackageCache {
    pub(super) fn open(directory: PathBuf) -> Result<Self, Error> {
        make_private_directory(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}.deb"))
    }

    /// The packages of a lock that are not here.
    pub(super) fn missing<'l>(&self, lock: &'l PackageLock) -> Vec<&'l LockedPackage> {
        let here = |package: &LockedPackage| {
            fs::symlink_metadata(self.path(&package.sha256))
                .is_ok_and(|file| file.is_file() && file.len() == package.size.get())
        };
        lock.packages.iter().filter(|p| !here(p)).collect()
    }

    /// Takes downloaded files in, and tells which of `wanted` was not among them.
    pub(super) fn adopt(&self, files: &[PathBuf], wanted: &[&LockedPackage]) -> Result<(), Error> {
        for file in files {
            let (digest, _) = Digest::of_file(file).map_err(at("read", file))?;
            if wanted.iter().any(|package| package.sha256 == digest) {
                let place = self.path(&digest);
                fs::rename(file, &place).map_err(at("create", place))?;
            }
        }
        let missing = |package: &&&LockedPackage| !self.path(&package.sha256).exists();
        match wanted.iter().find(missing) {
            Some(package) => Err(Error::WrongPackage {
                package: format!("{}={}", package.name, package.version),
            }),
            None => Ok(()),
        }
    }

    /// Copies a package to where mmdebstrap reads it; the bytes that are copied are those that are
    /// checked. A damaged file is removed from the cache.
    fn copy(&self, package: &LockedPackage, to: &Path) -> Result<(), Error> {
        let from = self.path(&package.sha256);
        let mut source = File::open(&from).map_err(at("open", &from))?;
        let mut copy = create_shared(to)?;
        let (digest, _) = Digest::of_stream(&mut source, |chunk| copy.write_all(chunk))
            .map_err(at("copy", &from))?;
        if digest == package.sha256 {
            return Ok(());
        }
        fs::remove_file(&from).map_err(at("remove", from))?;
        Err(Error::WrongPackage {
            package: format!("{}={}", package.name, package.version),
        })
    }

    /// Fills the payload's repository and kernel from the cache; `progress` gets the fraction done.
    pub(super) async fn make_repository(
        &self,
        lock: &PackageLock,
        payload: &Payload,
        toolbox: &Toolbox,
        cancel: &mut Cancel<'_>,
        mut progress: impl FnMut(f32),
    ) -> Result<(), Error> {
        let repository = payload.repository();
        make_shared_directory(&repository)?;
        let (total, mut done) = (lock.download_size().get().max(1), 0_u64);
        let mut index = String::new();
        for package in &lock.packages {
            if package.is_kernel() {
                self.copy(package, &payload.kernel())?;
            } else {
                let name = format!("{}_{}.deb", package.name, package.sha256.short());
                let path = repository.join(&name);
                self.copy(package, &path)?;
                let tool = Tool::new("dpkg-deb", "dpkg")
                    .args(["--field"])
                    .args([&path]);
                let control = toolbox.run(&tool, cancel).await?;
                index.push_str(&index_stanza(&control, package, &name));
            }
            done += package.size.get();
            #[expect(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
            progress(done as f32 / total as f32);
        }
        let path = repository.join("Packages");
        create_shared(&path)?
            .write_all(index.as_bytes())
            .map_err(at("write", path))
    }
}

/// The repository's index entry of a package: its control fields and where it lies.
fn index_stanza(control: &[String], package: &LockedPackage, name: &str) -> String {
    format!(
        "{}\nFilename: ./{name}\nSize: {}\nSHA256: {}\n\n",
        control.join("\n").trim_end(),
        package.size.get(),
        package.sha256
    )
}

/// A directory that a mapped user may enter, whatever the umask.
pub(super) fn make_shared_directory(path: &Path) -> Result<(), Error> {
    make_private_directory(path)?;
    set_mode(path, 0o755)
}

/// A new file that a mapped user may read, whatever the umask.
pub(super) fn create_shared(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at("create", path))?;
    set_mode(path, 0o644)?;
    Ok(file)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let result: io::Result<()> = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    result.map_err(at("protect", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(bytes: &[u8]) -> (tempfile::TempDir, PackageCache, LockedPackage) {
        let directory = tempfile::tempdir().unwrap();
        let cache = PackageCache::open(directory.path().join("cache")).unwrap();
        let package = LockedPackage {
            sha256: Digest::of(bytes),
            size: colima_core::Bytes::new(bytes.len() as u64),
            ..super::super::super::package_lock::tests::sample().packages[0].clone()
        };
        let file = directory.path().join("download.deb");
        fs::write(&file, bytes).unwrap();
        cache.adopt(&[file], &[&package]).unwrap();
        (directory, cache, package)
    }

    #[test]
    fn another_file_than_the_locked_one_is_refused() {
        let (directory, cache, package) = cached(b"right");
        let wrong = directory.path().join("wrong.deb");
        fs::write(&wrong, b"wrong").unwrap();
        let other = LockedPackage {
            sha256: Digest::of("other"),
            ..package
        };
        let error = cache.adopt(&[wrong], &[&other]).unwrap_err();
        assert!(matches!(error, Error::WrongPackage { .. }), "{error}");
    }

    #[test]
    fn a_flipped_bit_in_the_cache_is_noticed_and_removed() {
        let (directory, cache, package) = cached(b"right");
        let path = cache.path(&package.sha256);
        let copy = directory.path().join("copy");
        cache.copy(&package, &copy).unwrap();
        assert_eq!(fs::read(copy).unwrap(), b"right");
        fs::write(&path, &b"rights"[1..]).unwrap();
        let error = cache
            .copy(&package, &directory.path().join("bad"))
            .unwrap_err();
        assert!(matches!(error, Error::WrongPackage { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn index() {
        let control: Vec<String> = [
            "Package: bash",
            "Essential: yes",
            "Description: shell",
            " more",
        ]
        .map(str::to_owned)
        .to_vec();
        let package = &super::super::super::package_lock::tests::sample().packages[0];
        insta::assert_snapshot!(index_stanza(&control, package, "bash.deb"));
    }
}
