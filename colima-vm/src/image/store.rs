//! The directory that holds images: `ARCH/ID/{manifest.json, kernel, initrd.img, root.qcow2}`.
//!
//! A bundle appears whole, by one rename, or not at all. Beside the bundles of an architecture lie
//! `.lock-ID` (locked while somebody builds or removes that image) and `.new-ID` (an unfinished
//! build). Whoever holds the lock may delete an unfinished build: its builder is dead.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use colima_core::Arch;

use super::{Digest, Error, FileRecord, ImageId, Manifest, error::at};

pub(super) const MANIFEST: &str = "manifest.json";

/// A manifest is small; a larger file is none.
const LARGEST_MANIFEST: u64 = 64 << 10;

/// A directory of images.
///
/// Several processes may use one store at once. The value holds no resource.
#[derive(Clone, Debug)]
pub struct ImageStore {
    path: PathBuf,
}

/// An image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the image says about itself.
    pub manifest: Manifest,
    /// Its directory.
    pub directory: PathBuf,
}

impl Image {
    /// Path of the kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(&self.manifest.kernel.name)
    }

    /// Path of the initramfs.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.directory.join(&self.manifest.initrd.name)
    }

    /// Path of the root disk.
    #[must_use]
    pub fn root_disk(&self) -> PathBuf {
        self.directory.join(&self.manifest.root_disk.name)
    }
}

/// Exclusive use of one image's name, across processes. Dropping it gives it back; so does death.
#[derive(Debug)]
pub(super) struct ImageLock {
    _file: File,
}

impl ImageStore {
    /// The store at `path`, which is made when something is put into it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images of all architectures, sorted. An image that cannot be read is an error of its own
    /// and hides no other.
    ///
    /// # Errors
    ///
    /// Fails when a directory of the store cannot be read.
    pub fn list(&self) -> Result<Vec<Result<Image, Error>>, Error> {
        let mut images = Vec::new();
        for arch in [Arch::Aarch64, Arch::X86_64] {
            let path = self.path.join(arch.as_str());
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at("read", path)(error)),
            };
            let mut ids = Vec::new();
            for entry in entries {
                let entry = entry.map_err(at("read", &path))?;
                ids.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|name| name.parse().ok()),
                );
            }
            ids.sort_unstable();
            images.extend(ids.iter().map(|id| self.get(arch, id)));
        }
        Ok(images)
    }

    /// The image for `arch` that was built last, if there is one. A damaged one is passed over.
    ///
    /// # Errors
    ///
    /// As [`ImageStore::list`].
    pub fn newest(&self, arch: Arch) -> Result<Option<Image>, Error> {
        let whole = self.list()?.into_iter().flatten();
        let ours = whole.filter(|image| image.manifest.arch == arch);
        Ok(ours.max_by_key(|image| image.manifest.built))
    }

    /// One image, by its manifest alone; see [`ImageStore::verify`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or what is wrong with its manifest.
    pub fn get(&self, arch: Arch, id: &ImageId) -> Result<Image, Error> {
        let directory = self.directory(arch, id);
        let path = directory.join(MANIFEST);
        let text = match read_limited(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    arch,
                    id: id.clone(),
                });
            }
            Err(error) => return Err(at("read", path)(error)),
        };
        let manifest = Manifest::parse(&text).map_err(|source| Error::Manifest {
            path: directory.clone(),
            source,
        })?;
        if manifest.arch != arch || manifest.id != *id {
            return Err(Error::Misplaced {
                path: directory,
                id: manifest.id,
                arch: manifest.arch,
            });
        }
        Ok(Image {
            manifest,
            directory,
        })
    }

    /// Reads every byte of an image and compares it with the manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Tampered`] names the first file that differs, [`Error::Disk`] a root disk that QEMU must
    /// not open.
    pub fn verify(&self, arch: Arch, id: &ImageId) -> Result<Image, Error> {
        let image = self.get(arch, id)?;
        for file in image.manifest.files() {
            verify_file(&image.directory.join(&file.name), file)?;
        }
        super::root_disk::inspect(&image.root_disk())?;
        Ok(image)
    }

    /// Removes an image. Its manifest goes first, so that a half removed image is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Busy`] while it is being built, or a file that cannot be removed.
    pub fn remove(&self, arch: Arch, id: &ImageId) -> Result<(), Error> {
        let directory = self.directory(arch, id);
        if !directory.exists() {
            return Err(Error::NotFound {
                arch,
                id: id.clone(),
            });
        }
        let _lock = self.try_lock(arch, id)?;
        match fs::remove_file(directory.join(MANIFEST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", directory.join(MANIFEST))(error));
            }
            _ => sync_directory(&directory)?,
        }
        fs::remove_dir_all(&directory).map_err(at("remove", directory))
    }

    pub(super) fn directory(&self, arch: Arch, id: &ImageId) -> PathBuf {
        self.path.join(arch.as_str()).join(id.as_str())
    }

    /// Opens the lock file of an image's name, without locking it.
    pub(super) fn lock_file(&self, arch: Arch, id: &ImageId) -> Result<File, Error> {
        let parent = self.path.join(arch.as_str());
        make_private_directory(&parent)?;
        let path = parent.join(format!(".lock-{id}"));
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", path))
    }

    /// Locks an image's name, or says that somebody else did.
    pub(super) fn try_lock(&self, arch: Arch, id: &ImageId) -> Result<ImageLock, Error> {
        let file = self.lock_file(arch, id)?;
        match file.try_lock() {
            Ok(()) => Ok(ImageLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy {
                arch,
                id: id.clone(),
            }),
            Err(TryLockError::Error(error)) => Err(at("lock", &self.path)(error)),
        }
    }

    /// An empty directory for an unfinished image; what a dead builder left there is removed.
    pub(super) fn begin(
        &self,
        arch: Arch,
        id: &ImageId,
        _lock: &ImageLock,
    ) -> Result<PathBuf, Error> {
        let path = self.path.join(arch.as_str()).join(format!(".new-{id}"));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", path)(error));
            }
            _ => make_private_directory(&path)?,
        }
        Ok(path)
    }

    /// Turns an unfinished directory into the image `manifest` describes, durably.
    pub(super) fn publish(
        &self,
        new: &Path,
        manifest: Manifest,
        _lock: &ImageLock,
    ) -> Result<Image, Error> {
        for file in manifest.files() {
            let path = new.join(&file.name);
            fs::set_permissions(&path, Permissions::from_mode(0o400))
                .map_err(at("protect", &path))?;
            sync(&path)?;
        }
        let path = new.join(MANIFEST);
        fs::write(&path, manifest.to_text()).map_err(at("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o400)).map_err(at("protect", &path))?;
        sync(&path)?;
        sync_directory(new)?;
        let directory = self.directory(manifest.arch, &manifest.id);
        // An old image of the same name is damaged or was asked to be replaced; a rename needs it gone.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", directory)(error));
            }
            _ => {}
        }
        fs::rename(new, &directory).map_err(at("create", &directory))?;
        sync_directory(&self.path.join(manifest.arch.as_str()))?;
        Ok(Image {
            manifest,
            directory,
        })
    }
}

