//! The list of packages that an image is made of, each with its digest.
//!
//! A lock is all that a build needs to know: two builds from one lock are equal byte for byte.

use std::{fmt, fmt::Write as _, str::FromStr};

use colima_core::{Arch, Bytes};

use super::{Digest, ParseDigestError};

/// Everything that decides the contents of an image besides this program itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageLock {
    /// Architecture of the packages.
    pub arch: Arch,
    /// Debian's release, such as `trixie`.
    pub suite: String,
    /// The time that all files of the image carry, seconds since the Unix epoch.
    pub epoch: u64,
    /// Lines of the image's `sources.list`, where its packages came from.
    pub sources: Vec<String>,
    /// The packages, sorted by name.
    pub packages: Vec<LockedPackage>,
}

/// One package of a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Debian's name of the package.
    pub name: String,
    /// Version, with its epoch where it has one.
    pub version: String,
    /// Debian's architecture: `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Digest of the `.deb` file.
    pub sha256: Digest,
    /// Size of the `.deb` file.
    pub size: Bytes,
}

impl LockedPackage {
    /// Whether the package holds a kernel, which is unpacked rather than installed.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.name.starts_with("linux-image-")
    }
}

impl PackageLock {
    /// The first line of a lock's text.
    pub const HEADER: &str = "colima package lock 1";

    /// The digest of the lock's text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_string())
    }

    /// The sum of the sizes of all `.deb` files.
    #[must_use]
    pub fn download_size(&self) -> Bytes {
        let sum = self.packages.iter().map(|package| package.size.get());
        Bytes::new(sum.fold(0, u64::saturating_add))
    }
}

impl fmt::Display for PackageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!(
            "{}\narch {}\nsuite {}\nepoch {}\n",
            Self::HEADER,
            self.arch,
            self.suite,
            self.epoch
        );
        for source in &self.sources {
            writeln!(text, "source {source}")?;
        }
        for package in &self.packages {
            let LockedPackage {
                name,
                version,
                arch,
                sha256,
                size,
            } = package;
            writeln!(
                text,
                "package {name} {version} {arch} {sha256} {}",
                size.get()
            )?;
        }
        f.write_str(&text)
    }
}

/// Why a text is not a package lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the package lock: {reason}")]
pub struct ParseLockError {
    /// The line, counted from 1; one past the last where something is missing.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for PackageLock {
    type Err = ParseLockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut arch, mut suite, mut epoch) = (None, None, None);
        let (mut sources, mut packages) = (Vec::new(), Vec::<LockedPackage>::new());
        let mut count = 0;
        for (index, line) in text.lines().enumerate() {
            count = index + 1;
            let fail = |reason: String| ParseLockError {
                line: index + 1,
                reason,
            };
            if index == 0 {
                if line != Self::HEADER {
                    return Err(fail(format!("it begins with {:?}", Self::HEADER)));
                }
                continue;
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "arch" => arch = Some(value.parse::<Arch>().map_err(|e| fail(e.to_string()))?),
                "suite" if is_word(value) => suite = Some(value.to_owned()),
                "epoch" => {
                    epoch = Some(value.parse().map_err(|_| fail("not a time".to_owned()))?);
                }
                "source" if value.starts_with("deb ") => sources.push(value.to_owned()),
                "package" => {
                    let package = parse_package(value).map_err(fail)?;
                    if packages.last().is_some_and(|last| *last >= package) {
                        return Err(fail("packages are sorted and listed once".to_owned()));
                    }
                    packages.push(package);
                }
                _ => return Err(fail(format!("{line:?} is not understood"))),
            }
        }
        let missing = |what: &str| ParseLockError {
            line: count + 1,
            reason: format!("no line tells the {what}"),
        };
        Ok(Self {
            arch: arch.ok_or_else(|| missing("arch"))?,
            suite: suite.ok_or_else(|| missing("suite"))?,
            epoch: epoch.ok_or_else(|| missing("epoch"))?,
            sources,
            packages,
        })
    }
}

fn parse_package(value: &str) -> Result<LockedPackage, String> {
    let fields: Vec<&str> = value.split(' ').collect();
    let [name, version, arch, sha256, size] = fields[..] else {
        return Err("write name, version, architecture, digest and size".to_owned());
    };
    if ![name, version, arch].into_iter().all(is_word) {
        return Err(format!("{value:?} has a character that no package has"));
    }
    Ok(LockedPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        sha256: sha256
            .parse()
            .map_err(|error: ParseDigestError| error.to_string())?,
        size: Bytes::new(
            size.parse()
                .map_err(|_| format!("{size:?} is not a size"))?,
        ),
    })
}

/// Names and versions of packages become arguments and file names (Debian policy 5.6.1, 5.6.12).
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '~' | ':' | '_'))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::image) fn sample() -> PackageLock {
        let package = |name: &str, version: &str| LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            arch: "amd64".to_owned(),
            sha256: Digest::of(name),
            size: Bytes::kib(20),
        };
        PackageLock {
            arch: Arch::X86_64,
            suite: "trixie".to_owned(),
            epoch: 1_760_000_000,
            sources: vec!["deb http://mirror.example/debian trixie main".to_owned()],
            packages: vec![
                package("bash", "5.2.37-2+b10"),
                package("linux-image-6.12.1-cloud-amd64", "6.12.1-1"),
                package("openssh-server", "1:10.0p1-7"),
            ],
        }
    }

    #[test]
    fn its_text() {
        insta::assert_snapshot!(sample());
        assert_eq!(sample().to_string().parse(), Ok(sample()));
        assert_eq!(sample().download_size(), Bytes::kib(60));
    }

    #[test]
    fn what_is_refused() {
        let text = sample().to_string();
        let cases = [
            String::new(),
            text.replace(" 1\n", " 2\n"),
            text.replace("suite trixie\n", ""),
            text.replace("arch x86_64", "arch sparc"),
            text.replace("epoch ", "epoch x"),
            text.replace("package bash", "package -o"),
            text.replace("package bash", "package ../bash"),
            text.replace("package bash", "package zsh"),
            text.replace(" 20480", " many"),
            text.replace("source deb ", "source "),
            text.clone() + "\n",
            text.replace("amd64 ", "amd64  "),
        ];
        let reasons: Vec<String> = cases
            .iter()
            .map(|text| text.parse::<PackageLock>().unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(reasons.join("\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(colima package lock 1\n)?[ -~\n]{0,200}") {
            let _ = text.parse::<PackageLock>();
        }
    }
}
