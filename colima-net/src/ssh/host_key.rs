//! Which key a server must have, and how keys are named to people.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a public key, as `ssh-keygen -l` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A fingerprint from its bytes.
    #[must_use]
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key that a server must prove to have.
///
/// The text form is a line of `ssh_host_*_key.pub` (`ssh-ed25519 AAAA… comment`), of which only the
/// type and the key count, or a fingerprint (`SHA256:…`). There is no form for "any key": who
/// trusts at first sight fetches the key first, with `ssh-keyscan` for instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    fingerprint: Fingerprint,
    /// The type of the key, where it is known: a server with several keys shows this one.
    algorithm: Option<String>,
}

impl HostKey {
    /// The fingerprint that is compared.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Algorithms in the order in which they are asked for. The others follow the pinned one, so that
    /// a server with a key of another type is a mismatch and not an obscure failure.
    pub(super) fn preferences(&self) -> String {
        const ALL: [&str; 6] = [
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "rsa-sha2-512",
            "rsa-sha2-256",
        ];
        let pinned = |name: &str| match self.algorithm.as_deref() {
            // RFC 8332: keys of type ssh-rsa sign with these.
            Some("ssh-rsa") => name.starts_with("rsa-sha2-"),
            Some(algorithm) => name == algorithm,
            None => false,
        };
        let (first, rest): (Vec<&str>, Vec<&str>) = ALL.into_iter().partition(|name| pinned(name));
        [first, rest].concat().join(",")
    }
}

impl From<Fingerprint> for HostKey {
    fn from(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            algorithm: None,
        }
    }
}

/// Why a text is no host key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host key: write a line of ssh_host_*_key.pub, or SHA256:…")]
pub struct ParseHostKeyError {
    /// The text that was given.
    pub text: String,
}

impl FromStr for HostKey {
    type Err = ParseHostKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.trim().strip_prefix("SHA256:") {
            Some(digest) => decode(digest)
                .and_then(|bytes| bytes.try_into().ok())
                .map(|digest| Fingerprint(digest).into()),
            None => parse_line(text),
        };
        parsed.ok_or_else(|| ParseHostKeyError {
            text: text.to_owned(),
        })
    }
}

/// `TYPE BASE64 [COMMENT]`; the key itself begins with its type again (RFC 4253, 6.6).
fn parse_line(line: &str) -> Option<HostKey> {
    let mut words = line.split_ascii_whitespace();
    let (algorithm, key) = (words.next()?, decode(words.next()?)?);
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?);
    let inner = key.get(4..4 + usize::try_from(length).ok()?)?;
    (inner == algorithm.as_bytes()).then(|| HostKey {
        fingerprint: Fingerprint(Sha256::digest(&key).into()),
        algorithm: Some(algorithm.to_owned()),
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 without padding (RFC 4648, 4).
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for place in 0..=group.len() {
            let index = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

/// Base64 with or without padding; nothing else is let through.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0_u32;
        for place in 0..4 {
            let value = match group.get(place) {
                Some(letter) => ALPHABET.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `ssh-keygen -t ed25519`; the fingerprint is what `ssh-keygen -l` says of it.
    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILp0Un6GaoEP5TzsQH/U4rc4Di247W34Vz4skWjgPTEv a key of a test";
    const PRINT: &str = "SHA256:JySPR47NSDl9Y2exSN08yvqgDFpPTS+6aE/QOp4q5Ts";

    #[test]
    fn a_line_and_its_fingerprint_are_one_key() {
        let key: HostKey = LINE.parse().unwrap();
        assert_eq!(key.fingerprint().to_string(), PRINT);
        let same: HostKey = PRINT.parse().unwrap();
        assert_eq!(same.fingerprint(), key.fingerprint());
        assert!(key.preferences().starts_with("ssh-ed25519,ecdsa"));
        assert_eq!(same.preferences().matches(',').count(), 5);
    }

    #[test]
    fn what_is_no_key() {
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5!!",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA",
            "SHA256:",
            "SHA256:abc",
            "MD5:00:11",
        ] {
            assert!(text.parse::<HostKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn base64_of_every_length_comes_back() {
        // RFC 4648, 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
    }
}
