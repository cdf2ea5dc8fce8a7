//! Crafted headers, one defect each, and headers of noise.

use proptest::prelude::*;

use super::*;

const LIMIT: Bytes = Bytes::gib(64);

/// Begins like what `qemu-img create -f qcow2 FILE 1G` writes: version 3, clusters of 64 KiB, the
/// refcount table in cluster 1, the L1 table of two entries in cluster 3, with which the file ends.
struct Crafted {
    head: Vec<u8>,
    file_length: u64,
}

impl Crafted {
    fn sound() -> Self {
        let mut image = Self {
            head: vec![0; HEAD_LENGTH],
            file_length: 0x3_0010,
        };
        image
            .bytes(0, b"QFI\xfb")
            .u32(4, 3)
            .u32(20, 16)
            .u64(24, 1 << 30);
        image.u32(36, 2).u64(40, 0x3_0000);
        image.u64(48, 0x1_0000).u32(56, 1);
        image.u32(96, 4).u32(100, 112);
        image
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.head[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.bytes(at, &value.to_be_bytes())
    }

    fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes(at, &value.to_be_bytes())
    }

    fn length(&mut self, file_length: u64) -> &mut Self {
        self.file_length = file_length;
        self.head.truncate(usize::try_from(file_length).unwrap());
        self
    }

    fn backing(&mut self, name: &[u8]) -> &mut Self {
        let length = u32::try_from(name.len()).unwrap();
        self.u64(8, 0x200).u32(16, length).bytes(0x200, name)
    }

    fn verdict(&self) -> Result<Header, Refusal> {
        let header = Header::parse(&self.head, self.file_length)?;
        header.admit(LIMIT, Overlay::Refuse)?;
        Ok(header)
    }
}

type Craft = fn(&mut Crafted) -> &mut Crafted;

