//! Names for what is found on a disk.
//!
//! Offsets and magics are those of util-linux's libblkid (`libblkid/src/superblocks`), which takes
//! them from each format's own documentation.

use std::io;

use super::Disk;

/// Where mke2fs keeps backup superblocks: groups 1, 3, 5, 7 and 9 for blocks of 1, 2 and 4 KiB.
pub(super) const EXT_BACKUPS: [u64; 15] = {
    let groups = [1, 3, 5, 7, 9];
    let mut offsets = [0; 15];
    let mut n = 0;
    while n < 15 {
        let block = 1024 << (n / 5);
        // A group has as many blocks as its bitmap, one block, has bits. Blocks of 1 KiB start with
        // block 1, because the boot sector fills block 0.
        let first = if block == 1024 { 1 } else { 0 };
        offsets[n] = (groups[n % 5] * block * 8 + first) * block;
        n += 1;
    }
    offsets
};

/// Where btrfs keeps copies of its superblock.
pub(super) const BTRFS_MIRRORS: [u64; 2] = [64 << 20, 256 << 30];

const BTRFS: &str = "a btrfs file system";
const EXT_DAMAGED: &str = "a damaged ext4 file system (its main superblock is gone)";
const GPT: &str = "a GPT partition table";
const LUKS: &str = "a LUKS encrypted volume";
const LVM2: &str = "an LVM2 physical volume";
const MD: &str = "a member of a Linux software RAID (md)";
const SWAP: &str = "swap space";

/// Bytes at a fixed place, most telling first: a file system is named before the boot sector that
/// happens to surround it.
const FIXED: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),
    (0x1_0040, b"_BHRfS_M", BTRFS),
    (0, b"LUKS\xba\xbe", LUKS),
    (0x4000, b"SKUL\xba\xbe", LUKS),
    (0x8000, b"SKUL\xba\xbe", LUKS),
    (0x1_0000, b"SKUL\xba\xbe", LUKS),
    (0, b"LABELONE", LVM2),
    (512, b"LABELONE", LVM2),
    (1024, b"LABELONE", LVM2),
    (1536, b"LABELONE", LVM2),
    (4086, b"SWAPSPACE2", SWAP),
    (8182, b"SWAPSPACE2", SWAP),
    (16_374, b"SWAPSPACE2", SWAP),
    (65_526, b"SWAPSPACE2", SWAP),
    (4086, b"SWAP-SPACE", SWAP),
    (0, b"hsqs", "a squashfs file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (
        0x1018,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
        "a bcache or bcachefs device",
    ),
    (0x1_0034, b"ReIsEr", "a ReiserFS file system"),
    (0x8000, b"JFS1", "a JFS file system"),
    (0x8001, b"CD001", "an ISO 9660 file system"),
    (0, b"\xfc\x4e\x2b\xa9", MD),
    (4096, b"\xfc\x4e\x2b\xa9", MD),
    (0, b"QFI\xfb", "a qcow2 image inside the disk"),
    (0, b"KDMV", "a VMDK image inside the disk"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (512, b"EFI PART", GPT),
    (4096, b"EFI PART", GPT),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

/// The name of what is on `disk`, or `None` for nothing that is known here.
pub(super) fn recognise(disk: &impl Disk) -> io::Result<Option<&'static str>> {
    let size = disk.size().get();
    for (offset, magic, name) in FIXED {
        if has(disk, *offset, magic)? {
            return Ok(Some(name));
        }
    }
    if has_zfs_label(disk)? {
        return Ok(Some("a member of a ZFS pool"));
    }
    for backup in EXT_BACKUPS {
        if has(disk, backup + 0x38, b"\x53\xef")? {
            return Ok(Some(EXT_DAMAGED));
        }
    }
    for mirror in BTRFS_MIRRORS {
        if has(disk, mirror + 0x40, b"_BHRfS_M")? {
            return Ok(Some(BTRFS));
        }
    }
    for sector in [512, 4096] {
        if has(disk, size.saturating_sub(sector), b"EFI PART")? {
            return Ok(Some(GPT));
        }
    }
    // md 1.0: 8 KiB before the end, aligned down to 4 KiB; md 0.90: the last whole 64 KiB but one.
    let at_end = [
        size.saturating_sub(8 << 10) & !0xfff,
        (size & !0xffff).saturating_sub(64 << 10),
    ];
    for offset in at_end {
        if has(disk, offset, b"\xfc\x4e\x2b\xa9")? {
            return Ok(Some(MD));
        }
    }
    Ok(None)
}

/// ZFS keeps four labels of 256 KiB, two at each end; the upper half of a label is an array of
/// uberblocks, each of which starts with 0x00bab10c as a 64-bit number of either byte order.
fn has_zfs_label(disk: &impl Disk) -> io::Result<bool> {
    const LABEL: u64 = 256 << 10;
    let size = disk.size().get() & !(LABEL - 1);
    let mut uberblocks = vec![0; 128 << 10];
    for label in [
        0,
        LABEL,
        size.saturating_sub(2 * LABEL),
        size.saturating_sub(LABEL),
    ] {
        disk.read_at(label + (128 << 10), &mut uberblocks)?;
        let magic = 0x00ba_b10c_u64;
        let is_uberblock = |slot: &[u8]| {
            slot.starts_with(&magic.to_le_bytes()) || slot.starts_with(&magic.to_be_bytes())
        };
        if uberblocks.chunks(1024).any(is_uberblock) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `magic` stands at `offset`; no disk has anything beyond its end.
fn has(disk: &impl Disk, offset: u64, magic: &[u8]) -> io::Result<bool> {
    if offset + magic.len() as u64 > disk.size().get() {
        return Ok(false);
    }
    let mut found = [0; 16];
    let found = &mut found[..magic.len()];
    disk.read_at(offset, found)?;
    Ok(found == magic)
}
