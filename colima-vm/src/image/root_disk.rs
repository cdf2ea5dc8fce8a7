//! The check that a root disk is a plain qcow2 file, before QEMU opens it.

use std::{fs::File, io::Read as _, path::Path};

use colima_core::Bytes;

use super::{Error, error::at};
use crate::disk::qcow2::{HEAD_LENGTH, Header, Overlay};

/// A root disk that claims more than this is a bomb: ours have less than 1 GiB.
const LARGEST: Bytes = Bytes::gib(64);

/// Refuses a disk that would make QEMU open other files, or that claims an absurd size.
pub(super) fn inspect(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(at("open", path))?;
    let length = file.metadata().map_err(at("read", path))?.len();
    let mut head = Vec::with_capacity(HEAD_LENGTH);
    file.take(HEAD_LENGTH as u64)
        .read_to_end(&mut head)
        .map_err(at("read", path))?;
    Header::parse(&head, length)
        .and_then(|header| header.admit(LARGEST, Overlay::Refuse))
        .map_err(|source| Error::Disk {
            path: path.to_owned(),
            source,
        })
}