/// What is done to a sound image, and what is then said about it.
const REFUSED: &[(Craft, &str)] = &[
    (|i| i.length(0), "it is no qcow2 image"),
    (|i| i.length(3), "it is no qcow2 image"),
    (|i| i.bytes(0, b"QFI\xfa"), "it is no qcow2 image"),
    (|i| i.bytes(0, b"KDMV"), "it is no qcow2 image"),
    (|i| i.bytes(0, b"json"), "it is no qcow2 image"),
    (|i| i.length(4), "it ends inside its header"),
    (|i| i.length(71), "it ends inside its header"),
    (|i| i.length(103), "it ends inside its header"),
    (|i| i.length(104), "it ends inside its header"),
    (
        |i| i.u32(4, 0),
        "it has version 0 of the format: only 2 and 3 are known",
    ),
    (
        |i| i.u32(4, 1),
        "it has version 1 of the format: only 2 and 3 are known",
    ),
    (
        |i| i.u32(4, 4),
        "it has version 4 of the format: only 2 and 3 are known",
    ),
    (
        |i| i.u32(20, 8),
        "its clusters would have 2^8 bytes: 2^9 to 2^21 are possible",
    ),
    (
        |i| i.u32(20, 22),
        "its clusters would have 2^22 bytes: 2^9 to 2^21 are possible",
    ),
    (
        |i| i.u32(20, u32::MAX),
        "its clusters would have 2^4294967295 bytes: 2^9 to 2^21 are possible",
    ),
    (
        |i| i.u32(96, 7),
        "its reference counts would have 2^7 bits: at most 2^6 are possible",
    ),
    (
        |i| i.u32(100, 96),
        "its header claims an impossible length of 96 bytes",
    ),
    (
        |i| i.u32(100, 113),
        "its header claims an impossible length of 113 bytes",
    ),
    (
        |i| i.u32(100, 0xffff_fff8),
        "its header claims an impossible length of 4294967288 bytes",
    ),
    (
        |i| i.bytes(104, b"\x02").u64(72, 1 << 3),
        "its compression type 2 is unknown or contradicts its feature bits",
    ),
    (
        |i| i.bytes(104, b"\x01"),
        "its compression type 1 is unknown or contradicts its feature bits",
    ),
    (
        |i| i.u64(72, 1 << 3),
        "its compression type 0 is unknown or contradicts its feature bits",
    ),
    (
        |i| i.u64(72, 1 << 4).u32(20, 13).u32(36, 200),
        "it has subclusters in clusters of 2^13 bytes: 2^14 is the least",
    ),
    // The size is a bomb only if the L1 table is there: without it the lie shows first.
    (
        |i| i.u64(24, 1 << 60),
        "its L1 table has 2 entries where its virtual size needs 2147483648",
    ),
    (
        |i| i.u64(24, u64::MAX),
        "its L1 table has 2 entries where its virtual size needs 34359738368",
    ),
    (
        |i| i.u32(36, 0),
        "its L1 table has 0 entries where its virtual size needs 2",
    ),
    (
        |i| i.u32(36, 1 << 23),
        "its L1 table of 67108864 bytes at offset 196608 is too long",
    ),
    (
        |i| i.u32(36, 3),
        "its L1 table of 24 bytes at offset 196608 reaches beyond the end of the file",
    ),
    (
        |i| i.u64(40, 0x3_0008),
        "its L1 table of 16 bytes at offset 196616 does not begin with a cluster",
    ),
    (
        |i| i.u64(40, 0),
        "its L1 table of 16 bytes at offset 0 begins inside the header",
    ),
    (
        |i| i.u64(40, 1 << 62),
        "its L1 table of 16 bytes at offset 4611686018427387904 reaches beyond the end of the file",
    ),
    (
        |i| i.u64(40, 0xffff_ffff_ffff_0000).u32(36, 1 << 14),
        "its L1 table of 131072 bytes at offset 18446744073709486080 reaches beyond the end of the file",
    ),
    (
        |i| i.u32(56, 0),
        "its refcount table of 0 bytes at offset 65536 is missing",
    ),
    (
        |i| i.u32(56, 129),
        "its refcount table of 8454144 bytes at offset 65536 is too long",
    ),
    (
        |i| i.u32(56, u32::MAX),
        "its refcount table of 281474976645120 bytes at offset 65536 is too long",
    ),
    (
        |i| i.u64(48, 0x4_0000),
        "its refcount table of 65536 bytes at offset 262144 reaches beyond the end of the file",
    ),
    (
        |i| i.u32(60, 65_537),
        "it claims to hold 65537 snapshots: 65536 are possible",
    ),
    (
        |i| i.u32(60, 1),
        "its snapshot table of 40 bytes at offset 0 begins inside the header",
    ),
    (
        |i| i.u32(60, 65_536).u64(64, 0x2_0000),
        "its snapshot table of 2621440 bytes at offset 131072 reaches beyond the end of the file",
    ),
    (
        |i| i.u32(112, 0x1234_5678).u32(116, u32::MAX),
        "the extensions of its header do not fit their place",
    ),
    (
        |i| i.u32(112, 0x1234_5678).u32(116, 65_417),
        "the extensions of its header do not fit their place",
    ),
    (
        |i| i.u32(112, 0xe279_2aca).u32(116, 16),
        "the extensions of its header do not fit their place",
    ),
    (
        |i| i.u64(8, 0x50).u32(16, 8),
        "the extensions of its header do not fit their place",
    ),
    (
        |i| i.backing(b"/etc/passwd").u32(16, 1024),
        "the name of its backing file is out of place",
    ),
    (
        |i| i.u64(8, 0xfff8).u32(16, 9),
        "the name of its backing file is out of place",
    ),
    (
        |i| i.backing(b"/etc/passwd"),
        "it refers to the backing file \"/etc/passwd\"",
    ),
    (
        |i| i.backing(b"json:{\"driver\":\"raw\"}"),
        "it refers to the backing file \"json:{\\\"driver\\\":\\\"raw\\\"}\"",
    ),
    (
        |i| i.backing(b"\x1b[2J\n\xff"),
        "it refers to the backing file \"\\u{1b}[2J\\n\u{fffd}\"",
    ),
    (|i| i.backing(b""), "it refers to the backing file \"\""),
    (|i| i.u64(72, 1 << 2), "its data is in an external file"),
    (
        |i| {
            i.u64(72, 1 << 2)
                .u32(112, 0x4441_5441)
                .u32(116, 4)
                .bytes(120, b"/etc")
        },
        "its data is in an external file called \"/etc\"",
    ),
    (
        |i| i.u32(112, 0x4441_5441).u32(116, 4).bytes(120, b"/etc"),
        "its data is in an external file called \"/etc\"",
    ),
    (|i| i.u32(32, 1), "it is encrypted"),
    (|i| i.u32(32, 2), "it is encrypted"),
    (|i| i.u32(32, 77), "it is encrypted"),
    (
        |i| i.u64(72, 1 << 5),
        "it needs unknown features (bits 0x20)",
    ),
    (
        |i| i.u64(72, 1 << 63),
        "it needs unknown features (bits 0x8000000000000000)",
    ),
    (
        |i| i.u64(24, 1 << 50).u32(36, 1 << 21).length(0x103_0000),
        "its virtual size of 1024TiB is over the limit of 64GiB",
    ),
];

