//! Which image an instance boots, and how one is made.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use colima_core::Arch;
use colima_vm::{
    disk,
    image::{BuildEvent, Builder, Image, ImageStore, PackageLock},
};

use super::{Images, InstanceSpec, failure};
use crate::{command_error::CommandError, control::Stage, state_dir::ProfilePaths};

/// The builder of images for guests of `arch`.
pub(crate) fn builder(arch: Arch, images: &Images) -> Builder {
    let env = images.download_env.iter();
    Builder {
        env: env
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Builder::new(arch, &images.packages)
    }
}

/// The image that the profile's root disk lies over, else the newest one, else a new one.
pub(super) async fn ensure_image(
    paths: &ProfilePaths,
    spec: &InstanceSpec,
    watch: super::Watcher<'_>,
) -> Result<Image, CommandError> {
    let store = ImageStore::new(&spec.images.store);
    let get = |id| {
        store
            .get(spec.arch, id)
            .map_err(|error| failure::image(&error))
    };
    if let Some(id) = &spec.images.id {
        return get(id);
    }
    if let Some(base) = base_of(&paths.root_disk).await? {
        let images = store.list().map_err(|error| failure::image(&error))?;
        let mut whole = images.into_iter().flatten();
        let found = whole.find(|image| image.root_disk() == base);
        return found.ok_or_else(|| failure::base_gone(&paths.root_disk, &base));
    }
    match store
        .newest(spec.arch)
        .map_err(|error| failure::image(&error))?
    {
        Some(image) => Ok(image),
        None => build_image(&builder(spec.arch, &spec.images), &store, None, watch).await,
    }
}

/// The image below an overlay, by the overlay's own word; `None` where there is no overlay yet.
pub(crate) async fn base_of(overlay: &Path) -> Result<Option<PathBuf>, CommandError> {
    if !overlay.exists() {
        return Ok(None);
    }
    let header = disk::inspect(overlay)
        .await
        .map_err(|error| failure::root_disk(&error))?;
    Ok(header
        .backing
        .map(|backing| OsString::from_vec(backing.name).into()))
}

/// Builds an image from `lock`, or from the newest packages.
pub(crate) async fn build_image(
    builder: &Builder,
    store: &ImageStore,
    lock: Option<PackageLock>,
    watch: super::Watcher<'_>,
) -> Result<Image, CommandError> {
    let (events, mut news) = tokio::sync::mpsc::unbounded_channel();
    let building = async {
        let lock = match lock {
            Some(lock) => lock,
            None => {
                builder
                    .resolve(now().as_secs(), &events, std::future::pending())
                    .await?
            }
        };
        builder
            .build(store, &lock, &events, std::future::pending())
            .await
    };
    tokio::pin!(building);
    let mut at = None;
    loop {
        tokio::select! {
            built = &mut building => return built.map_err(|error| failure::image(&error)),
            // The sender lives as long as the build.
            Some(BuildEvent { step, fraction, .. }) = news.recv() => {
                if at.replace(step) != Some(step) {
                    watch(Stage::Begin { name: format!("image: {step}") });
                }
                if let Some(done) = fraction {
                    watch(Stage::Detail { text: format!("{:.0} %", f64::from(done) * 100.0) });
                }
            }
        }
    }
}

/// Time since the Unix epoch; a clock before it counts as the epoch.
fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}