impl ImageLock {
    pub(super) const fn held(file: File) -> Self {
        Self { _file: file }
    }
}

/// Makes a directory and its parents for the owner alone; one that exists is left as it is.
pub(super) fn make_private_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("create", path))
}

/// The record of a file as it is on disk.
pub(super) fn record(directory: &Path, name: &str) -> Result<FileRecord, Error> {
    let path = directory.join(name);
    let (sha256, size) = Digest::of_file(&path).map_err(at("read", path))?;
    Ok(FileRecord {
        name: name.to_owned(),
        size: colima_core::Bytes::new(size),
        sha256,
    })
}

/// Compares a file with its record.
pub(super) fn verify_file(path: &Path, expected: &FileRecord) -> Result<(), Error> {
    let tampered = |problem: String| Error::Tampered {
        path: path.to_owned(),
        problem,
    };
    let metadata = fs::symlink_metadata(path).map_err(at("read", path))?;
    if !metadata.is_file() {
        return Err(tampered("it is not a regular file".to_owned()));
    }
    if metadata.len() != expected.size.get() {
        return Err(tampered(format!(
            "it has {} bytes instead of {}",
            metadata.len(),
            expected.size.get()
        )));
    }
    let (digest, _) = Digest::of_file(path).map_err(at("read", path))?;
    if digest == expected.sha256 {
        Ok(())
    } else {
        Err(tampered("its digest differs".to_owned()))
    }
}

/// Reads a manifest's text, which is not trusted to be short.
pub(super) fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut text = Vec::new();
    File::open(path)?
        .take(LARGEST_MANIFEST)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(at("sync", path))
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    sync(path)
}
