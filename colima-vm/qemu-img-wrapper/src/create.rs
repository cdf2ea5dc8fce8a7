//! What a new image is to be.

use crate::Image;

/// A new image, for [`QemuImg::create`](crate::QemuImg::create).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    pub(crate) image: Image<'a>,
    pub(crate) backing: Option<Image<'a>>,
    pub(crate) virtual_size: Option<u64>,
    pub(crate) cluster_size: Option<u32>,
    pub(crate) preallocation: Preallocation,
}

impl<'a> Create<'a> {
    /// An image of `virtual_size` bytes, rounded up to whole sectors of 512, that reads as zeros.
    #[must_use]
    pub const fn empty(image: Image<'a>, virtual_size: u64) -> Self {
        Self {
            image,
            backing: None,
            virtual_size: Some(virtual_size),
            cluster_size: None,
            preallocation: Preallocation::Off,
        }
    }

    /// An image of the size of `backing` that holds only what differs from it.
    ///
    /// The absolute path of `backing` and its format are recorded in the new image.
    #[must_use]
    pub const fn overlay(image: Image<'a>, backing: Image<'a>) -> Self {
        Self {
            image,
            backing: Some(backing),
            virtual_size: None,
            cluster_size: None,
            preallocation: Preallocation::Off,
        }
    }

    /// The same with this size in bytes.
    #[must_use]
    pub const fn virtual_size(mut self, bytes: u64) -> Self {
        self.virtual_size = Some(bytes);
        self
    }

    /// The same with clusters of this many bytes: a power of two from 512 to 2 MiB, qcow2 only.
    #[must_use]
    pub const fn cluster_size(mut self, bytes: u32) -> Self {
        self.cluster_size = Some(bytes);
        self
    }

    /// The same with space reserved in advance.
    #[must_use]
    pub const fn preallocation(mut self, how: Preallocation) -> Self {
        self.preallocation = how;
        self
    }
}

/// How much of a new image takes space on the host from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preallocation {
    /// Nothing: the file is sparse and grows with use.
    #[default]
    Off,
    /// The tables of the format, not the data (qcow2).
    Metadata,
    /// Everything, by asking the file system to reserve it.
    Falloc,
    /// Everything, by writing zeros.
    Full,
}

impl Preallocation {
    pub(crate) const fn option(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Metadata => Some("preallocation=metadata"),
            Self::Falloc => Some("preallocation=falloc"),
            Self::Full => Some("preallocation=full"),
        }
    }
}
