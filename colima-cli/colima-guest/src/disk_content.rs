//! What is on the data disk: nothing at all, our own file system, or something to keep hands off.
//!
//! [`examine`] only reads. A disk is [`Content::Blank`] when everything that any known format would
//! have written is zero: the first 4 MiB, the last 1 MiB, the places of backup superblocks, and a
//! few hundred samples in between. One byte that is not zero makes it [`Content::Foreign`]; the name
//! that goes with it is for the person who has to decide, it does not matter for the decision.

mod signatures;

use std::{fs::File, io, os::unix::fs::FileExt};

use colima_core::Bytes;

use crate::ext4::{self, Superblock};

/// Label of the file system that we make, and recognise as ours.
pub const DATA_LABEL: &str = "colima-data";

const HEAD: u64 = 4 << 20;
const TAIL: u64 = 1 << 20;
const SPOT: u64 = 4096;
const SAMPLES: u64 = 256;

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros wherever a format could have left something: it may be formatted.
    Blank,
    /// The file system that an earlier boot made.
    Ours(Superblock),
    /// Anything else, by name: it is never written to.
    Foreign(&'static str),
}

/// Something of a known size that can be read at an offset.
pub trait Disk {
    /// Its size.
    fn size(&self) -> Bytes;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// Also when the disk ends before the buffer does.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A block device or an image file, with the size that seeking to its end told.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: Bytes,
}

impl FileDisk {
    /// Takes the size of `file`.
    ///
    /// # Errors
    ///
    /// When the file cannot be sought.
    pub fn new(mut file: File) -> io::Result<Self> {
        let size = Bytes::new(io::Seek::seek(&mut file, io::SeekFrom::End(0))?);
        // Samples from everywhere: reading ahead of each would read a hundred times as much.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
        Ok(Self { file, size })
    }
}

impl Disk for FileDisk {
    fn size(&self) -> Bytes {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Tells what `disk` holds.
///
/// # Errors
///
/// When a read fails: such a disk is not blank, it is unknown.
pub fn examine(disk: &impl Disk) -> io::Result<Content> {
    let size = disk.size().get();
    if size < HEAD + TAIL {
        return Ok(Content::Foreign("a disk too small to be a data disk"));
    }
    let mut primary = [0; ext4::LENGTH];
    disk.read_at(ext4::OFFSET, &mut primary)?;
    if let Some(superblock) = Superblock::parse(&primary) {
        return Ok(if superblock.label == DATA_LABEL {
            Content::Ours(superblock)
        } else {
            Content::Foreign("an ext2, ext3 or ext4 file system that Colima did not make")
        });
    }
    if let Some(name) = signatures::recognise(disk)? {
        return Ok(Content::Foreign(name));
    }
    let unknown = Content::Foreign("data that was not recognised");
    if !(is_zero(disk, 0, HEAD)? && is_zero(disk, size - TAIL, TAIL)?) {
        return Ok(unknown);
    }
    for offset in spots(size) {
        if !is_zero(disk, offset, SPOT.min(size - offset))? {
            return Ok(unknown);
        }
    }
    Ok(Content::Blank)
}

/// Places between head and tail that have to be zero, in ascending order.
fn spots(size: u64) -> Vec<u64> {
    let stride = size / SAMPLES;
    let samples = (1..SAMPLES).map(|n| (n * stride) & !(SPOT - 1));
    // A quarter of the disk is where XFS puts its second superblock by default.
    let quarters = (1..4).map(|n| (size / 4 * n) & !(SPOT - 1));
    let mut spots: Vec<u64> = samples
        .chain(quarters)
        .chain(
            signatures::EXT_BACKUPS
                .iter()
                .map(|backup| backup & !(SPOT - 1)),
        )
        .chain(signatures::BTRFS_MIRRORS)
        .filter(|offset| *offset < size)
        .collect();
    spots.sort_unstable();
    spots.dedup();
    spots
}

fn is_zero(disk: &impl Disk, offset: u64, length: u64) -> io::Result<bool> {
    const STEP: usize = 64 << 10;
    const ZEROS: &[u8; STEP] = &[0; STEP];
    let mut buffer = vec![0_u8; STEP];
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).map_or(STEP, |left| left.min(STEP));
        disk.read_at(offset + done, &mut buffer[..step])?;
        // Compared by words, which counts where the processor is emulated.
        if buffer[..step] != ZEROS[..step] {
            return Ok(false);
        }
        done += step as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