#[test]
fn every_crafted_image_is_refused_for_its_defect() {
    for (nth, (craft, message)) in REFUSED.iter().enumerate() {
        let mut image = Crafted::sound();
        craft(&mut image);
        let refusal = image.verdict().expect_err(message);
        assert_eq!(refusal.to_string(), *message, "number {nth}");
    }
}

#[test]
fn what_is_sound_is_accepted() {
    let header = Crafted::sound().verdict().unwrap();
    assert_eq!(header.virtual_size, Bytes::gib(1));
    assert_eq!(header.cluster_size, Bytes::kib(64));
    assert_eq!((header.version, header.condition), (3, Condition::Clean));
    let harmless: &[Craft] = &[
        |i| i.u32(4, 2),
        // An unknown extension, and unknown compatible and autoclear features.
        |i| i.u32(112, 0x1234_5678).u32(116, 13),
        |i| i.u32(112, 0x1234_5678).u32(116, 65_416),
        |i| i.u64(80, u64::MAX).u64(88, u64::MAX),
        |i| i.u32(60, 1).u64(64, 0x2_0000),
        |i| i.u64(72, 1 << 3).bytes(104, b"\x01"),
        |i| i.u64(24, 0).u32(36, 0).u64(40, 0),
        |i| i.u32(100, 104),
    ];
    for (nth, craft) in harmless.iter().enumerate() {
        let mut image = Crafted::sound();
        craft(&mut image);
        assert!(
            image.verdict().is_ok(),
            "number {nth}: {:?}",
            image.verdict()
        );
    }
}

#[test]
fn dirt_and_damage_are_reported() {
    for (bits, condition) in [
        (0b01, Condition::Dirty),
        (0b10, Condition::Corrupt),
        (0b11, Condition::Corrupt),
    ] {
        let mut image = Crafted::sound();
        image.u64(72, bits);
        assert_eq!(image.verdict().unwrap().condition, condition);
    }
}

#[test]
fn all_objections_are_listed() {
    let mut image = Crafted::sound();
    image.backing(b"/b").u64(72, 1 << 2 | 1 << 9).u32(32, 2);
    let header = Header::parse(&image.head, image.file_length).unwrap();
    assert_eq!(header.objections(Bytes::mib(1), Overlay::Refuse).len(), 5);
    assert_eq!(header.objections(LIMIT, Overlay::Allow).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn noise_is_survived(head in proptest::collection::vec(any::<u8>(), 0..600), length: u64) {
        let _ = Header::parse(&head, length);
    }

    /// Noise in a sound header gets further than noise alone; names stay short whatever comes.
    #[test]
    fn noise_in_a_header_is_survived(
        patches in proptest::collection::vec((4_usize..600, any::<u8>()), 1..40),
        length in 0_u64..0x20_0000,
    ) {
        let mut image = Crafted::sound();
        for (at, byte) in patches {
            image.head[at] = byte;
        }
        if let Ok(header) = Header::parse(&image.head, length) {
            prop_assert!(header.virtual_size.get() <= (LARGEST_L1_TABLE / 8) << 39);
            if let Some(backing) = &header.backing {
                prop_assert!(backing.name.len() <= LONGEST_NAME);
                prop_assert!(backing.format.as_ref().is_none_or(|format| format.len() <= 15));
            }
        }
    }

    /// Every cut of a sound image is refused or describes the same image.
    #[test]
    fn cut_heads_are_survived(cut in 0_usize..2000) {
        let image = Crafted::sound();
        let whole = Header::parse(&image.head, image.file_length).unwrap();
        if let Ok(header) = Header::parse(&image.head[..cut], image.file_length) {
            prop_assert_eq!(header, whole);
        }
    }
}
