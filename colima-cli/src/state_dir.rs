//! Where everything is kept: every path of every profile, from one root.
//!
//! ```text
//! <root>/_version                  version of this layout
//!        _ssh/                     keys of the host's user for the guests, and the guests' own
//!        _disks/<instance>/        data.qcow2, which survives `delete`
//!        _templates/default.yaml   what new profiles begin with; Colima's file
//!        ssh_config                what ~/.ssh/config includes, if a profile wants that
//!        <profile>/colima.yaml     what the profile wants; Colima's file
//!                  docker.sock     Colima's path
//!                  ...             everything else of ours
//! ```
//!
//! Directories of ours are 0700 and files 0600. A directory that belongs to somebody else, or that others
//! may write to, is refused: whoever can write there can run programs as the user.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use colima_core::ProfileName;

/// Version of the layout that this program writes.
pub const LAYOUT_VERSION: u32 = 1;

const VERSION_FILE: &str = "_version";

/// `sun_path` of unix(7) has 108 bytes with its terminator, 104 on macOS.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// Directories that belong to the user alone.
const OWNER_ONLY: u32 = 0o700;

/// The directory of all profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

/// Why a directory cannot hold our state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// A directory could not be made or looked at.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else stands in the place of a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("{} belongs to user {owner}, not to user {user}", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// The number of the user who runs the program.
        user: u32,
    },
    /// Others may write to the directory, and it could not be forbidden.
    #[error("others can write to {} (mode {mode:o})", path.display())]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory lies so deep that its sockets have longer names than a client can use.
    #[error(
        "{} is too long for a socket: {} bytes, at most {LONGEST_SOCKET_PATH}",
        path.display(),
        path.as_os_str().len()
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The layout was written by a newer program.
    #[error(
        "{} was written by a newer colima (layout {found}, this program knows {LAYOUT_VERSION})",
        path.display()
    )]
    Newer {
        /// The root.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The version cannot be read or written.
    #[error("cannot use the layout version {}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// The state below `root`, an absolute path. Nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the root, checks that it belongs to the user alone, and that its layout is not newer than
    /// this program.
    ///
    /// # Errors
    ///
    /// See [`StateDirError`].
    pub fn prepare(&self) -> Result<(), StateDirError> {
        private_dir(&self.root)?;
        if self.check_version()? == Layout::Unversioned {
            let path = self.root.join(VERSION_FILE);
            write_private(&path, format!("{LAYOUT_VERSION}\n").as_bytes())
                .map_err(|source| StateDirError::Version { path, source })?;
        }
        Ok(())
    }

    /// As [`Self::prepare`], without making or changing anything; what is not there yet is well.
    ///
    /// # Errors
    ///
    /// See [`StateDirError`].
    pub fn look(&self) -> Result<(), StateDirError> {
        look_at(&self.root)?;
        self.check_version().map(drop)
    }

    /// Checks that the layout is not newer than this program; for commands that only look.
    ///
    /// # Errors
    ///
    /// [`StateDirError::Newer`] or [`StateDirError::Version`].
    pub fn check_version(&self) -> Result<Layout, StateDirError> {
        let path = self.root.join(VERSION_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Layout::Unversioned);
            }
            Err(source) => return Err(StateDirError::Version { path, source }),
        };
        match text.trim().parse() {
            Ok(found) if found > LAYOUT_VERSION => Err(StateDirError::Newer {
                path: self.root.clone(),
                found,
            }),
            Ok(_) => Ok(Layout::Known),
            Err(error) => Err(StateDirError::Version {
                path,
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            }),
        }
    }

    /// The `colima.yaml` that new profiles begin with; where there is none, the built-in one is.
    #[must_use]
    pub fn template(&self) -> PathBuf {
        self.root.join("_templates").join("default.yaml")
    }

    /// What `~/.ssh/config` includes: the profiles that want to be named there.
    #[must_use]
    pub fn ssh_include(&self) -> PathBuf {
        self.root.join("ssh_config")
    }

    /// The paths of a profile.
    #[must_use]
    pub fn profile(&self, name: &ProfileName) -> ProfilePaths {
        ProfilePaths::new(&self.root, name)
    }

    /// The profiles that have a directory with a record, a configuration or a lock, in order. A missing
    /// root has none.
    ///
    /// # Errors
    ///
    /// The root cannot be read.
    pub fn profiles(&self) -> Result<Vec<ProfileName>, StateDirError> {
        let failed = |source| StateDirError::Directory {
            path: self.root.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // Names that begin with `_` are ours, and no profile's.
            let name: Option<ProfileName> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(name) = name
                && entry.file_name() == name.as_str()
                && self.profile(&name).exists()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a root carries a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// It does, one that this program knows.
    Known,
    /// It does not: new, or another program's.
    Unversioned,
}

/// The paths of one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfilePaths {
    /// The profile's own directory.
    pub dir: PathBuf,
    /// What the profile wants.
    pub config_file: PathBuf,
    /// What runs: versioned JSON, never believed without the lock.
    pub record: PathBuf,
    /// Held by the profile's daemon as long as it lives.
    pub daemon_lock: PathBuf,
    /// Held by a command that starts the profile's daemon, or deletes the profile.
    pub command_lock: PathBuf,
    /// Where the daemon serves commands.
    pub control_socket: PathBuf,
    /// Where the docker CLI connects.
    pub docker_socket: PathBuf,
    /// Where containerd's clients connect.
    pub containerd_socket: PathBuf,
    /// Relay to the guest's ssh server.
    pub ssh_socket: PathBuf,
    /// Configuration for `ssh -F`.
    pub ssh_config: PathBuf,
    /// Known host keys for that configuration.
    pub ssh_known_hosts: PathBuf,
    /// The docker context that was current before this profile's.
    pub previous_context: PathBuf,
    /// The daemon's log.
    pub daemon_log: PathBuf,
    /// Owners and special nodes of shared directories that files cannot carry; a directory per share.
    pub records_dir: PathBuf,
    /// For colima-vm: sockets, per-boot files.
    pub machine_dir: PathBuf,
    /// Overlay over the image's system.
    pub root_disk: PathBuf,
    /// The directory that survives `delete`.
    pub data_dir: PathBuf,
    /// Images, containers, volumes.
    pub data_disk: PathBuf,
    /// Keys shared by all profiles.
    pub ssh_dir: PathBuf,
    /// The key that logs in to the guest; `.pub` beside it.
    pub ssh_user_key: PathBuf,
    /// The guest's host key; `.pub` beside it.
    pub ssh_host_key: PathBuf,
}

