//! Which QEMU it is.

use std::{fmt, path::Path, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// Version of a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QemuVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl QemuVersion {
    /// The oldest one that machines of this crate run on; their machine type is named after it.
    pub const OLDEST: Self = Self {
        major: 7,
        minor: 2,
        micro: 0,
    };

    /// Asks a program for its version.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] when it cannot be started; [`Error::UnusableQemu`] when it does not answer
    /// within `limit`, answers something else, or is older than [`QemuVersion::OLDEST`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program.
    pub async fn of(program: &Path, limit: Duration) -> Result<Self> {
        let unusable = |reason: String| Error::UnusableQemu {
            program: program.to_owned(),
            reason,
        };
        let output = tokio::process::Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(limit, output)
            .await
            .map_err(|_| unusable(format!("no answer to --version within {limit:?}")))?
            .map_err(|source| Error::Spawn {
                program: program.to_owned(),
                source,
            })?;
        let text = super::console::escape(&output.stdout);
        if !output.status.success() {
            let said = super::console::escape(&output.stderr);
            return Err(unusable(format!("--version: {} {said}", output.status)));
        }
        let version = Self::parse(&text).ok_or_else(|| unusable(format!("it says {text:?}")))?;
        version.check(program)
    }

    /// The number in `QEMU emulator version 10.0.2 (Debian ...)`.
    fn parse(text: &str) -> Option<Self> {
        Self::parse_number(text.split_once("QEMU emulator version ")?.1)
    }

    /// The number that a text begins with.
    pub(super) fn parse_number(number: &str) -> Option<Self> {
        let end = number
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(number.len());
        let mut parts = number[..end].split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
            micro: parts.next().flatten().unwrap_or(0),
        })
    }

    pub(super) fn check(self, program: &Path) -> Result<Self> {
        if self >= Self::OLDEST {
            return Ok(self);
        }
        Err(Error::UnusableQemu {
            program: program.to_owned(),
            reason: format!(
                "it is version {self} and has to be {} at least",
                Self::OLDEST
            ),
        })
    }
}

impl From<(u32, u32, u32)> for QemuVersion {
    fn from((major, minor, micro): (u32, u32, u32)) -> Self {
        Self {
            major,
            minor,
            micro,
        }
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemus_say() {
        for (text, version) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright",
                (10, 0, 2),
            ),
            (
                "QEMU emulator version 7.2.22 (qemu-7.2.22-1.fc38)",
                (7, 2, 22),
            ),
            ("QEMU emulator version 9.1", (9, 1, 0)),
        ] {
            assert_eq!(QemuVersion::parse(text), Some(version.into()), "{text}");
        }
        for text in ["", "QEMU emulator version x", "GNU bash, version 5.2"] {
            assert_eq!(QemuVersion::parse(text), None, "{text}");
        }
    }

    #[test]
    fn old_ones_are_refused() {
        let program = Path::new("/usr/bin/qemu");
        assert!(QemuVersion::from((7, 1, 9)).check(program).is_err());
        assert!(QemuVersion::from((7, 2, 0)).check(program).is_ok());
        assert!(QemuVersion::from((10, 0, 0)).check(program).is_ok());
    }
}
