//! What a conversion reads and writes.

use crate::Image;

/// A copy of an image in another format, for [`QemuImg::convert`](crate::QemuImg::convert).
///
/// The copy stands alone: data of backing files are copied into it. Runs of zeros become holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convert<'a> {
    pub(crate) source: Image<'a>,
    pub(crate) target: Image<'a>,
    pub(crate) compression: Compression,
}

impl<'a> Convert<'a> {
    /// A copy of `source`, written to `target` without compression.
    #[must_use]
    pub const fn new(source: Image<'a>, target: Image<'a>) -> Self {
        Self {
            source,
            target,
            compression: Compression::None,
        }
    }

    /// The same with the clusters of the target compressed.
    #[must_use]
    pub const fn compression(mut self, how: Compression) -> Self {
        self.compression = how;
        self
    }
}

/// Compression of the clusters of a qcow2 image; what a guest writes later is not compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// Understood by every QEMU.
    Zlib,
    /// Faster and smaller; the QEMU that wrote and the QEMU that reads need zstd built in.
    Zstd,
}
