//! Builds images from Debian's signed packages.
//!
//! Two stages. [`Builder::resolve`] asks the archive and writes down what it chose: a [`PackageLock`].
//! [`Builder::build`] makes an image of a lock; what the cache lacks is downloaded, everything is
//! compared with the lock, and from there on the archive is not asked any more: mmdebstrap
//! installs from a repository on disk, so that the same lock always gives the same bytes.

use std::{
    ffi::OsString,
    fs,
    future::{self, Future},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use colima_core::{Arch, agent};
use tokio::sync::{mpsc, oneshot};

use super::{
    Digest, Error, Image, ImageId, ImageStore, Manifest, PackageLock, cpio,
    error::at,
    rootfs::{self, Entry},
    store::{ImageLock, record},
};

mod apt;
mod event;
mod install;
mod packages;
mod privilege;
mod tool;

use apt::Apt;
pub use event::{BuildEvent, BuildStep};
use install::Payload;
use packages::{PackageCache, create_shared, make_shared_directory, set_mode};
use privilege::{Privilege, in_namespace};
use tool::{Cancel, Stream, Toolbox};

/// Changes when the same lock would give another image for a reason that no file below shows.
const RECIPE: u32 = 1;

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sources {
    /// The archive that mmdebstrap knows for the suite, with its updates and security fixes.
    #[default]
    Default,
    /// A mirror of that archive, by its URL.
    Mirror(String),
    /// Lines of a `sources.list`, each beginning with `deb`.
    Lines(Vec<String>),
}

/// Builds images; plain data, filled in by the caller.
///
/// Progress goes to an unbounded channel, whose receiver may be dropped. Dropping a future kills what
/// runs and leaves directories behind, which the next build of the same image removes; the `cancel`
/// future stops in order and leaves nothing.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Architecture of the image: the host's, as nothing is emulated here.
    pub arch: Arch,
    /// Debian's release.
    pub suite: String,
    /// Where packages come from.
    pub sources: Sources,
    /// A directory for downloads, of the caller's own; kept between builds.
    pub cache: PathBuf,
    /// A directory on disk with 2 GiB free that every user may enter, such as `/var/tmp`. A build works
    /// in a directory below it.
    pub scratch: PathBuf,
    /// Environment of all programs that run, such as `http_proxy`; nothing else is inherited. `PATH` has a default.
    pub env: Vec<(OsString, OsString)>,
}

/// The id that a lock's image has: equal for equal contents.
///
/// # Panics
///
/// Never: an id is always made of letters and digits.
#[must_use]
pub fn image_id(lock: &PackageLock) -> ImageId {
    let id = format!("{}-{}", lock.suite, recipe(lock).short());
    id.parse().unwrap_or_else(|_| {
        // A suite with a name that is no part of an id, such as one with capitals.
        let id = format!("image-{}", recipe(lock).short());
        id.parse().expect("letters and digits are an id")
    })
}

/// Digest of everything that decides about an image's bytes.
fn recipe(lock: &PackageLock) -> Digest {
    let entries = rootfs::entries(&lock.sources);
    let (modules, excluded) = (rootfs::BOOT_MODULES, rootfs::EXCLUDED_PATHS);
    let finish = install::FINISH;
    Digest::of(format!(
        "{RECIPE}\n{lock}\n{entries:?}\n{modules:?}\n{excluded:?}\n{finish}"
    ))
}

impl Builder {
    /// A builder of Debian trixie for `arch`, from the archive, that keeps downloads in `cache`.
    #[must_use]
    pub fn new(arch: Arch, cache: impl Into<PathBuf>) -> Self {
        Self {
            arch,
            suite: "trixie".to_owned(),
            sources: Sources::Default,
            cache: cache.into(),
            scratch: "/var/tmp".into(),
            env: Vec::new(),
        }
    }