impl ProfilePaths {
    fn new(root: &Path, name: &ProfileName) -> Self {
        let dir = root.join(name.as_str());
        let data_dir = root.join("_disks").join(name.instance());
        let ssh_dir = root.join("_ssh");
        Self {
            config_file: dir.join("colima.yaml"),
            record: dir.join("instance.json"),
            daemon_lock: dir.join("daemon.lock"),
            command_lock: root.join("_locks").join(format!("{name}.lock")),
            control_socket: dir.join("daemon.sock"),
            docker_socket: dir.join("docker.sock"),
            containerd_socket: dir.join("containerd.sock"),
            ssh_socket: dir.join("ssh.sock"),
            ssh_config: dir.join("ssh_config"),
            ssh_known_hosts: dir.join("ssh_known_hosts"),
            previous_context: dir.join("docker_context.json"),
            daemon_log: dir.join("daemon.log"),
            records_dir: dir.join("records"),
            machine_dir: dir.join("machine"),
            root_disk: dir.join("root.qcow2"),
            data_disk: data_dir.join("data.qcow2"),
            data_dir,
            ssh_user_key: ssh_dir.join("id_ed25519"),
            ssh_host_key: ssh_dir.join(format!("{}_host_ed25519", name.instance())),
            ssh_dir,
            dir,
        }
    }

    /// Makes the profile's directories and checks that they belong to the user alone.
    ///
    /// # Errors
    ///
    /// See [`StateDirError`].
    pub fn prepare(&self) -> Result<(), StateDirError> {
        self.check_length()?;
        let locks = self.command_lock.parent().unwrap_or(&self.dir);
        for dir in [
            &self.dir,
            &self.machine_dir,
            &self.data_dir,
            &self.ssh_dir,
            locks,
        ] {
            private_dir(dir)?;
        }
        Ok(())
    }

    /// As [`Self::prepare`], without making or changing anything; what is not there yet is well.
    ///
    /// # Errors
    ///
    /// See [`StateDirError`].
    pub fn look(&self) -> Result<(), StateDirError> {
        self.check_length()?;
        look_at(&self.dir)
    }

