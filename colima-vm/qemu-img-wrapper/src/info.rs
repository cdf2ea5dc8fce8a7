//! What `qemu-img info` knows of an image.

use std::time::Duration;

use serde::Deserialize;

use crate::Format;

/// What to do about an image that a running machine has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Locking {
    /// Fail with [`Reason::InUse`](crate::Reason::InUse): what is said of the image is true.
    Respect,
    /// Look anyway (`-U`). Sizes are those of a moment ago; nothing is written either way.
    ForceShare,
}

/// An image as `qemu-img info` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The format it was opened as.
    pub format: Format,
    /// The size the guest sees, in bytes.
    pub virtual_size: u64,
    /// The space it takes on the host, in bytes.
    pub actual_size: u64,
    /// The size of a cluster in bytes, where the format has clusters.
    pub cluster_size: Option<u64>,
    /// Whether a writer died before it closed the image.
    pub dirty: bool,
    /// The image that this one is an overlay of.
    pub backing: Option<BackingFile>,
    /// Snapshots stored inside the image, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What only one format has.
    pub specific: FormatSpecific,
}

/// A reference to a backing file, as the image itself states it: do not follow it unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackingFile {
    /// The name as recorded; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// The name that QEMU would open.
    pub full_name: Option<String>,
    /// The recorded format; without one QEMU guesses.
    pub format: Option<String>,
}

/// The part of [`ImageInfo`] that depends on the format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatSpecific {
    /// A qcow2 image.
    Qcow2(Qcow2Info),
    /// Another format, or none with anything to say.
    Other,
}

/// What a qcow2 image says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Qcow2Info {
    /// `0.10` for version 2 of the format, `1.1` for version 3.
    pub compat: String,
    /// Whether QEMU found the image damaged while using it; it then opens read-only.
    #[serde(default)]
    pub corrupt: bool,
    /// Whether reference counts may be out of date after a crash and are then rebuilt.
    #[serde(default)]
    pub lazy_refcounts: bool,
    /// Width of a reference count in bits.
    pub refcount_bits: u32,
    /// Whether clusters have 32 subclusters.
    #[serde(default)]
    pub extended_l2: bool,
    /// `zlib` or `zstd`.
    pub compression_type: Option<String>,
    /// A file outside the image that holds the data.
    pub data_file: Option<String>,
    /// Whether that file can be read as a raw image.
    #[serde(default)]
    pub data_file_raw: bool,
}

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Unique in the image.
    pub id: String,
    /// Not necessarily unique.
    pub name: String,
    /// Bytes of saved memory and devices; zero when only the disk was saved.
    pub vm_state_size: u64,
    /// When it was made, since the Unix epoch.
    pub created: Duration,
    /// How long the guest had run.
    pub vm_clock: Duration,
}

/// `ImageInfo` of QEMU's qapi/block-core.json. Unknown members are skipped: each version adds some.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawInfo {
    format: Format,
    virtual_size: u64,
    #[serde(default)]
    actual_size: u64,
    cluster_size: Option<u64>,
    #[serde(default)]
    dirty_flag: bool,
    backing_filename: Option<String>,
    full_backing_filename: Option<String>,
    backing_filename_format: Option<String>,
    #[serde(default)]
    snapshots: Vec<RawSnapshot>,
    format_specific: Option<RawSpecific>,
}

#[derive(Deserialize)]
struct RawSpecific {
    r#type: String,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawSnapshot {
    id: String,
    name: String,
    vm_state_size: u64,
    date_sec: u64,
    date_nsec: u64,
    vm_clock_sec: u64,
    vm_clock_nsec: u64,
}

impl From<RawSnapshot> for Snapshot {
    fn from(raw: RawSnapshot) -> Self {
        // The fields come from the image, so that nanoseconds can be more than a second.
        let time =
            |secs, nanos| Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos));
        Self {
            id: raw.id,
            name: raw.name,
            vm_state_size: raw.vm_state_size,
            created: time(raw.date_sec, raw.date_nsec),
            vm_clock: time(raw.vm_clock_sec, raw.vm_clock_nsec),
        }
    }
}

pub(crate) fn parse(stdout: &[u8]) -> Result<ImageInfo, serde_json::Error> {
    let raw: RawInfo = serde_json::from_slice(stdout)?;
    let specific = match raw.format_specific {
        Some(specific) if specific.r#type == "qcow2" => {
            FormatSpecific::Qcow2(serde_json::from_value(specific.data)?)
        }
        Some(_) | None => FormatSpecific::Other,
    };
    Ok(ImageInfo {
        format: raw.format,
        virtual_size: raw.virtual_size,
        actual_size: raw.actual_size,
        cluster_size: raw.cluster_size,
        dirty: raw.dirty_flag,
        backing: raw.backing_filename.map(|name| BackingFile {
            name,
            full_name: raw.full_backing_filename,
            format: raw.backing_filename_format,
        }),
        snapshots: raw.snapshots.into_iter().map(Snapshot::from).collect(),
        specific,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 7.2 prints it: there are no `children` yet.
    const OVERLAY_7_2: &str = r#"{
        "backing-filename-format": "qcow2", "virtual-size": 83886080, "filename": "ov.qcow2",
        "cluster-size": 65536, "format": "qcow2", "actual-size": 200704,
        "snapshots": [{"icount": 0, "vm-clock-nsec": 5, "name": "before", "date-sec": 1795382833,
            "date-nsec": 901204000, "vm-clock-sec": 7, "id": "1", "vm-state-size": 0}],
        "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "compression-type": "zlib",
            "lazy-refcounts": false, "refcount-bits": 16, "corrupt": true, "extended-l2": false,
            "data-file": "/x", "data-file-raw": true}},
        "full-backing-filename": "/b", "backing-filename": "b", "dirty-flag": false}"#;

    /// As QEMU 10.0 prints it.
    const RAW_10_0: &str = r#"{
        "children": [{"name": "file", "info": {"children": [], "virtual-size": 67108864,
            "filename": "./out.raw", "format": "file", "actual-size": 4096,
            "format-specific": {"type": "file", "data": {}}, "dirty-flag": false}}],
        "virtual-size": 67108864, "filename": "./out.raw", "format": "raw", "actual-size": 4096,
        "format-specific": {"type": "raw", "data": {}}, "dirty-flag": false}"#;

    #[test]
    fn old_and_new_versions() {
        insta::assert_debug_snapshot!("overlay_7_2", parse(OVERLAY_7_2.as_bytes()).unwrap());
        insta::assert_debug_snapshot!("raw_10_0", parse(RAW_10_0.as_bytes()).unwrap());
    }

    #[test]
    fn hostile_numbers_are_survived() {
        let text = OVERLAY_7_2.replace("901204000", "18446744073709551615");
        assert!(parse(text.as_bytes()).is_ok());
        let text = OVERLAY_7_2.replace("1795382833", "-1");
        assert!(parse(text.as_bytes()).is_err());
    }
}
