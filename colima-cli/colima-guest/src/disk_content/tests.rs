use std::{fs::OpenOptions, io::Write as _, process::Command};

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 300 << 20;

/// A disk of zeros with a few bytes on it, however large.
struct Sparse {
    size: u64,
    bytes: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    fn with(offset: u64, bytes: &[u8]) -> Self {
        Self {
            size: SIZE,
            bytes: vec![(offset, bytes.to_vec())],
        }
    }
}

impl Disk for Sparse {
    fn size(&self) -> Bytes {
        Bytes::new(self.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        for (start, bytes) in &self.bytes {
            for (position, byte) in (*start..).zip(bytes) {
                if position >= offset && position < offset + buffer.len() as u64 {
                    buffer[usize::try_from(position - offset).unwrap()] = *byte;
                }
            }
        }
        Ok(())
    }
}

fn name_of(disk: &Sparse) -> &'static str {
    match examine(disk).unwrap() {
        Content::Foreign(name) => name,
        other => panic!("expected to be left alone, got {other:?}"),
    }
}

#[test]
fn zeros_are_blank() {
    for size in [5 << 20, SIZE, 60 << 30, 2 << 40] {
        assert_eq!(
            examine(&Sparse {
                size,
                bytes: vec![]
            })
            .unwrap(),
            Content::Blank,
            "{size}"
        );
    }
}

#[test]
fn every_known_signature_by_its_bytes() {
    let end = SIZE;
    for (offset, bytes, expected) in [
        (0, &b"XFSB"[..], "XFS"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        ((64 << 20) + 0x40, b"_BHRfS_M", "btrfs"),
        (0, b"LUKS\xba\xbe\x00\x02", "LUKS"),
        (0x4000, b"SKUL\xba\xbe", "LUKS"),
        (512, b"LABELONE", "LVM2"),
        (4086, b"SWAPSPACE2", "swap"),
        (512, b"EFI PART", "GPT"),
        (end - 512, b"EFI PART", "GPT"),
        (510, b"\x55\xaa", "MBR"),
        (54, b"FAT16   ", "FAT"),
        (3, b"NTFS    ", "NTFS"),
        (0, b"\xfc\x4e\x2b\xa9", "md"),
        (4096, b"\xfc\x4e\x2b\xa9", "md"),
        (end - (8 << 10), b"\xfc\x4e\x2b\xa9", "md"),
        (end - (128 << 10), b"\xfc\x4e\x2b\xa9", "not recognised"),
        (end - (64 << 10), b"\xfc\x4e\x2b\xa9", "md"),
        (132 << 10, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "ZFS"),
        (
            end - (256 << 10) + (130 << 10),
            b"\x00\x00\x00\x00\x00\xba\xb1\x0c",
            "ZFS",
        ),
        (0, b"hsqs", "squashfs"),
        (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
        (0x8001, b"CD001", "ISO 9660"),
        (8193 * 1024 + 0x38, b"\x53\xef", "damaged ext4"),
        (16_384 * 2048 + 0x38, b"\x53\xef", "damaged ext4"),
        (32_768 * 4096 + 0x38, b"\x53\xef", "damaged ext4"),
    ] {
        let name = name_of(&Sparse::with(offset, bytes));
        assert!(name.contains(expected), "{bytes:?} at {offset:#x}: {name}");
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_not_blank() {
    struct Broken;
    impl Disk for Broken {
        fn size(&self) -> Bytes {
            Bytes::gib(1)
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            buffer.fill(0);
            if offset > 512 << 20 {
                Err(io::ErrorKind::Other.into())
            } else {
                Ok(())
            }
        }
    }
    assert!(examine(&Broken).is_err());
}

proptest! {
    #[test]
    fn one_bit_in_the_head_or_tail_is_enough(
        position in 0..HEAD + TAIL,
        bit in 0..8_u32,
    ) {
        let offset = if position < HEAD { position } else { SIZE - 1 - (position - HEAD) };
        let disk = Sparse::with(offset, &[1 << bit]);
        prop_assert!(matches!(examine(&disk).unwrap(), Content::Foreign(_)));
    }

    #[test]
    fn no_bytes_ever_look_like_ours_without_label_and_magic(
        mut start in proptest::collection::vec(any::<u8>(), 4096),
    ) {
        start[0x438] = 0;
        prop_assert!(!matches!(examine(&Sparse::with(0, &start)).unwrap(), Content::Ours(_)));
    }
}

/// An image file of `SIZE` bytes that `make` filled, or `None` where its tool is not installed.
fn made_by(program: &str, args: &[&str]) -> Option<(tempfile::NamedTempFile, Content)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let output = Command::new(program)
        .args(args)
        .arg(file.path())
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output();
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let _ = writeln!(io::stderr(), "skipped: {program} is not installed");
            None
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            let content = look_at(&file);
            Some((file, content))
        }
    }
}

fn look_at(file: &tempfile::NamedTempFile) -> Content {
    examine(&FileDisk::new(file.reopen().unwrap()).unwrap()).unwrap()
}

#[test]
fn what_real_tools_make() {
    for (program, args, expected) in [
        ("mkfs.ext4", &["-q", "-F"][..], "ext4"),
        ("mkfs.ext2", &["-q", "-F", "-b", "1024"], "ext2"),
        ("mkfs.xfs", &["-q"], "XFS"),
        ("mkfs.btrfs", &["-q"], "btrfs"),
        ("mkfs.vfat", &[], "FAT"),
        ("mkfs.f2fs", &["-q"], "F2FS"),
        ("mkfs.ntfs", &["-q", "-F", "-Q"], "NTFS"),
        ("mkswap", &["-q"], "swap"),
        ("sgdisk", &["-o"], "GPT"),
    ] {
        let Some((_file, content)) = made_by(program, args) else {
            continue;
        };
        let Content::Foreign(name) = content else {
            panic!("{program}: {content:?}")
        };
        assert!(name.contains(expected), "{program}: {name}");
    }
}

#[test]
fn our_own_file_system_and_what_becomes_of_it() {
    for block_size in ["1024", "2048", "4096"] {
        let args = ["-q", "-F", "-L", DATA_LABEL, "-b", block_size];
        let Some((file, content)) = made_by("mkfs.ext4", &args) else {
            return;
        };
        let Content::Ours(superblock) = content else {
            panic!("{content:?}")
        };
        assert_eq!(superblock.condition, crate::ext4::Condition::Clean);
        assert!(
            !superblock.can_grow_on(Bytes::new(SIZE)),
            "mkfs fills the disk"
        );

        let wipe = |from: u64, length: usize| {
            let disk = OpenOptions::new().write(true).open(file.path()).unwrap();
            disk.write_all_at(&vec![0; length], from).unwrap();
        };
        wipe(1024, 1024);
        let Content::Foreign(name) = look_at(&file) else {
            panic!("lost superblock")
        };
        assert!(name.contains("damaged ext4"), "{name}");

        // The first 4 MiB zeroed, as by a wrong dd: the backups still tell.
        wipe(0, 4 << 20);
        let Content::Foreign(name) = look_at(&file) else {
            panic!("lost head")
        };
        assert!(name.contains("damaged ext4"), "{block_size}: {name}");
    }
}
