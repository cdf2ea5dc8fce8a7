//! The header of a qcow2 image, read without QEMU and believed in nothing.
//!
//! The format is specified in QEMU's docs/interop/qcow2.rst (qcow2.txt before QEMU 10.1); limits are
//! those of block/qcow2.h. Offsets below count from the start of the file, numbers are big-endian.
//!
//! [`Header::parse`] is a pure function of the first bytes of a file and the length of the file. It
//! allocates no more than a name of 1,023 bytes here and there, whatever the bytes are. An image that it accepts
//! can still have damaged tables; that is for `qemu-img check`. What it does rule out, together with
//! [`Header::admit`], is an image that makes QEMU open other files, or use more memory or disk than
//! the caller allowed.

use std::fmt;

use colima_core::Bytes;

mod fields;
mod refusal;

use fields::Fields;
pub use refusal::{Refusal, Table, TableFault};

/// How many bytes of the file [`Header::parse`] wants to see; fewer only if the file is shorter.
pub const HEAD_LENGTH: usize = 64 << 10;

/// `QCOW_MAX_L1_SIZE`
const LARGEST_L1_TABLE: u64 = 32 << 20;
/// `QCOW_MAX_REFTABLE_SIZE`
const LARGEST_REFCOUNT_TABLE: u64 = 8 << 20;
/// `QCOW_MAX_SNAPSHOTS`
const MOST_SNAPSHOTS: u32 = 65_536;
/// The fixed part of an entry of the snapshot table.
const SMALLEST_SNAPSHOT: u64 = 40;
/// Longest name of a backing file, in bytes.
const LONGEST_NAME: usize = 1023;

mod incompatible {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// What the header of a qcow2 image says; every number is within its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// The size the guest sees.
    pub virtual_size: Bytes,
    /// The size of a cluster, from 512 bytes to 2 MiB.
    pub cluster_size: Bytes,
    /// Snapshots inside the image.
    pub snapshots: u32,
    /// Whether it was closed in order.
    pub condition: Condition,
    /// The image that this one is an overlay of.
    pub backing: Option<Backing>,
    /// A file outside the image that holds its data, by name where the image tells it.
    pub data_file: Option<DataFile>,
    /// How the data is encrypted.
    pub encryption: Encryption,
    /// Incompatible features that no QEMU of today knows, one bit each.
    pub unknown_features: u64,
}

/// Whether the last writer closed the image in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It did.
    Clean,
    /// It did not; QEMU rebuilds the reference counts when it opens the image.
    Dirty,
    /// QEMU found damage and will only open the image read-only until it is repaired.
    Corrupt,
}

/// A reference to a backing file. The bytes are the image's own and name whatever they like.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// The name, at most 1,023 bytes.
    pub name: Vec<u8>,
    /// The format; without it QEMU would guess.
    pub format: Option<Vec<u8>>,
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        f.debug_struct("Backing")
            .field("name", &text(&self.name))
            .field("format", &self.format.as_ref().map(text))
            .finish()
    }
}

/// An external data file, which [`Header::admit`] always refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataFile {
    /// The name, where the image tells it; bytes that are not UTF-8 are replaced.
    pub name: Option<String>,
}

/// `crypt_method` of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Plain.
    None,
    /// The broken scheme of old.
    Aes,
    /// LUKS.
    Luks,
    /// A number without a meaning.
    Unknown(u32),
}

/// Whether an image may be an overlay, for [`Header::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// It has to stand alone. Every image that was not made here by ourselves.
    Refuse,
    /// It may name a backing file, which the caller then compares with the one it expects.
    Allow,
}

impl Header {
    /// Reads the header from `head`, the first [`HEAD_LENGTH`] bytes of a file of `file_length` bytes.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of what cannot be an intact image of version 2 or 3.
    pub fn parse(head: &[u8], file_length: u64) -> Result<Self, Refusal> {
        let fields = Fields::read(head)?;
        let cluster_size = 1_u64 << fields.cluster_bits;
        fields.check_tables(file_length)?;
        let extensions = fields.extensions(head)?;
        let has = |bit| fields.incompatible & bit != 0;

        let condition = if has(incompatible::CORRUPT) {
            Condition::Corrupt
        } else if has(incompatible::DIRTY) {
            Condition::Dirty
        } else {
            Condition::Clean
        };
        let backing = fields.backing_name(head)?.map(|name| Backing {
            name: name.to_vec(),
            format: extensions.backing_format.map(<[u8]>::to_vec),
        });
        let data_file =
            (has(incompatible::DATA_FILE) || extensions.data_file.is_some()).then(|| DataFile {
                name: extensions.data_file.map(|name| {
                    let shown = &name[..name.len().min(LONGEST_NAME)];
                    String::from_utf8_lossy(shown).into_owned()
                }),
            });
        Ok(Self {
            version: fields.version,
            virtual_size: Bytes::new(fields.virtual_size),
            cluster_size: Bytes::new(cluster_size),
            snapshots: fields.snapshots,
            condition,
            backing,
            data_file,
            encryption: match fields.crypt_method {
                0 => Encryption::None,
                1 => Encryption::Aes,
                2 => Encryption::Luks,
                other => Encryption::Unknown(other),
            },
            unknown_features: fields.incompatible & !incompatible::KNOWN,
        })
    }

    /// Everything that speaks against giving this image to QEMU, of which `largest` is the largest
    /// virtual size the caller wants.
    ///
    /// The [`condition`](Self::condition) is not among it: a dirty image is repaired by QEMU, and what
    /// to do about a corrupt one depends on whose it is.
    #[must_use]
    pub fn objections(&self, largest: Bytes, overlay: Overlay) -> Vec<Refusal> {
        let mut all = Vec::new();
        if let (Some(backing), Overlay::Refuse) = (&self.backing, overlay) {
            all.push(Refusal::BackingFile {
                name: String::from_utf8_lossy(&backing.name).into_owned(),
            });
        }
        if let Some(file) = &self.data_file {
            all.push(Refusal::DataFile {
                name: file.name.clone(),
            });
        }
        match self.encryption {
            Encryption::None => {}
            Encryption::Aes | Encryption::Luks | Encryption::Unknown(_) => {
                all.push(Refusal::Encrypted);
            }
        }
        if self.unknown_features != 0 {
            all.push(Refusal::UnknownFeatures {
                bits: self.unknown_features,
            });
        }
        if self.virtual_size > largest {
            all.push(Refusal::TooLarge {
                size: self.virtual_size,
                largest,
            });
        }
        all
    }

    /// Accepts the image or names the first of its [`objections`](Self::objections).
    ///
    /// # Errors
    ///
    /// That first objection.
    pub fn admit(&self, largest: Bytes, overlay: Overlay) -> Result<(), Refusal> {
        match self.objections(largest, overlay).into_iter().next() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
