//! What the shares of a profile have in common, and what a worker is told with it.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use colima_core::{boot::User, mounts::MountAccess};
use sha2::{Digest as _, Sha256};

use super::{
    Share,
    handover::Terms,
    protect::{self, ProtectSettings},
    walls::Confine,
};
use crate::state_dir::ProfilePaths;

/// What the shares of a profile have in common.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    user: User,
    protect: ProtectSettings,
    /// Below it is everything of ours.
    state: PathBuf,
    /// A directory per share.
    records: PathBuf,
}

impl Ground {
    /// For the machine of a profile and its user.
    pub(crate) fn new(paths: &ProfilePaths, user: &User, protect: &ProtectSettings) -> Self {
        Self {
            user: user.clone(),
            protect: protect.clone(),
            state: paths.dir.parent().unwrap_or(&paths.dir).to_owned(),
            records: paths.records_dir.clone(),
        }
    }

    /// What a worker of a share has to keep to.
    pub(super) fn terms(&self, share: &Share, confine: Confine) -> Terms {
        let location = Path::new(&share.location);
        Terms {
            location: share.location.clone(),
            access: share.guest.access,
            user: self.user.uid,
            group: self.user.gid,
            guarding: protect::guarding(location, &self.protect, &self.state, &resolve),
            confine,
        }
    }

    /// The directory of a share's records, made if it is not there. What cannot be written needs none.
    pub(super) fn records(&self, share: &Share) -> io::Result<Option<OwnedFd>> {
        if share.guest.access == MountAccess::ReadOnly {
            return Ok(None);
        }
        let path = self.records.join(name(share));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&path)?;
        Ok(Some(fs::File::open(&path)?.into()))
    }
}

/// The name of a share's records: the same one whatever its port is.
fn name(share: &Share) -> String {
    let digest = Sha256::digest(format!("{}\0{}", share.location, share.guest.path));
    let mut name = String::new();
    for byte in &digest[..16] {
        // A string takes everything.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// A path without links, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let mut missing: Vec<OsString> = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize() {
            return missing
                .iter()
                .rev()
                .fold(found, |path, name| path.join(name));
        }
        missing.extend(ancestor.file_name().map(ToOwned::to_owned));
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use colima_core::mounts::GuestMount;

    use super::*;

    #[test]
    fn records_are_of_a_share_and_not_of_a_port() {
        let share = |location: &str, path: &str, port| Share {
            location: location.to_owned(),
            guest: GuestMount {
                port,
                path: path.to_owned(),
                access: MountAccess::ReadWrite,
            },
        };
        let one = name(&share("/a", "/b", 1));
        assert_eq!(one.len(), 32);
        assert_eq!(one, name(&share("/a", "/b", 2)));
        assert_ne!(one, name(&share("/a", "/c", 1)));
        assert_ne!(one, name(&share("/b", "/b", 1)));
    }

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().canonicalize().unwrap();
        fs::create_dir(real.join("there")).unwrap();
        std::os::unix::fs::symlink("there", real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link")), real.join("there"));
        assert_eq!(resolve(&real.join("link/a/b")), real.join("there/a/b"));
        assert_eq!(resolve(&real.join("no/b")), real.join("no/b"));
    }
}
