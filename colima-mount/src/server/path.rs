//! Paths of clients, as components beneath the root.

use bytes::Bytes;

use crate::sftp::Errno;

/// The components of a path; `.` and empty ones are dropped, and `..` takes the one before it away, as
/// in a directory that is the root of everything. No link is ever followed, so what the path names
/// is no matter of what is on the disk.
pub(crate) fn normalise(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components
}

/// Components with `/` between them.
pub(crate) fn join(components: &[&[u8]]) -> Vec<u8> {
    components.join(&b'/')
}

/// The absolute path that a client is told for the one it asked of.
pub(crate) fn absolute(path: &[u8]) -> Bytes {
    let mut absolute = vec![b'/'];
    absolute.extend(join(&normalise(path)));
    absolute.into()
}

/// A path that system calls take: relative, normalised, without a zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beneath {
    parent: Vec<u8>,
    name: Vec<u8>,
}

impl Beneath {
    /// # Errors
    ///
    /// There is a zero in it.
    pub(crate) fn new(path: &[u8]) -> Result<Self, Errno> {
        if path.contains(&0) {
            return Err(Errno::Invalid);
        }
        let mut components = normalise(path);
        let name = components.pop().unwrap_or(b".").to_vec();
        let mut parent = join(&components);
        if parent.is_empty() {
            parent.push(b'.');
        }
        Ok(Self { parent, name })
    }

    /// The directory that it lies in.
    pub(crate) fn parent(&self) -> &[u8] {
        &self.parent
    }

    /// The last component; `.` for the root.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether it is the root itself, which can be looked at but not removed, renamed or made.
    pub(crate) fn is_root(&self) -> bool {
        self.name == b"."
    }

    /// The whole path.
    pub(crate) fn whole(&self) -> Vec<u8> {
        if self.parent == b"." {
            return self.name.clone();
        }
        join(&[&self.parent, &self.name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_climbs_above_the_root() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("..", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("a/../../b", "/b"),
            ("//a//./b/", "/a/b"),
            ("a/b/../..", "/"),
            ("...", "/..."),
        ] {
            assert_eq!(absolute(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        assert_eq!(Beneath::new(b"a\0b"), Err(Errno::Invalid));
        let root = Beneath::new(b"/../").unwrap();
        assert!(root.is_root());
        assert_eq!(root.whole(), b".");
        let deep = Beneath::new(b"/a/b/c").unwrap();
        assert_eq!((deep.parent(), deep.name()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(deep.whole(), b"a/b/c");
    }
}
