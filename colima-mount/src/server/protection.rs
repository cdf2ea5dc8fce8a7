//! Paths of a share that clients may read and not change, and paths that they do not see.
//!
//! What may be done to a path is decided by its components alone ([`Verdict`]): the server follows no
//! links, so that a path is where it says. Two things would get around that and are looked at as well: a
//! directory above a protected path keeps its name, and a file that has a second name is compared with
//! those that are protected.

use std::{
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Share, listing,
    path::{Beneath, join, normalise},
    root,
};
use crate::sftp::{Errno, FileKind, Metadata};

/// Which paths are protected and which are hidden. Clones share what was told.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    rules: Arc<[Rule]>,
    tell: Option<mpsc::UnboundedSender<PathBuf>>,
}

/// Tells of writes that were refused.
#[derive(Debug)]
pub struct Refusals(mpsc::UnboundedReceiver<PathBuf>);

/// A path is none of a share.
#[derive(Debug, thiserror::Error)]
#[error("not a path in a share: {path}")]
pub struct InvalidPath {
    /// The path.
    pub path: PathBuf,
}

#[derive(Debug)]
struct Rule {
    /// Components with `/` between them.
    path: Vec<u8>,
    kind: Kind,
    told: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Protected,
    Hidden,
}

/// What is to be done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It is looked at or read.
    Look,
    /// Content or attributes of what is there are changed.
    Change,
    /// A file in it is given a second name.
    LinkFrom,
    /// A directory is made, where nothing is.
    MakeDirectory,
    /// Something else is made or put there.
    Put,
    /// An empty directory is removed.
    RemoveDirectory,
    /// The name goes, and what is in it with it.
    Take,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// As if it were not there.
    Unseen,
    Refused,
}

/// Where a path is, seen from that of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// It is the path of the rule, or beneath it.
    Within,
    /// The rule's path is beneath it.
    Above,
    /// Neither.
    Apart,
}