    /// Clients cannot connect to a socket whose path is too long, docker's own among them.
    fn check_length(&self) -> Result<(), StateDirError> {
        let longest = &self.docker_socket;
        if longest.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(StateDirError::TooLong {
                path: longest.clone(),
            });
        }
        Ok(())
    }

    /// Whether there is such a profile: it has a configuration, a record or a system disk.
    #[must_use]
    pub fn exists(&self) -> bool {
        [&self.config_file, &self.record, &self.root_disk]
            .iter()
            .any(|path| path.symlink_metadata().is_ok())
    }
}

/// Makes `path` with its parents, 0700 each, or checks that it is the user's alone.
///
/// A directory of the user that others may read (Colima made them 0755) becomes 0700.
///
/// # Errors
///
/// See [`StateDirError`].
pub fn private_dir(path: &Path) -> Result<(), StateDirError> {
    let failed = |source| StateDirError::Directory {
        path: path.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY)
        .create(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StateDirError::NotADirectory {
                path: path.to_owned(),
            },
            _ => failed(error),
        })?;
    let metadata = fs::metadata(path).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(StateDirError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    // Shared on purpose, as /tmp is: closing it would take it away from everybody else.
    if metadata.mode() & 0o1000 != 0 {
        return Err(StateDirError::WritableByOthers {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
        // Some file systems (vfat, some network shares) accept the change and ignore it.
        let mode = fs::metadata(path).map_err(failed)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateDirError::WritableByOthers {
                path: path.to_owned(),
                mode,
            });
        }
    }
    Ok(())
}

/// Checks that a directory is the user's, if it is there.
fn look_at(path: &Path) -> Result<(), StateDirError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(StateDirError::Directory {
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.is_dir() {
        return Err(StateDirError::NotADirectory {
            path: path.to_owned(),
        });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(StateDirError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    Ok(())
}

/// Replaces `path` with `bytes`, 0600, so that after a crash there is the old file or the new one.
///
/// # Errors
///
/// What the system says; the old file is still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file(path, bytes, 0o600)
}

/// As [`write_private`], with other permission bits.
///
/// # Errors
///
/// As [`write_private`].
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The number of the process makes it the only writer; what a killed one left is written over.
    let draft = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        // The draft may not exist; the first error is the one that counts.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_belong_to_the_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let state = StateDir::new(home.path().join("a/b"));
        state.prepare().unwrap();
        let paths = state.profile(&"work".parse().unwrap());
        paths.prepare().unwrap();
        for dir in [state.root(), &paths.dir, &paths.data_dir, &paths.ssh_dir] {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o7777, 0o700, "{dir:?}");
        }
        fs::set_permissions(&paths.dir, fs::Permissions::from_mode(0o777)).unwrap();
        paths.prepare().unwrap();
        assert_eq!(fs::metadata(&paths.dir).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            paths.data_disk,
            home.path().join("a/b/_disks/colima-work/data.qcow2")
        );
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let state = StateDir::new(home.path());
        assert_eq!(state.check_version().unwrap(), Layout::Unversioned);
        state.prepare().unwrap();
        assert_eq!(state.check_version().unwrap(), Layout::Known);
        fs::write(home.path().join(VERSION_FILE), "2\n").unwrap();
        assert!(matches!(
            state.prepare(),
            Err(StateDirError::Newer { found: 2, .. })
        ));
        fs::write(home.path().join(VERSION_FILE), "two").unwrap();
        assert!(matches!(
            state.check_version(),
            Err(StateDirError::Version { .. })
        ));
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("x"), "").unwrap();
        let error = private_dir(&home.path().join("x")).unwrap_err();
        assert!(
            matches!(error, StateDirError::NotADirectory { .. }),
            "{error}"
        );
    }

    #[test]
    fn profiles_are_those_with_something_in_them() {
        let home = tempfile::tempdir().unwrap();
        let state = StateDir::new(home.path());
        assert!(state.profiles().unwrap().is_empty());
        for name in ["work", "default", "_disks", "empty", "colima-odd"] {
            fs::create_dir(home.path().join(name)).unwrap();
            if name != "empty" {
                fs::write(home.path().join(name).join("colima.yaml"), "").unwrap();
            }
        }
        let names: Vec<String> = state
            .profiles()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["default", "work"]);
    }

    #[test]
    fn files_are_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("record");
        fs::write(&path, "old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