    /// Chooses the packages of an image and writes them down with their digests; `epoch`, in seconds since
    /// the Unix epoch, becomes the time of the image's files.
    ///
    /// # Errors
    ///
    /// [`Error::ToolMissing`], [`Error::Tool`] when the archive cannot be reached or is not signed,
    /// [`Error::Cancelled`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what runs; what was downloaded stays in the cache.
    pub async fn resolve(
        &self,
        epoch: u64,
        events: &mpsc::UnboundedSender<BuildEvent>,
        cancel: impl Future<Output = ()> + Send,
    ) -> Result<PackageLock, Error> {
        let cancel = &mut Cancel::new(cancel);
        let toolbox = Toolbox::new(&self.env);
        tell(events, BuildStep::Index, None);
        let sources = self.source_lines(&toolbox, cancel).await?;
        let apt = Apt::prepare(&self.apt_directory(), self.arch, &sources, &toolbox)?;
        apt.update(cancel).await?;
        tell(events, BuildStep::Resolve, None);
        let mut packages = apt.closure(rootfs::PACKAGES, cancel).await?;
        packages.push(apt.kernel(self.arch, cancel).await?);
        packages.sort();
        packages.dedup();
        Ok(PackageLock {
            arch: self.arch,
            suite: self.suite.clone(),
            epoch,
            sources,
            packages,
        })
    }

    /// Builds the image of a lock into `store`, or returns it when it is there already.
    ///
    /// # Errors
    ///
    /// Besides those of [`Builder::resolve`]: [`Error::VersionGone`], [`Error::WrongPackage`],
    /// [`Error::Privilege`], [`Error::IncompleteLock`], and files that cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what runs. An unfinished image is never seen by others; the directories
    /// it was built in are removed by the next build of the same image.
    pub async fn build(
        &self,
        store: &ImageStore,
        lock: &PackageLock,
        events: &mpsc::UnboundedSender<BuildEvent>,
        cancel: impl Future<Output = ()> + Send,
    ) -> Result<Image, Error> {
        let cancel = &mut Cancel::new(cancel);
        let id = image_id(lock);
        if !lock.packages.iter().any(super::LockedPackage::is_kernel) {
            return Err(Error::IncompleteLock { what: "kernel" });
        }
        let held = wait_for(store, lock.arch, &id, events, cancel).await?;
        match store.get(lock.arch, &id) {
            Err(Error::NotFound { .. } | Error::Manifest { .. } | Error::Misplaced { .. }) => {}
            // Another process may have built it while we waited.
            answer => return answer,
        }
        let toolbox = Toolbox::new(&self.env);
        let privilege = Privilege::find(&toolbox, cancel).await?;
        let cache = self.fill_cache(lock, &toolbox, events, cancel).await?;
        let new = store.begin(lock.arch, &id, &held)?;
        let payload = self.payload(store, lock.arch, &id);
        sweep(&payload.directory, &toolbox).await?;
        let job = Job {
            lock,
            id: &id,
            payload: &payload,
            toolbox: &toolbox,
            privilege,
            new: &new,
            events,
        };
        let built = job.run(&cache, cancel).await;
        // The first failure is the one to tell; a directory that stays is removed by the next build.
        let swept = sweep(&payload.directory, &toolbox).await;
        let manifest = match built {
            Ok(manifest) => manifest,
            Err(error) => {
                let _ = fs::remove_dir_all(&new);
                return Err(error);
            }
        };
        swept?;
        tell(events, BuildStep::Publish, None);
        store.publish(&new, manifest, &held)
    }

    fn apt_directory(&self) -> PathBuf {
        self.cache.join("apt").join(self.arch.as_str())
    }

    /// A name that belongs to this user, store and image alone, so that whoever holds the image's lock may
    /// remove what a dead build left there.
    fn payload(&self, store: &ImageStore, arch: Arch, id: &ImageId) -> Payload {
        let uid = rustix::process::geteuid().as_raw();
        let place = format!("{} {arch} {id}", store.path().display());
        let name = format!("colima-image-{uid}-{}", Digest::of(place).short());
        Payload {
            directory: self.scratch.join(name),
        }
    }

    async fn source_lines(
        &self,
        toolbox: &Toolbox,
        cancel: &mut Cancel<'_>,
    ) -> Result<Vec<String>, Error> {
        let mirror = match &self.sources {
            Sources::Lines(lines) => return Ok(lines.clone()),
            Sources::Mirror(url) => Some(url.as_str()),
            Sources::Default => None,
        };
        let tool = install::show_sources(&self.suite, mirror);
        // The hook ends mmdebstrap on purpose: what counts is what it printed, on either stream.
        let mut lines = Vec::new();
        let ended = toolbox
            .watch(&tool, cancel, |_, line| {
                if line.starts_with("deb ") {
                    lines.push(line.to_owned());
                }
            })
            .await?;
        if lines.is_empty() {
            ended.success(&tool)?;
        }
        Ok(lines)
    }

