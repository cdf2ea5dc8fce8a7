//! The few fields of an ext4 superblock that decide what happens to a disk.
//!
//! Offsets are those of the kernel's `Documentation/filesystems/ext4/super.rst`; all little-endian.

use colima_core::Bytes;

/// Offset of the primary superblock on a disk, and its length.
pub const OFFSET: u64 = 1024;
/// Length of a superblock in bytes.
pub const LENGTH: usize = 1024;

const MAGIC: u16 = 0xef53;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;

/// What we read of a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Volume label.
    pub label: String,
    /// Size of the file system.
    pub size: Bytes,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// Whether it wants a check before it is mounted.
    pub condition: Condition,
}

/// How a file system was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Unmounted in order, no errors on record.
    Clean,
    /// Left while mounted: its journal wants to be replayed.
    JournalPending,
    /// The kernel recorded errors, or it has no journal and was left while mounted.
    Errors,
}

impl Superblock {
    /// Reads a superblock, or `None` where there is none.
    #[must_use]
    pub fn parse(block: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(block.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        if block.len() < LENGTH || u16_at(0x38)? != MAGIC {
            return None;
        }
        let log_block_size = u32_at(0x18)?;
        if log_block_size > 6 {
            return None; // beyond 64 KiB: not a superblock that any kernel mounts
        }
        let block_size = 1024_u32 << log_block_size;
        let incompat = u32_at(0x60)?;
        let high = if incompat & INCOMPAT_64BIT == 0 {
            0
        } else {
            u32_at(0x150)?
        };
        let blocks = u64::from(high) << 32 | u64::from(u32_at(0x4)?);
        let state = u16_at(0x3a)?;
        let condition = if state & STATE_ERRORS != 0 || state & STATE_CLEAN == 0 {
            Condition::Errors
        } else if incompat & INCOMPAT_RECOVER != 0 {
            Condition::JournalPending
        } else {
            Condition::Clean
        };
        let label = block.get(0x78..0x88)?;
        let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            size: Bytes::new(blocks.saturating_mul(u64::from(block_size))),
            block_size,
            condition,
        })
    }

    /// Whether a disk of this size has room that the file system does not use.
    ///
    /// A rest smaller than a block group's worth of metadata cannot be used, so a file system within
    /// 1 MiB of the disk's end counts as full size.
    #[must_use]
    pub fn can_grow_on(&self, disk: Bytes) -> bool {
        disk.get().saturating_sub(self.size.get()) >= Bytes::mib(1).get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn superblock(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut block = vec![0; LENGTH];
        block[0x4..0x8].copy_from_slice(&262_144_u32.to_le_bytes());
        block[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
        block[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        block[0x3a..0x3c].copy_from_slice(&STATE_CLEAN.to_le_bytes());
        block[0x78..0x83].copy_from_slice(b"colima-data");
        edit(&mut block);
        block
    }

    #[test]
    fn the_fields() {
        let read = Superblock::parse(&superblock(|_| {})).unwrap();
        assert_eq!(read.label, "colima-data");
        assert_eq!(read.size, Bytes::gib(1));
        assert_eq!(read.condition, Condition::Clean);
        assert!(!read.can_grow_on(Bytes::gib(1)));
        assert!(read.can_grow_on(Bytes::gib(2)));
        assert!(
            !read.can_grow_on(Bytes::mib(512)),
            "a smaller disk is no reason to grow"
        );
    }

    #[test]
    fn how_it_was_left() {
        let pending = superblock(|block| block[0x60] = 0x4);
        assert_eq!(
            Superblock::parse(&pending).unwrap().condition,
            Condition::JournalPending
        );
        let errors = superblock(|block| block[0x3a] = 3);
        assert_eq!(
            Superblock::parse(&errors).unwrap().condition,
            Condition::Errors
        );
        let dirty = superblock(|block| block[0x3a] = 0);
        assert_eq!(
            Superblock::parse(&dirty).unwrap().condition,
            Condition::Errors
        );
    }

    #[test]
    fn more_than_four_billion_blocks() {
        let large = superblock(|block| {
            block[0x60] = 0x80;
            block[0x150] = 1;
        });
        assert_eq!(
            Superblock::parse(&large).unwrap().size,
            Bytes::new((1 << 32 | 262_144) * 4096)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(block in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = Superblock::parse(&block);
        }

        #[test]
        fn without_the_magic_it_is_none(mut block in proptest::collection::vec(any::<u8>(), LENGTH)) {
            block[0x38] = 0;
            prop_assert_eq!(Superblock::parse(&block), None);
        }
    }
}