fn side(path: &[u8], rule: &[u8]) -> Side {
    let beneath = |deep: &[u8], high: &[u8]| {
        high.is_empty()
            || deep
                .strip_prefix(high)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    if beneath(path, rule) {
        Side::Within
    } else if beneath(rule, path) {
        Side::Above
    } else {
        Side::Apart
    }
}

fn verdict(kind: Kind, side: Side, doing: Doing) -> Verdict {
    use Doing::{Change, LinkFrom, Look, MakeDirectory, Put, RemoveDirectory, Take};

    match (side, doing, kind) {
        (Side::Apart, _, _)
        // What is above stays where it is, and is otherwise a directory like any.
        | (Side::Above, Look | Change | LinkFrom | MakeDirectory | RemoveDirectory, _)
        | (Side::Within, Look, Kind::Protected) => Verdict::Allowed,
        (Side::Within, Look | Change | LinkFrom | RemoveDirectory | Take, Kind::Hidden) => {
            Verdict::Unseen
        }
        (Side::Above, Put | Take, _)
        | (Side::Within, MakeDirectory | Put, Kind::Hidden)
        | (Side::Within, _, Kind::Protected) => Verdict::Refused,
    }
}

impl Protection {
    /// Paths relative to the share: those that are protected, and those that are hidden. What is not there
    /// is protected from being made.
    ///
    /// # Errors
    ///
    /// A path is absolute, empty, or has `..` in it.
    pub fn new<P: AsRef<Path>>(
        protected: impl IntoIterator<Item = P>,
        hidden: impl IntoIterator<Item = P>,
    ) -> Result<(Self, Refusals), InvalidPath> {
        let rule = |path: P, kind| {
            let path = path.as_ref();
            let bytes = path.as_os_str().as_bytes();
            let components = normalise(bytes);
            let climbs = bytes.split(|byte| *byte == b'/').any(|it| it == b"..");
            if path.is_absolute() || climbs || components.is_empty() || bytes.contains(&0) {
                let path = path.to_owned();
                return Err(InvalidPath { path });
            }
            Ok(Rule {
                path: join(&components),
                kind,
                told: AtomicBool::new(false),
            })
        };
        let protected = protected.into_iter().map(|path| (path, Kind::Protected));
        let hidden = hidden.into_iter().map(|path| (path, Kind::Hidden));
        let rules: Result<_, _> = protected
            .chain(hidden)
            .map(|(path, kind)| rule(path, kind))
            .collect();
        let (tell, told) = mpsc::unbounded_channel();
        let protection = Self {
            rules: rules?,
            tell: Some(tell),
        };
        Ok((protection, Refusals(told)))
    }

    /// Whether something may be done to a path.
    ///
    /// # Errors
    ///
    /// It may not, or the path is one that nobody sees.
    pub(super) fn check(&self, path: &Beneath, doing: Doing) -> Result<(), Errno> {
        if self.is_empty() {
            return Ok(());
        }
        let path = if path.is_root() {
            Vec::new()
        } else {
            path.whole()
        };
        self.check_components(&path, doing)
    }

    /// As [`Protection::check`], of normalised components.
    pub(super) fn check_components(&self, path: &[u8], doing: Doing) -> Result<(), Errno> {
        let mut result = Ok(());
        for rule in &*self.rules {
            match verdict(rule.kind, side(path, &rule.path), doing) {
                Verdict::Allowed => {}
                // That it is not there is all that is told, whatever else is refused.
                Verdict::Unseen => return Err(Errno::NotFound),
                Verdict::Refused => {
                    self.refused(rule);
                    result = Err(Errno::AccessDenied);
                }
            }
        }
        result
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn refused(&self, rule: &Rule) {
        if rule.kind == Kind::Protected && !rule.told.swap(true, Ordering::Relaxed) {
            let path = std::ffi::OsString::from_vec(rule.path.clone()).into();
            // Nobody has to listen.
            let _ = self.tell.as_ref().map(|tell| tell.send(path));
        }
    }

    /// The names in a directory that nobody sees.
    pub(super) fn hidden_in(&self, directory: &[u8]) -> Vec<Bytes> {
        let hidden = self.rules.iter().filter(|rule| rule.kind == Kind::Hidden);
        let names = hidden.filter_map(|rule| {
            let cut = rule.path.iter().rposition(|byte| *byte == b'/');
            let (above, name) = match cut {
                Some(cut) => (&rule.path[..cut], &rule.path[cut + 1..]),
                None => (&[][..], &rule.path[..]),
            };
            (above == directory).then(|| Bytes::copy_from_slice(name))
        });
        names.collect()
    }
}

impl Refusals {
    /// The next protected path of which a change was refused, as it was named; each is told once. `None`
    /// when its servers are gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<PathBuf> {
        self.0.recv().await
    }
}

impl Share {
    /// Refuses to change a file that is protected under another of its names.
    pub(super) fn check_names(&self, found: &Metadata) -> Result<(), Errno> {
        if found.links < 2 || found.kind() == FileKind::Directory {
            return Ok(());
        }
        for rule in &*self.protection.rules {
            let Ok(node) = Beneath::new(&rule.path).and_then(|path| self.root.hold(&path)) else {
                continue;
            };
            let protected = node.metadata()?;
            let same = protected.id == found.id
                || protected.kind() == FileKind::Directory
                    && self.has(&node, &protected, found).unwrap_or(true);
            if same {
                self.protection.refused(rule);
                return Err(Errno::AccessDenied);
            }
        }
        Ok(())
    }

    /// Whether a file is in a directory. Directories in it are not looked into.
    fn has(
        &self,
        directory: &root::Node,
        metadata: &Metadata,
        file: &Metadata,
    ) -> Result<bool, Errno> {
        /// A directory with more entries than this counts as having it.
        const ENTRIES: usize = 4096;

        if metadata.id.device != file.id.device {
            return Ok(false);
        }
        let opened = self.root.open_directory(directory, metadata)?;
        listing::has_inode(&opened, file.id.inode, ENTRIES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: [Doing; 7] = [
        Doing::Look,
        Doing::Change,
        Doing::LinkFrom,
        Doing::MakeDirectory,
        Doing::Put,
        Doing::RemoveDirectory,
        Doing::Take,
    ];

    fn protection() -> (Protection, Refusals) {
        Protection::new([".ssh", ".config/autostart"], [".colima"]).unwrap()
    }

    fn path() -> impl Strategy<Value = Vec<&'static str>> {
        let names = [
            ".ssh",
            ".config",
            "autostart",
            ".colima",
            "a",
            ".ss",
            ".sshx",
        ];
        proptest::collection::vec(proptest::sample::select(names.to_vec()), 0..4)
    }

    proptest! {
        /// The rules by components, said once more in other words.
        #[test]
        fn matching_is_by_components(path in path(), doing in proptest::sample::select(EVERY.to_vec())) {
            let within = |rule: &[&str]| path.starts_with(rule);
            let above = |rule: &[&str]| rule.starts_with(&path) && rule.len() > path.len();
            let rules: [&[&str]; 3] = [&[".ssh"], &[".config", "autostart"], &[".colima"]];
            let hidden = within(rules[2]);
            let makes = matches!(doing, Doing::MakeDirectory | Doing::Put);
            let moves = matches!(doing, Doing::Put | Doing::Take);
            let expected = if hidden && !makes {
                Err(Errno::NotFound)
            } else if hidden
                || (within(rules[0]) || within(rules[1])) && doing != Doing::Look
                || rules.iter().any(|rule| above(rule)) && moves
            {
                Err(Errno::AccessDenied)
            } else {
                Ok(())
            };
            let (protection, _refusals) = protection();
            let joined = path.join("/");
            prop_assert_eq!(protection.check_components(joined.as_bytes(), doing), expected);
        }

        /// However a path is spelled, it is the same one.
        #[test]
        fn spelling_changes_nothing(path in path(), doing in proptest::sample::select(EVERY.to_vec())) {
            let (protection, _refusals) = protection();
            let plain = protection.check_components(path.join("/").as_bytes(), doing);
            let odd = format!("/.//{}/x/../.", path.join("/./"));
            let odd = Beneath::new(odd.as_bytes()).unwrap();
            prop_assert_eq!(protection.check(&odd, doing), plain);
        }
    }

    #[test]
    fn a_refusal_is_told_once() {
        let (protection, mut refusals) = protection();
        for _ in 0..3 {
            assert!(
                protection
                    .check_components(b".ssh/authorized_keys", Doing::Change)
                    .is_err()
            );
            assert!(
                protection
                    .check_components(b".colima/x", Doing::Put)
                    .is_err()
            );
        }
        drop(protection);
        let told: Vec<_> = std::iter::from_fn(|| refusals.0.blocking_recv()).collect();
        assert_eq!(told, [PathBuf::from(".ssh")]);
    }

    #[test]
    fn paths_that_are_none_of_a_share_are_refused() {
        for path in ["", "/", "/etc", "..", "a/../b", ".", "a\0b"] {
            assert!(Protection::new([path], []).is_err(), "{path:?}");
        }
    }
}
