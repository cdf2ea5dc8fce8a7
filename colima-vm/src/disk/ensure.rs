//! Make a disk what it shall be: create it, grow it, or leave it alone.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use colima_core::Bytes;
use qemu_img_wrapper::{Create, Image, QemuImg, Resize};

use super::{
    Error, blocking, inspect, inspect_now,
    place::Place,
    qcow2::{Condition, Header, Overlay},
};

/// What a call had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a new disk is empty, and a grown one has a file system that has not grown yet"]
pub enum Change {
    /// The disk did not exist.
    Created,
    /// The disk was smaller.
    Grown {
        /// The size it had.
        from: Bytes,
        /// The size it has now.
        to: Bytes,
    },
    /// The disk was as wanted.
    Unchanged,
}

/// Virtual disks consist of whole sectors.
const SECTOR: u64 = 512;

fn whole_sectors(size: Bytes) -> Bytes {
    let sectors = size.get().div_ceil(SECTOR);
    Bytes::new(sectors.saturating_mul(SECTOR))
}

/// Makes sure that `path` is a disk of `size` that stands alone, without touching what is on it.
///
/// `size` is rounded up to whole sectors of 512 bytes. A new disk is sparse, empty and readable by its
/// owner only; its directory must exist. An existing one keeps its permissions.
///
/// # Errors
///
/// [`Error::WouldShrink`], [`Error::Refused`] and [`Error::Corrupt`] for a disk that exists, which is
/// then unchanged; [`Error::File`] and [`Error::Tool`] when the host fails. A disk of a running machine
/// that would have to grow is [`Error::Tool`] with reason `InUse`.
///
/// # Cancel safety
///
/// The disk is then absent, unchanged or done. A call that still waits for the lock gives it up as soon
/// as it gets it.
pub async fn ensure_data(qemu_img: &QemuImg, path: &Path, size: Bytes) -> Result<Change, Error> {
    let size = whole_sectors(size);
    let place = claim(path).await?;
    let Some(header) = existing(&place, Overlay::Refuse).await? else {
        return create(qemu_img, place, None, size).await;
    };
    grow(qemu_img, place, &header, size).await
}

/// Makes sure that `path` is an overlay of the image `base` with the given size.
///
/// The overlay records the absolute path of `base` and its format, qcow2; `base` is only read.
/// Otherwise as [`ensure_data`].
///
/// # Errors
///
/// Those of [`ensure_data`]; [`Error::Refused`] also for a `base` that does not stand alone,
/// [`Error::SmallerThanBase`], and [`Error::OtherBase`] for a disk that exists and belongs to another
/// image. Remove that one to begin anew.
///
/// # Cancel safety
///
/// As [`ensure_data`].
pub async fn ensure_overlay(
    qemu_img: &QemuImg,
    base: &Path,
    path: &Path,
    size: Bytes,
) -> Result<Change, Error> {
    let size = whole_sectors(size);
    let base = std::path::absolute(base).map_err(|source| Error::Read {
        path: base.to_owned(),
        source,
    })?;
    let below = inspect(&base).await?;
    admit(&below, &base, Overlay::Refuse)?;
    if size < below.virtual_size {
        return Err(Error::SmallerThanBase {
            base,
            needed: below.virtual_size,
            wanted: size,
        });
    }
    let place = claim(path).await?;
    let Some(header) = existing(&place, Overlay::Allow).await? else {
        return create(qemu_img, place, Some(&base), size).await;
    };
    check_base(&header, &place, base)?;
    grow(qemu_img, place, &header, size).await
}

/// Grows an existing disk, overlay or not, to `size`, rounded up to whole sectors of 512 bytes.
///
/// # Errors
///
/// Those of [`ensure_data`]; [`Error::Read`] when there is no such disk.
///
/// # Cancel safety
///
/// As [`ensure_data`].
pub async fn grow_to(qemu_img: &QemuImg, path: &Path, size: Bytes) -> Result<Change, Error> {
    // Before the lock, which would leave its file in the place of a disk that does not exist.
    inspect(path).await?;
    let place = claim(path).await?;
    let header = inspect(place.path()).await?;
    admit(&header, place.path(), Overlay::Allow)?;
    grow(qemu_img, place, &header, whole_sectors(size)).await
}

async fn claim(path: &Path) -> Result<Arc<Place>, Error> {
    let path = path.to_owned();
    blocking(move || Place::claim(&path).map(Arc::new)).await
}

/// The header of the disk, if there is one; it has been admitted.
async fn existing(place: &Arc<Place>, overlay: Overlay) -> Result<Option<Header>, Error> {
    let place = Arc::clone(place);
    blocking(move || {
        if !place.is_taken()? {
            return Ok(None);
        }
        let header = inspect_now(place.path())?;
        admit(&header, place.path(), overlay)?;
        Ok(Some(header))
    })
    .await
}

fn admit(header: &Header, path: &Path, overlay: Overlay) -> Result<(), Error> {
    // How large a disk may be is decided by whoever asks for it; what exists may be as it is.
    let largest = Bytes::new(u64::MAX);
    header
        .admit(largest, overlay)
        .map_err(|source| Error::Refused {
            path: path.to_owned(),
            source,
        })?;
    match header.condition {
        Condition::Clean | Condition::Dirty => Ok(()),
        Condition::Corrupt => Err(Error::Corrupt {
            path: path.to_owned(),
        }),
    }
}

fn check_base(header: &Header, place: &Place, expected: PathBuf) -> Result<(), Error> {
    let backing = header.backing.as_ref();
    let same = backing.is_some_and(|backing| {
        backing.name == expected.as_os_str().as_bytes()
            && backing.format.as_deref() == Some(b"qcow2")
    });
    if same {
        return Ok(());
    }
    Err(Error::OtherBase {
        path: place.path().to_owned(),
        expected,
        found: backing.map(|backing| std::ffi::OsStr::from_bytes(&backing.name).into()),
    })
}

async fn create(
    qemu_img: &QemuImg,
    place: Arc<Place>,
    base: Option<&Path>,
    size: Bytes,
) -> Result<Change, Error> {
    let at = Arc::clone(&place);
    let draft = blocking(move || at.draft()).await?;
    let image = Image::qcow2(draft.path());
    let create = match base {
        Some(base) => Create::overlay(image, Image::qcow2(base)).virtual_size(size.get()),
        None => Create::empty(image, size.get()),
    };
    qemu_img.create(&create).await?;
    blocking(move || place.publish(draft)).await?;
    Ok(Change::Created)
}

async fn grow(
    qemu_img: &QemuImg,
    place: Arc<Place>,
    header: &Header,
    to: Bytes,
) -> Result<Change, Error> {
    let from = header.virtual_size;
    if to < from {
        return Err(Error::WouldShrink {
            path: place.path().to_owned(),
            current: from,
            wanted: to,
        });
    }
    if to == from {
        return Ok(Change::Unchanged);
    }
    let disk = Image::qcow2(place.path());
    qemu_img.resize(disk, to.get(), Resize::GrowOnly).await?;
    blocking(move || place.sync_disk()).await?;
    Ok(Change::Grown { from, to })
}
