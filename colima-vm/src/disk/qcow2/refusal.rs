//! Why an image is not accepted.

use std::fmt;

use colima_core::Bytes;

/// Why a file is not accepted as a disk image. Names come from the image and are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The magic number is missing.
    #[error("it is no qcow2 image")]
    NotQcow2,
    /// The file ends inside its header.
    #[error("it ends inside its header")]
    Truncated,
    /// Neither 2 nor 3.
    #[error("it has version {version} of the format: only 2 and 3 are known")]
    Version {
        /// The version it claims.
        version: u32,
    },
    /// Outside 9 to 21.
    #[error("its clusters would have 2^{bits} bytes: 2^9 to 2^21 are possible")]
    ClusterBits {
        /// The exponent it claims.
        bits: u32,
    },
    /// Too short, longer than a cluster, or no multiple of 8.
    #[error("its header claims an impossible length of {length} bytes")]
    HeaderLength {
        /// The length it claims.
        length: u32,
    },
    /// Wider than 64 bits.
    #[error("its reference counts would have 2^{order} bits: at most 2^6 are possible")]
    RefcountOrder {
        /// The exponent it claims.
        order: u32,
    },
    /// An unknown compression, or one that contradicts the feature bits.
    #[error("its compression type {kind} is unknown or contradicts its feature bits")]
    Compression {
        /// The type it claims.
        kind: u8,
    },
    /// Subclusters need clusters of 16 KiB or more.
    #[error("it has subclusters in clusters of 2^{bits} bytes: 2^14 is the least")]
    Subclusters {
        /// The exponent of its cluster size.
        bits: u32,
    },
    /// An extension reaches out of its place, or they do not end.
    #[error("the extensions of its header do not fit their place")]
    Extensions,
    /// The name of the backing file lies outside the first cluster or is too long.
    #[error("the name of its backing file is out of place")]
    BackingName,
    /// One of its tables cannot be where or what it claims.
    #[error("its {table} of {length} bytes at offset {offset} {fault}")]
    Table {
        /// Which one.
        table: Table,
        /// Where it claims to be.
        offset: u64,
        /// How long it claims to be.
        length: u64,
        /// What is wrong.
        fault: TableFault,
    },
    /// The L1 table has too few entries for the virtual size.
    #[error("its L1 table has {entries} entries where its virtual size needs {needed}")]
    L1TooSmall {
        /// Entries it has.
        entries: u32,
        /// Entries it needs.
        needed: u64,
    },
    /// More snapshots than QEMU accepts.
    #[error("it claims to hold {count} snapshots: 65536 are possible")]
    Snapshots {
        /// The number it claims.
        count: u32,
    },
    /// It is an overlay of another file.
    #[error("it refers to the backing file {name:?}")]
    BackingFile {
        /// The file it names.
        name: String,
    },
    /// Its data is in another file.
    #[error("its data is in an external file{}", shown(name.as_ref()))]
    DataFile {
        /// The file it names, where it does.
        name: Option<String>,
    },
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It needs features that are not known.
    #[error("it needs unknown features (bits {bits:#x})")]
    UnknownFeatures {
        /// The bits that are set.
        bits: u64,
    },
    /// Its virtual size is over the caller's limit.
    #[error("its virtual size of {size} is over the limit of {largest}")]
    TooLarge {
        /// The size it claims.
        size: Bytes,
        /// The limit.
        largest: Bytes,
    },
}

fn shown(name: Option<&String>) -> String {
    name.map(|name| format!(" called {name:?}"))
        .unwrap_or_default()
}

/// A table that the header points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The first level of the mapping from guest to file.
    L1,
    /// The reference counts of clusters.
    Refcount,
    /// The snapshots.
    Snapshot,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1 => "L1 table",
            Self::Refcount => "refcount table",
            Self::Snapshot => "snapshot table",
        })
    }
}

/// What can be wrong with a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// It does not begin with a cluster.
    Misaligned,
    /// It begins inside the header's cluster.
    InHeader,
    /// It reaches beyond the end of the file.
    BeyondEnd,
    /// It is longer than QEMU accepts.
    TooLong,
    /// An image cannot be without it.
    Missing,
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Misaligned => "does not begin with a cluster",
            Self::InHeader => "begins inside the header",
            Self::BeyondEnd => "reaches beyond the end of the file",
            Self::TooLong => "is too long",
            Self::Missing => "is missing",
        })
    }
}
