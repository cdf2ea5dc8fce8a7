//! The line in `~/.ssh/config` that makes `ssh colima` work, for profiles that ask for it.
//!
//! ```text
//! ~/.ssh/config       Include "<root>/ssh_config"             one line, the first of the file
//! <root>/ssh_config   Include "<root>/<profile>/ssh_config"   one line per profile that asks
//! ```
//!
//! The first file is the user's: one line is put in front of it and exactly that line is taken out when no
//! profile asks any more. The second is ours.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use crate::state_dir::{replace_file, write_private};

/// Why the line could not be put in or taken out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshIncludeError {
    /// A file could not be read, written or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, `lock`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// ssh's configuration cannot carry the path, or would take it for a pattern.
    #[error("ssh cannot be given a path such as {path:?}")]
    Path {
        /// The path.
        path: PathBuf,
    },
}

/// The two files.
#[derive(Clone, Debug)]
pub struct SshInclude {
    /// The user's `~/.ssh/config`.
    pub user_config: PathBuf,
    /// Ours, which it includes.
    pub included: PathBuf,
}

impl SshInclude {
    /// Makes `ssh` read `profile_config`. May be repeated; what is there already is not written again.
    ///
    /// # Errors
    ///
    /// See [`SshIncludeError`].
    pub fn add(&self, profile_config: &Path) -> Result<(), SshIncludeError> {
        let (ours, line) = (include_line(profile_config)?, include_line(&self.included)?);
        let _lock = self.lock()?;
        let old = read(&self.included)?.unwrap_or_default();
        let new = with_line(&old, &ours);
        if new != old {
            write_private(&self.included, new.as_bytes()).map_err(file("write", &self.included))?;
        }
        let old = read(&self.user_config)?.unwrap_or_default();
        let new = with_line(&old, &line);
        if new != old {
            self.write_user_config(&new)?;
        }
        Ok(())
    }

    /// Takes it back. The last profile takes the line in the user's file with it. May be repeated.
    ///
    /// # Errors
    ///
    /// See [`SshIncludeError`].
    pub fn remove(&self, profile_config: &Path) -> Result<(), SshIncludeError> {
        // A path that could not be added is not there.
        let (Ok(ours), Ok(line)) = (include_line(profile_config), include_line(&self.included))
        else {
            return Ok(());
        };
        if !self.included.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let old = read(&self.included)?.unwrap_or_default();
        let new = without_line(&old, &ours);
        if !new.trim().is_empty() {
            if new != old {
                write_private(&self.included, new.as_bytes())
                    .map_err(file("write", &self.included))?;
            }
            return Ok(());
        }
        // First the line, so that there is never one that includes nothing of ours.
        if let Some(old) = read(&self.user_config)? {
            let new = without_line(&old, &line);
            // Where there was no file, there is none again. An empty one says the same.
            let is_link = self.user_config.is_symlink();
            if new.is_empty() && !old.is_empty() && !is_link {
                fs::remove_file(&self.user_config).map_err(file("remove", &self.user_config))?;
            } else if new != old {
                self.write_user_config(&new)?;
            }
        }
        match fs::remove_file(&self.included) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &self.included)(error))
            }
            _ => Ok(()),
        }
    }

    fn write_user_config(&self, text: &str) -> Result<(), SshIncludeError> {
        let path = &self.user_config;
        if let Some(directory) = path.parent() {
            // ssh(1): ~/.ssh is the user's alone.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(file("write", directory))?;
        }
        // Who keeps the file elsewhere behind a link keeps the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let mode = fs::metadata(&target).map_or(0o600, |file| file.permissions().mode() & 0o777);
        replace_file(&target, text.as_bytes(), mode).map_err(file("write", path))
    }

    /// Keeps other profiles' commands out while the files are read and written.
    fn lock(&self) -> Result<File, SshIncludeError> {
        let directory = self.included.parent().unwrap_or(Path::new("/"));
        let failed = file("lock", directory);
        let opened = File::open(directory).map_err(&failed)?;
        opened.lock().map_err(failed)?;
        Ok(opened)
    }
}

fn read(path: &Path) -> Result<Option<String>, SshIncludeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file("read", path)(source)),
    }
}

fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SshIncludeError {
    let path = path.to_owned();
    move |source| SshIncludeError::File {
        action,
        path: path.clone(),
        source,
    }
}

