//! Bundles that were made elsewhere.

use std::{fs, io, path::Path};

use super::{
    Error, Image, ImageStore, Manifest,
    error::at,
    store::{MANIFEST, read_limited, verify_file},
};

impl ImageStore {
    /// Copies the bundle in the directory `from` into the store. Every byte is compared with its manifest, and
    /// a bundle that differs is not taken.
    ///
    /// An image of that name that is whole already is returned as it is.
    ///
    /// # Errors
    ///
    /// No manifest or one that cannot be understood, [`Error::Tampered`], [`Error::Disk`] for a root disk that QEMU must not
    /// open, [`Error::Busy`], and files that cannot be copied.
    pub fn import(&self, from: &Path) -> Result<Image, Error> {
        let path = from.join(MANIFEST);
        let text = read_limited(&path).map_err(at("read", &path))?;
        let manifest = Manifest::parse(&text).map_err(|source| Error::Manifest {
            path: from.to_owned(),
            source,
        })?;
        if let Ok(image) = self.verify(manifest.arch, &manifest.id) {
            return Ok(image);
        }
        let lock = self.try_lock(manifest.arch, &manifest.id)?;
        let new = self.begin(manifest.arch, &manifest.id, &lock)?;
        let copied = copy(from, &new, &manifest);
        if copied.is_err() {
            // The first failure is the one to tell; what stays is removed by the next attempt.
            let _ = fs::remove_dir_all(&new);
        }
        copied?;
        self.publish(&new, manifest, &lock)
    }
}

/// Checked after copying: what is in the store is what was looked at.
fn copy(from: &Path, new: &Path, manifest: &Manifest) -> Result<(), Error> {
    for file in manifest.files() {
        let (source, target) = (from.join(&file.name), new.join(&file.name));
        match fs::copy(&source, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Tampered {
                    path: source,
                    problem: "it is missing".to_owned(),
                });
            }
            copied => copied.map_err(at("copy", &source))?,
        };
        verify_file(&target, file)?;
    }
    super::root_disk::inspect(&new.join(&manifest.root_disk.name))?;
    Ok(())
}
