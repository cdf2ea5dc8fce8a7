//! The version of the installed program.

use std::fmt;

/// A version of QEMU, ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Counts years.
    pub major: u32,
    /// Counts releases of the year.
    pub minor: u32,
    /// Counts corrections; 50 and more are development versions.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Reads the first line of `qemu-img --version`.
pub(crate) fn parse(stdout: &str) -> Option<Version> {
    let rest = stdout.strip_prefix("qemu-img version ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let mut numbers = rest[..end].split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Version {
        major: next()?,
        minor: next()?,
        micro: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_distributions_print_it() {
        for (line, version) in [
            (
                "qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright",
                "7.2.22",
            ),
            ("qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2)\n", "10.0.2"),
            ("qemu-img version 9.2.50 (v9.2.0-1-gabc)\n", "9.2.50"),
            ("qemu-img version 11.0.0\n", "11.0.0"),
        ] {
            assert_eq!(parse(line).unwrap().to_string(), version);
        }
        for line in [
            "",
            "qemu-img version ",
            "qemu-img version 10.0",
            "QEMU 10.0.2",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