/// ssh_config(5): an argument with spaces is quoted, there is no way to quote a quote, and glob(7)
/// characters are a pattern.
fn include_line(path: &Path) -> Result<String, SshIncludeError> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).unwrap_or("\"");
    if text.contains(['"', '\n', '\r', '\0', '*', '?', '[', ']', '\\', '%', '$']) {
        return Err(SshIncludeError::Path {
            path: path.to_owned(),
        });
    }
    Ok(format!("Include \"{text}\""))
}

/// `text` that begins with the line, unless it stands already before the first `Host` or `Match`: below
/// one of those it would count for some hosts only.
fn with_line(text: &str, line: &str) -> String {
    let top_level = text.lines().take_while(|line| {
        let word = line.trim_start().split([' ', '\t', '=']).next();
        !word.is_some_and(|word| {
            word.eq_ignore_ascii_case("host") || word.eq_ignore_ascii_case("match")
        })
    });
    if top_level.map(str::trim).any(|there| there == line) {
        return text.to_owned();
    }
    format!("{line}\n{text}")
}

fn without_line(text: &str, line: &str) -> String {
    text.split_inclusive('\n')
        .filter(|there| there.trim() != line)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn include(&self) -> SshInclude {
            SshInclude {
                user_config: self.0.path().join(".ssh/config"),
                included: self.0.path().join("ssh_config"),
            }
        }

        fn user_config(&self) -> Option<String> {
            fs::read_to_string(self.0.path().join(".ssh/config")).ok()
        }
    }

    #[test]
    fn put_in_once_and_taken_out_whole() {
        let home = Home(tempfile::tempdir().unwrap());
        let theirs = "# mine\nHost *\n  ServerAliveInterval 5\n";
        fs::create_dir(home.0.path().join(".ssh")).unwrap();
        fs::write(home.0.path().join(".ssh/config"), theirs).unwrap();
        let (a, b) = (Path::new("/h/a/ssh_config"), Path::new("/h/b/ssh_config"));
        home.include().add(a).unwrap();
        home.include().add(a).unwrap();
        home.include().add(b).unwrap();
        let included = home.0.path().join("ssh_config");
        let expected = format!("Include \"{}\"\n{theirs}", included.display());
        assert_eq!(home.user_config().unwrap(), expected);
        assert_eq!(
            fs::read_to_string(&included).unwrap(),
            "Include \"/h/b/ssh_config\"\nInclude \"/h/a/ssh_config\"\n"
        );
        home.include().remove(a).unwrap();
        assert_eq!(home.user_config().unwrap(), expected);
        home.include().remove(b).unwrap();
        home.include().remove(b).unwrap();
        assert_eq!(home.user_config().unwrap(), theirs);
        assert!(!included.exists());
    }

    #[test]
    fn a_line_below_a_host_is_none() {
        let line = "Include \"/x\"";
        assert_eq!(
            with_line("Host a\n  Include \"/x\"\n", line),
            "Include \"/x\"\nHost a\n  Include \"/x\"\n"
        );
        assert_eq!(
            with_line("Hostile no\nInclude \"/x\"\n", line),
            "Hostile no\nInclude \"/x\"\n"
        );
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone() {
        let home = Home(tempfile::tempdir().unwrap());
        home.include().remove(Path::new("/h/a")).unwrap();
        assert_eq!(home.user_config(), None);
        home.include().add(Path::new("/h/a")).unwrap();
        let mode = |path: &str| {
            let metadata = fs::metadata(home.0.path().join(path)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode(".ssh"), mode(".ssh/config")), (0o700, 0o600));
        home.include().remove(Path::new("/h/a")).unwrap();
        assert_eq!(home.user_config(), None);
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["/a\"b", "/a\nb", "/a*", "/[a]", "/100%", "/$HOME"] {
            assert!(include_line(Path::new(path)).is_err(), "{path}");
        }
        let raw = std::ffi::OsStr::from_bytes(b"/\xff");
        assert!(include_line(Path::new(raw)).is_err());
        assert_eq!(include_line(Path::new("/a b")).unwrap(), "Include \"/a b\"");
    }

    /// What ssh itself makes of it.
    #[test]
    fn ssh_reads_it() {
        let home = Home(tempfile::tempdir().unwrap());
        let profile = home.0.path().join("with space");
        fs::write(&profile, "Host colima-test\n  User ada\n").unwrap();
        home.include().add(&profile).unwrap();
        let config = home.0.path().join(".ssh/config");
        let output = std::process::Command::new("ssh")
            .arg("-F")
            .arg(config)
            .args(["-G", "colima-test"])
            .output();
        match output {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(text.contains("user ada\n"), "{output:?}");
            }
            Err(_) => println!("skipped: ssh_reads_it: there is no ssh client"),
        }
    }
}
