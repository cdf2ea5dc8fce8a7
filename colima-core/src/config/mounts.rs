//! Which directories of the host are shared.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};

/// Which directories of the host are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mounts {
    /// What Colima shares where nothing is listed: the home directory and `/tmp/INSTANCE`, both writable.
    #[default]
    Usual,
    /// None.
    None,
    /// These.
    These(Vec<MountEntry>),
}

/// One directory, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Directory of the host; it may begin with `~`.
    pub location: String,
    /// Where it is in the guest; `None` for the same path.
    pub mount_point: Option<String>,
    /// Whether the guest may change it.
    pub writable: bool,
}

impl Mounts {
    /// As it could stand in the file.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Usual => json!([]),
            Self::None => Value::Null,
            Self::These(entries) => entries.iter().map(MountEntry::to_json).collect(),
        }
    }
}

impl MountEntry {
    fn to_json(&self) -> Value {
        let mut entry = json!({ "location": self.location });
        if let Some(mount_point) = &self.mount_point {
            entry["mountPoint"] = json!(mount_point);
        }
        entry["writable"] = json!(self.writable);
        entry
    }
}

/// A flow of YAML, which JSON is.
impl fmt::Display for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_json())
    }
}

/// A text that says no directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write PATH[:MOUNT][:w]; a path with a colon in it goes into colima.yaml")]
pub struct ParseMountError;

impl FromStr for MountEntry {
    type Err = ParseMountError;

    /// Colima's `PATH[:MOUNT][:w]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (paths, writable) = match text.rsplit_once(':') {
            Some((paths, "w" | "rw")) => (paths, true),
            Some((paths, "r" | "ro")) => (paths, false),
            _ => (text, false),
        };
        let (location, mount_point) = match paths.split_once(':') {
            Some((location, mount_point)) => (location, Some(mount_point)),
            None => (paths, None),
        };
        let is_path = |path: &str| path.starts_with('/') && !path.contains(':');
        if location.is_empty() || mount_point.is_some_and(|path| !is_path(path)) {
            return Err(ParseMountError);
        }
        Ok(Self {
            location: location.to_owned(),
            mount_point: mount_point.map(str::to_owned),
            writable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colimas_spelling() {
        let read = |text: &str| {
            let entry: MountEntry = text.parse().unwrap();
            (entry.location, entry.mount_point, entry.writable)
        };
        let own = str::to_owned;
        assert_eq!(read("/a b"), (own("/a b"), None, false));
        assert_eq!(read("~/src:w"), (own("~/src"), None, true));
        assert_eq!(read("/a:/b"), (own("/a"), Some(own("/b")), false));
        assert_eq!(read("/a:/b:w"), (own("/a"), Some(own("/b")), true));
        assert_eq!(read("src:ro"), (own("src"), None, false));
        for text in ["", ":w", "/a:b", "/a:/b:x", "/a::w", "/a:/b:/c"] {
            assert_eq!(text.parse::<MountEntry>(), Err(ParseMountError), "{text}");
        }
    }
}
