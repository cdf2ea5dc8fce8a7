//! The kernel's table of mounts, as far as mounts of ours are concerned: proc(5), `/proc/PID/mountinfo`.

use std::{fs::File, io, io::Read as _};

/// The table of this process's namespace.
pub(crate) const OWN: &str = "/proc/self/mountinfo";

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// `major:minor` of the file system.
    pub(crate) device: String,
    /// Where, as bytes.
    pub(crate) path: Vec<u8>,
    /// What was mounted, by its own account.
    pub(crate) source: Vec<u8>,
}

/// Reads a table.
///
/// # Errors
///
/// The process is gone, or there is no `/proc`.
pub(crate) fn read(path: &str) -> io::Result<Vec<Mounted>> {
    let mut text = Vec::new();
    File::open(path)?.read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// The lines of a table; one that makes no sense is left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [TAG...] - TYPE SOURCE OPTIONS`
fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-");
    let source = rest.nth(2)?;
    Some(Mounted {
        device: String::from_utf8_lossy(device).into_owned(),
        path: unescaped(path),
        source: unescaped(source),
    })
}

/// Space, tab, line break and backslash stand as a backslash with three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let octal = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let text = b"22 1 253:0 / / rw,noatime shared:1 - ext4 /dev/vda rw\n\
            61 22 0:57 / /home/ada/a\\040b\\134c\\012 rw,nosuid shared:9 master:2 - fuse.colima colima.3 rw,user_id=0\n\
            62 22 0:58 / /x rw - tmpfs tmpfs rw\n\
            nonsense\n";
        let table = parse(text);
        assert_eq!(table.len(), 3);
        assert_eq!(
            table[1],
            Mounted {
                device: "0:57".to_owned(),
                path: b"/home/ada/a b\\c\n".to_vec(),
                source: b"colima.3".to_vec(),
            }
        );
        assert_eq!(table[0].source, b"/dev/vda");
        assert_eq!(table[2].path, b"/x");
    }

    #[test]
    fn what_only_looks_escaped() {
        assert_eq!(unescaped(b"a\\9"), b"a\\9");
        assert_eq!(unescaped(b"\\04"), b"\\04");
        assert_eq!(unescaped(b"\\040"), b" ");
        assert_eq!(unescaped("é\\999".as_bytes()), "é\\999".as_bytes());
    }
}
