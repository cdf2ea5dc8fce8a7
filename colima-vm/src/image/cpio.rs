//! Archives in the `newc` format, which the kernel unpacks into its first root file system.
//!
//! The format is the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`: a header of
//! 110 ASCII bytes, the name, the data, each padded to four bytes, and a last entry `TRAILER!!!`.
//! Several archives can follow one another in one initrd, so that an image brings the modules and
//! every boot adds its own configuration. Output depends on the calls alone: no times, no owners but
//! root, inode numbers in sequence.
//!
//! ```
//! use colima_vm::image::cpio::Archive;
//!
//! let mut archive = Archive::new();
//! archive.directory("colima", 0o755);
//! archive.file("colima/boot.json", 0o600, b"{}");
//! let bytes = archive.finish();
//! assert!(bytes.starts_with(b"070701"));
//! ```

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Parents go before what they contain.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            inodes: 0,
        }
    }

    /// Adds a directory; `mode` holds the permission bits.
    ///
    /// # Panics
    ///
    /// As [`Archive::file`].
    pub fn directory(&mut self, name: &str, mode: u32) {
        self.entry(name, DIRECTORY | mode, (0, 0), b"");
    }

    /// Adds a regular file; `mode` holds the permission bits.
    ///
    /// # Panics
    ///
    /// Panics when `data` has 4 GiB or more, or `name` is not a relative path without NUL.
    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry(name, REGULAR | mode, (0, 0), data);
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Panics
    ///
    /// As [`Archive::file`].
    pub fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device, such as `dev/console` (5, 1).
    ///
    /// # Panics
    ///
    /// As [`Archive::file`].
    pub fn character_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | mode, (major, minor), b"");
    }

    /// The finished archive; its length is a multiple of four, so that another can follow.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.raw("TRAILER!!!", 0, 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        assert!(
            !name.is_empty() && !name.starts_with('/') && !name.contains('\0'),
            "{name:?} is no name for an archive entry"
        );
        self.inodes += 1;
        self.raw(name, self.inodes, mode, device, data);
    }

    fn raw(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), data: &[u8]) {
        let size = u32::try_from(data.len()).expect("a file of an initramfs is below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a name is below 4 GiB");
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields = [
            inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader that follows the kernel's document sees: name, mode, data.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), data);
                return entries;
            }
            entries.push((name.to_owned(), mode, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn every_kind_of_entry() {
        let mut archive = Archive::new();
        archive.directory("dev", 0o755);
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.file("init", 0o755, b"\x7fELF!");
        archive.symlink("bin", "usr/bin");
        let bytes = archive.finish();
        assert_eq!(
            read(&bytes),
            [
                ("dev".to_owned(), 0o040_755, vec![]),
                ("dev/console".to_owned(), 0o020_600, vec![]),
                ("init".to_owned(), 0o100_755, b"\x7fELF!".to_vec()),
                ("bin".to_owned(), 0o120_777, b"usr/bin".to_vec()),
            ]
        );
    }

    #[test]
    fn the_first_bytes_are_stable() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"x");
        let text = String::from_utf8(archive.finish()).unwrap();
        insta::assert_snapshot!(text.replace('\0', "·"));
    }

    #[test]
    #[should_panic(expected = "is no name")]
    fn absolute_names_are_refused() {
        Archive::new().file("/init", 0o755, b"");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(files in prop::collection::vec(
            ("[a-z]{1,9}(/[a-z]{1,9}){0,2}", prop::collection::vec(any::<u8>(), 0..40)), 0..8,
        )) {
            let mut archive = Archive::new();
            for (name, data) in &files {
                archive.file(name, 0o644, data);
            }
            let seen: Vec<_> = read(&archive.finish())
                .into_iter()
                .map(|(name, _, data)| (name, data))
                .collect();
            prop_assert_eq!(seen, files);
        }
    }
}
