//! SHA-256 digests of files, packages and recipes.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of everything `reader` yields, and how many bytes that was; `each` sees every
    /// chunk as it passes.
    ///
    /// # Errors
    ///
    /// Those of `reader` and `each`.
    pub fn of_stream(
        reader: &mut impl Read,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<(Self, u64)> {
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let chunk = match reader.read(&mut buffer) {
                Ok(0) => return Ok((Self(hash.finalize().into()), size)),
                Ok(n) => &buffer[..n],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hash.update(chunk);
            each(chunk)?;
            size += chunk.len() as u64;
        }
    }

    /// The digest and size of a file.
    ///
    /// # Errors
    ///
    /// Those of opening and reading it.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        Self::of_stream(&mut File::open(path)?, |_| Ok(()))
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, enough to tell images apart in names.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// A version 8 UUID (RFC 9562: custom contents) made of the first 16 bytes.
    #[must_use]
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A text that is not a SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SHA-256 digest: 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// The text that was given.
    pub text: String,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseDigestError {
            text: text.chars().take(80).collect(),
        };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(fail()),
        };
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(fail());
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The empty message: FIPS 180-4 test vector.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        assert_eq!(Digest::of("").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of("")));
        for wrong in ["", &EMPTY[1..], &EMPTY.to_uppercase(), &"é".repeat(32)] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn uuids_have_version_and_variant() {
        assert_eq!(
            Digest::of("").uuid(),
            "e3b0c442-98fc-8c14-9afb-f4c8996fb924"
        );
    }
}