    async fn fill_cache(
        &self,
        lock: &PackageLock,
        toolbox: &Toolbox,
        events: &mpsc::UnboundedSender<BuildEvent>,
        cancel: &mut Cancel<'_>,
    ) -> Result<PackageCache, Error> {
        let cache = PackageCache::open(self.cache.join("packages"))?;
        let missing = cache.missing(lock);
        if missing.is_empty() {
            return Ok(cache);
        }
        tell(events, BuildStep::Index, None);
        let sources = match &self.sources {
            Sources::Default => lock.sources.clone(),
            Sources::Mirror(_) | Sources::Lines(_) => self.source_lines(toolbox, cancel).await?,
        };
        let apt = Apt::prepare(&self.apt_directory(), lock.arch, &sources, toolbox)?;
        apt.update(cancel).await?;
        tell(events, BuildStep::Download, Some(0.0));
        let files = apt
            .download(&missing, cancel, |fraction| {
                tell(events, BuildStep::Download, Some(fraction));
            })
            .await?;
        cache.adopt(&files, &missing)?;
        Ok(cache)
    }
}

/// One build, after its decisions.
struct Job<'a> {
    lock: &'a PackageLock,
    id: &'a ImageId,
    payload: &'a Payload,
    toolbox: &'a Toolbox,
    privilege: Privilege,
    new: &'a Path,
    events: &'a mpsc::UnboundedSender<BuildEvent>,
}

impl Job<'_> {
    async fn run(&self, cache: &PackageCache, cancel: &mut Cancel<'_>) -> Result<Manifest, Error> {
        self.write_payload()?;
        let progress = |fraction| tell(self.events, BuildStep::Check, Some(fraction));
        cache
            .make_repository(self.lock, self.payload, self.toolbox, cancel, progress)
            .await?;
        self.install(cancel).await?;
        self.convert(cancel).await?;
        self.describe()
    }

    fn write_payload(&self) -> Result<(), Error> {
        // Made fresh by `mkdir`, so nobody else's directory or link is ever followed.
        fs::create_dir(&self.payload.directory).map_err(at("create", &self.payload.directory))?;
        set_mode(&self.payload.directory, 0o755)?;
        make_shared_directory(&self.payload.temporary())?;
        let script = self.payload.script();
        create_shared(&script)?
            .write_all(install::FINISH.as_bytes())
            .map_err(at("write", &script))?;
        set_mode(&script, 0o755)?;
        let root = self.payload.rootfs();
        make_shared_directory(&root)?;
        let parent = |path: &Path| {
            let mut made = root.clone();
            for part in path.parent().into_iter().flat_map(Path::components) {
                made.push(part);
                make_shared_directory(&made)?;
            }
            Ok::<(), Error>(())
        };
        for entry in rootfs::entries(&self.lock.sources) {
            match entry {
                Entry::Directory(path) => {
                    parent(path.as_ref())?;
                    make_shared_directory(&root.join(path))?;
                }
                Entry::File(path, text) => {
                    parent(path.as_ref())?;
                    let path = root.join(path);
                    create_shared(&path)?
                        .write_all(text.as_bytes())
                        .map_err(at("write", path))?;
                }
                Entry::Symlink(path, target) => {
                    parent(path.as_ref())?;
                    let path = root.join(path);
                    symlink(target, &path).map_err(at("create", path))?;
                }
            }
        }
        Ok(())
    }

    async fn install(&self, cancel: &mut Cancel<'_>) -> Result<(), Error> {
        let uuid = recipe(self.lock).uuid();
        let tool = install::mmdebstrap(self.lock, self.payload, &uuid, self.privilege, self.new);
        tell(self.events, BuildStep::Install, None);
        let script = self.payload.script().display().to_string();
        let ended = self
            .toolbox
            .watch(&tool, cancel, |stream, line| {
                if stream == Stream::Stderr && line.contains("hook") && line.contains(&script) {
                    tell(self.events, BuildStep::FileSystem, None);
                }
            })
            .await?;
        ended.success(&tool).map(drop)
    }

    async fn convert(&self, cancel: &mut Cancel<'_>) -> Result<(), Error> {
        tell(self.events, BuildStep::Disk, None);
        let raw = self.new.join("root.ext4");
        let tool = install::convert(&raw, &self.new.join(ROOT_DISK));
        self.toolbox.run(&tool, cancel).await?;
        fs::remove_file(&raw).map_err(at("remove", raw))
    }

    /// Makes the initramfs and the manifest.
    fn describe(&self) -> Result<Manifest, Error> {
        let path = |name: &str| self.new.join(name);
        let read = |path: PathBuf| fs::read(&path).map_err(at("read", path));
        let order = read(path("modules/order"))?;
        let mut archive = cpio::Archive::new();
        archive.directory("colima", 0o755);
        archive.directory("lib", 0o755);
        archive.directory("lib/modules", 0o755);
        let mut list = String::new();
        for name in String::from_utf8_lossy(&order).lines() {
            let module = read(path("modules").join(name))?;
            archive.file(&format!("lib/modules/{name}"), 0o644, &module);
            list.push_str(&format!("/lib/modules/{name}\n"));
        }
        archive.file("colima/modules", 0o644, list.as_bytes());
        let initrd = path(INITRD);
        fs::write(&initrd, archive.finish()).map_err(at("write", initrd))?;
        fs::rename(path("vmlinux"), path(KERNEL)).map_err(at("create", path(KERNEL)))?;
        let release = read(path("release"))?;
        fs::remove_file(path("release")).map_err(at("remove", path("release")))?;
        fs::remove_dir_all(path("modules")).map_err(at("remove", path("modules")))?;
        super::root_disk::inspect(&path(ROOT_DISK))?;
        Ok(Manifest {
            version: Manifest::VERSION,
            id: self.id.clone(),
            arch: self.lock.arch,
            agent_protocol: agent::PROTOCOL_VERSION,
            kernel_release: String::from_utf8_lossy(&release).trim().to_owned(),
            package_lock: self.lock.digest(),
            built: self.lock.epoch,
            kernel: record(self.new, KERNEL)?,
            initrd: record(self.new, INITRD)?,
            root_disk: record(self.new, ROOT_DISK)?,
        })
    }
}

