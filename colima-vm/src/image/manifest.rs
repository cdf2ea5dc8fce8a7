//! What an image bundle says about itself.

use std::{fmt, str::FromStr};

use colima_core::{Arch, Bytes};
use serde::{Deserialize, Serialize};

use super::Digest;

/// `manifest.json` of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this document, [`Manifest::VERSION`].
    pub version: u32,
    /// The image's name in its store.
    pub id: ImageId,
    /// Architecture of everything inside.
    pub arch: Arch,
    /// Version of the agent protocol that the image was built for.
    pub agent_protocol: u32,
    /// Release of the kernel, as `uname -r` prints it.
    pub kernel_release: String,
    /// Digest of the package lock it was built from.
    pub package_lock: Digest,
    /// The lock's time, seconds since the Unix epoch.
    pub built: u64,
    /// The kernel, as QEMU's `-kernel` takes it.
    pub kernel: FileRecord,
    /// The initramfs with the modules that the boot needs, and nothing else.
    pub initrd: FileRecord,
    /// The root file system's disk, qcow2, never written to.
    pub root_disk: FileRecord,
}

impl Manifest {
    /// The version this program writes, and the only one it reads.
    pub const VERSION: u32 = 1;

    /// Every file of the bundle besides the manifest.
    #[must_use]
    pub const fn files(&self) -> [&FileRecord; 3] {
        [&self.kernel, &self.initrd, &self.root_disk]
    }

    /// Reads a manifest's text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it; unknown fields and other versions are wrong.
    pub fn parse(text: &[u8]) -> Result<Self, ParseManifestError> {
        /// Only the version, so that a newer document is named as such.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } =
            serde_json::from_slice(text).map_err(ParseManifestError::Json)?;
        if version != Self::VERSION {
            return Err(ParseManifestError::Version { version });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(ParseManifestError::Json)?;
        let mut names: Vec<&str> = manifest.files().map(|file| file.name.as_str()).to_vec();
        if let Some(name) = names.iter().find(|name| !is_plain_name(name)) {
            return Err(ParseManifestError::FileName {
                name: (*name).to_owned(),
            });
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ParseManifestError::FileName {
                name: pair[0].to_owned(),
            });
        }
        Ok(manifest)
    }

    /// The text of the manifest, the same for equal manifests.
    ///
    /// # Panics
    ///
    /// Never: a manifest always has a JSON text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("numbers, strings and structs always have a JSON text");
        text.push('\n');
        text
    }
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name beside the manifest.
    pub name: String,
    /// Its size in bytes.
    pub size: Bytes,
    /// Its digest.
    pub sha256: Digest,
}

/// Why a text is not a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseManifestError {
    /// It is not the JSON that it should be.
    #[error("the manifest is malformed")]
    Json(#[source] serde_json::Error),
    /// It belongs to another version of this program.
    #[error(
        "the manifest has version {version}, this program reads {}",
        Manifest::VERSION
    )]
    Version {
        /// The version it has.
        version: u32,
    },
    /// A file's name is used twice or leads out of the bundle.
    #[error("the manifest lists a file {name:?}, which no image has")]
    FileName {
        /// The name.
        name: String,
    },
}

fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name != super::store::MANIFEST
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
}

/// The name of an image within its architecture: 1 to 64 of `a-z 0-9 . -`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot name an image: it takes 1 to 64 of a-z 0-9 . - and starts with a letter or digit"
)]
pub struct ParseImageIdError {
    /// The text that was given.
    pub text: String,
}

impl FromStr for ImageId {
    type Err = ParseImageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid = (1..=64).contains(&text.len())
            && text.starts_with(edge)
            && text.chars().all(|c| edge(c) || matches!(c, '.' | '-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseImageIdError {
                text: text.to_owned(),
            })
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = ParseImageIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let file = |name: &str| FileRecord {
            name: name.to_owned(),
            size: Bytes::kib(4),
            sha256: Digest::of(name),
        };
        Manifest {
            version: Manifest::VERSION,
            id: "trixie-0123456789ab".parse().unwrap(),
            arch: Arch::X86_64,
            agent_protocol: 1,
            kernel_release: "6.12.1-cloud-amd64".to_owned(),
            package_lock: Digest::of("lock"),
            built: 1_760_000_000,
            kernel: file("kernel"),
            initrd: file("initrd.img"),
            root_disk: file("root.qcow2"),
        }
    }

    #[test]
    fn its_text() {
        insta::assert_snapshot!(sample().to_text());
        assert_eq!(
            Manifest::parse(sample().to_text().as_bytes()).unwrap(),
            sample()
        );
    }

    #[test]
    fn what_is_refused() {
        let text = sample().to_text();
        for wrong in [
            String::new(),
            text.replace("\"version\": 1", "\"version\": 2"),
            text.replace("\"version\": 1", "\"version\": 1, \"extra\": 1"),
            text.replace("\"initrd.img\"", "\"../initrd.img\""),
            text.replace("\"initrd.img\"", "\"kernel\""),
            text.replace("\"initrd.img\"", "\"manifest.json\""),
            text.replace("trixie-", "../"),
        ] {
            assert!(Manifest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
