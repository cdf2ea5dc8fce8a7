//! A host directory in the guest, as the host knows it.

use colima_core::mounts::{GuestMount, MountAccess};
use serde::{Deserialize, Serialize};

use crate::instance::Problem;

/// A directory of the host and where it is in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The directory, absolute and without links.
    pub location: String,
    /// Where the guest has it, and over which port.
    pub guest: GuestMount,
}

impl Share {
    /// Whether this is the same share, over whichever port.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.location == other.location
            && self.guest.path == other.guest.path
            && self.guest.access == other.guest.access
    }

    /// A path of the host as the guest has it; `None` for one that lies elsewhere.
    #[must_use]
    pub fn in_guest(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.location)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.guest.path))
    }
}

/// A share and whether it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountHealth {
    /// What is shared.
    pub share: Share,
    /// What does not work, in one sentence; `None` where everything does.
    pub problem: Option<String>,
}

impl MountHealth {
    /// `mounted` or `broken`.
    #[must_use]
    pub const fn state_word(&self) -> &'static str {
        match self.problem {
            None => "mounted",
            Some(_) => "broken",
        }
    }

    /// In one line: where from, where to, and what is special.
    pub(crate) fn brief(&self) -> String {
        let Share { location, guest } = &self.share;
        let mut text = location.clone();
        if guest.path != *location {
            text.push_str(" as ");
            text.push_str(&guest.path);
        }
        text.push_str(match (guest.access, &self.problem) {
            (MountAccess::ReadOnly, None) => " (read-only)",
            (MountAccess::ReadOnly, Some(_)) => " (read-only, broken)",
            (MountAccess::ReadWrite, None) => "",
            (MountAccess::ReadWrite, Some(_)) => " (broken)",
        });
        text
    }

    /// The problem as one of the profile's, if there is one.
    pub(crate) fn trouble(&self) -> Option<Problem> {
        let problem = self.problem.as_ref()?;
        let what = format!("{} is not shared: {problem}", self.share.location);
        Some(Problem::retried(what))
    }

    /// `writable` or `read-only`.
    #[must_use]
    pub const fn access_word(&self) -> &'static str {
        match self.share.guest.access {
            MountAccess::ReadOnly => "read-only",
            MountAccess::ReadWrite => "writable",
        }
    }
}

/// The guest's path of a directory of the host; of nested shares the innermost has it.
#[must_use]
pub(crate) fn path_in_guest(shares: &[Share], path: &str) -> Option<String> {
    shares
        .iter()
        .filter_map(|share| Some((share.location.len(), share.in_guest(path)?)))
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(location: &str, path: &str) -> Share {
        Share {
            location: location.to_owned(),
            guest: GuestMount {
                port: 1,
                path: path.to_owned(),
                access: MountAccess::ReadOnly,
            },
        }
    }

    #[test]
    fn a_directory_of_the_host_in_the_guest() {
        let shares = [share("/home/ada", "/home/ada"), share("/home/ada/a", "/a")];
        let path = |path| path_in_guest(&shares, path);
        assert_eq!(path("/home/ada").as_deref(), Some("/home/ada"));
        assert_eq!(path("/home/ada/x y").as_deref(), Some("/home/ada/x y"));
        assert_eq!(path("/home/ada/a/b").as_deref(), Some("/a/b"));
        assert_eq!(path("/home/adam"), None);
        assert_eq!(path("/"), None);
    }
}