const KERNEL: &str = "kernel";
const INITRD: &str = "initrd.img";
const ROOT_DISK: &str = "root.qcow2";

fn tell(events: &mpsc::UnboundedSender<BuildEvent>, step: BuildStep, fraction: Option<f32>) {
    // A caller that does not look any more is no reason to stop.
    let _ = events.send(BuildEvent { step, fraction });
}

/// Locks an image's name, waiting for whoever has it.
async fn wait_for(
    store: &ImageStore,
    arch: Arch,
    id: &ImageId,
    events: &mpsc::UnboundedSender<BuildEvent>,
    cancel: &mut Cancel<'_>,
) -> Result<ImageLock, Error> {
    match store.try_lock(arch, id) {
        Err(Error::Busy { .. }) => tell(events, BuildStep::Wait, None),
        answer => return answer,
    }
    let file = store.lock_file(arch, id)?;
    let (send, receive) = oneshot::channel();
    // A thread of its own: a runtime would wait for a blocking task when it shuts down. When nobody
    // receives, the lock is released as soon as it is got.
    std::thread::spawn(move || {
        let locked = file.lock().map(|()| file);
        let _ = send.send(locked);
    });
    let path = store.path().to_owned();
    cancel
        .unless(async {
            match receive.await {
                Ok(locked) => locked.map(ImageLock::held).map_err(at("lock", path)),
                Err(_) => Err(Error::Cancelled),
            }
        })
        .await
}

/// Removes the directory of a build, whoever owns the files in it.
async fn sweep(directory: &Path, toolbox: &Toolbox) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("read", directory)(error)),
    };
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        let strange = io::Error::new(io::ErrorKind::AlreadyExists, "it belongs to somebody else");
        return Err(at("use", directory)(strange));
    }
    if fs::remove_dir_all(directory).is_ok() {
        return Ok(());
    }
    // Files of subordinate ids can be removed by the root of their namespace alone.
    if !rustix::process::geteuid().is_root() {
        let tool = in_namespace("find", [directory.as_os_str()]).args([
            "-mindepth",
            "1",
            "-xdev",
            "-delete",
        ]);
        // What it cannot remove is ours, and is removed next.
        let _ = toolbox
            .watch(&tool, &mut Cancel::new(future::pending()), |_, _| {})
            .await?;
    }
    fs::remove_dir_all(directory).map_err(at("remove", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_contents() {
        let lock = super::super::package_lock::tests::sample();
        let id = image_id(&lock);
        assert!(id.as_str().starts_with("trixie-"), "{id}");
        let later = PackageLock {
            epoch: lock.epoch + 1,
            ..lock.clone()
        };
        assert_ne!(image_id(&later), id);
        let odd = PackageLock {
            suite: "Sid".to_owned(),
            ..lock
        };
        assert!(image_id(&odd).as_str().starts_with("image-"));
    }
}
