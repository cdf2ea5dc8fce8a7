//! Which walls stand around a worker, as it tells its daemon.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a worker is to confine itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Confine {
    /// As far as the host lets it.
    Try,
    /// One before it failed half-way.
    Leave,
}

/// What keeps a worker from the rest of the host, besides its own care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walls {
    pub(super) files: FileWall,
    pub(super) calls: CallWall,
}

/// From other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileWall {
    /// There are none.
    Namespace,
    /// Landlock, which leaves attributes.
    Landlock,
    /// The host has neither.
    Nothing,
}

/// From system calls that it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallWall {
    /// A filter.
    Filter,
    /// The host has none.
    Nothing,
}

impl Walls {
    pub(super) const NONE: Self = Self {
        files: FileWall::Nothing,
        calls: CallWall::Nothing,
    };

    const EVERY: [(u8, Self); 6] = {
        use CallWall::Filter;
        use FileWall::{Landlock, Namespace};

        const fn walls(files: FileWall, calls: CallWall) -> Walls {
            Walls { files, calls }
        }
        [
            (b'N', walls(Namespace, Filter)),
            (b'n', walls(Namespace, CallWall::Nothing)),
            (b'L', walls(Landlock, Filter)),
            (b'l', walls(Landlock, CallWall::Nothing)),
            (b'F', walls(FileWall::Nothing, Filter)),
            (b'f', Self::NONE),
        ]
    };

    /// In a byte; none that means something else.
    pub(super) fn byte(self) -> u8 {
        let found = Self::EVERY.iter().find(|(_, walls)| *walls == self);
        found.map_or(b'f', |(byte, _)| *byte)
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        let found = Self::EVERY.iter().find(|(known, _)| *known == byte);
        found.map(|(_, walls)| *walls)
    }
}

#[cfg(target_os = "linux")]
impl From<colima_mount::server::confine::Walls> for Walls {
    fn from(walls: colima_mount::server::confine::Walls) -> Self {
        use colima_mount::server::confine;

        Self {
            files: match walls.files {
                confine::FileWall::Namespace => FileWall::Namespace,
                confine::FileWall::Landlock { .. } => FileWall::Landlock,
                _ => FileWall::Nothing,
            },
            calls: match walls.calls {
                confine::CallWall::Filter => CallWall::Filter,
                confine::CallWall::Nothing => CallWall::Nothing,
            },
        }
    }
}

/// A sentence for the log.
impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.files {
            FileWall::Namespace => "its worker sees no other files",
            FileWall::Landlock => {
                "its worker cannot open other files (by Landlock: this host has no namespaces for it)"
            }
            FileWall::Nothing => {
                "nothing but its own care keeps its worker from other files: this host has neither namespaces nor Landlock for it"
            }
        })?;
        f.write_str(match self.calls {
            CallWall::Filter => ", and may make few system calls",
            CallWall::Nothing => "; its system calls are not filtered here",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_says_which_walls_stand() {
        for (byte, walls) in Walls::EVERY {
            assert_eq!(walls.byte(), byte);
            assert_eq!(Walls::of(byte), Some(walls));
        }
        for other in [
            super::super::worker::CONNECTED,
            super::super::worker::ALONE,
            super::super::worker::HALF_CONFINED,
        ] {
            assert_eq!(Walls::of(other), None);
        }
        assert!(Walls::NONE.to_string().contains("neither namespaces"));
    }
}
