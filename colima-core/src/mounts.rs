//! Host directories in a guest, as host and guest speak of them.
//!
//! Each has a stream port of the machine to itself, so that a bulk copy delays nothing else. The host serves
//! [`SERVICE`] of the multiplexer on that port; the guest mounts what comes.

use serde::{Deserialize, Serialize};

/// The endpoint name of a mount's client, on the mount's own port.
pub const SERVICE: &str = "mount";

/// The most mounts at once: a machine has sixteen stream ports, and the first is the agent's.
pub const MOST_MOUNTS: usize = 15;

/// A directory of the host in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestMount {
    /// Number of the stream port, from 1.
    pub port: u8,
    /// Where it is in the guest: absolute, without `.`, `..` and empty components.
    pub path: String,
    /// Whether the guest may change it. The host's server decides; this is for whoever looks.
    pub access: MountAccess,
}

/// Whether the guest may change what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountAccess {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

/// What became of a mount in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// What was asked for.
    pub mount: GuestMount,
    /// Why it does not work, in one sentence; `None` where it is mounted.
    pub problem: Option<String>,
}

impl GuestMount {
    /// Whether a guest can mount this at all.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (1..=MOST_MOUNTS).contains(&usize::from(self.port))
            && self.path.len() > 1
            && self.path.len() < 4096
            && self.path.starts_with('/')
            && !self.path.contains('\0')
            && self
                .path
                .split('/')
                .skip(1)
                .all(|component| !matches!(component, "" | "." | ".."))
    }

    /// Whether this lies in what `other` mounts.
    #[must_use]
    pub fn is_inside(&self, other: &Self) -> bool {
        self.path
            .strip_prefix(&other.path)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Name of the virtio-serial port with this number, as the guest finds it.
#[must_use]
pub fn port_name(port: u8) -> String {
    format!("colima.{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(port: u8, path: &str) -> GuestMount {
        GuestMount {
            port,
            path: path.to_owned(),
            access: MountAccess::ReadOnly,
        }
    }

    #[test]
    fn what_a_guest_can_mount() {
        for path in ["/a", "/home/ada/a b\n\"%$'", "/...", "/a/.b"] {
            assert!(mount(1, path).is_valid(), "{path:?}");
        }
        for path in ["", "/", "a", "/a/", "//a", "/a/../b", "/./a", "/a\0"] {
            assert!(!mount(1, path).is_valid(), "{path:?}");
        }
        assert!(!mount(0, "/a").is_valid());
        assert!(mount(15, "/a").is_valid());
        assert!(!mount(16, "/a").is_valid());
        assert_eq!(port_name(0), crate::boot::MUX_PORT_NAME);
    }

    #[test]
    fn inside_is_by_component() {
        assert!(mount(1, "/a/b").is_inside(&mount(2, "/a")));
        assert!(!mount(1, "/ab").is_inside(&mount(2, "/a")));
        assert!(!mount(1, "/a").is_inside(&mount(2, "/a")));
    }
}
