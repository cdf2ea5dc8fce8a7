//! Our context in the docker CLI's store: made at start, made current, taken back at stop.
//!
//! The context that was current before is noted in the profile's directory, so that it comes back even
//! when the machine and its daemon are dead, and it comes back only while ours is the current one: who has
//! chosen another in the meantime keeps it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use colima_core::runtime::docker_context as text;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::state_dir::{replace_file, write_private};

/// The docker CLI's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerContexts {
    dir: PathBuf,
}

/// Why the docker CLI's files could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerContextError {
    /// A file could not be read, written or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, `lock`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `config.json` is not what docker writes; it was left alone.
    #[error("cannot understand {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: text::ParseDockerConfigError,
    },
}

/// What [`DockerContexts::deactivate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// This one is current again; `None` is docker's default.
    Previous(Option<String>),
    /// Another context was current; it stays.
    NotOurs,
}

/// The note beside a profile: the context that was current before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousContext {
    version: u32,
    previous: Option<String>,
}

const NOTE_VERSION: u32 = 1;

impl DockerContexts {
    /// The store below `dir` (`DOCKER_CONFIG` or `~/.docker`). Nothing is touched.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes the context, or points it at `socket`.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn publish(
        &self,
        name: &str,
        description: &str,
        socket: &Path,
    ) -> Result<(), DockerContextError> {
        let _lock = self.lock()?;
        let path = self.meta_path(name);
        let failed = file_error("write", &path);
        let parent = path.parent().unwrap_or(&self.dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(&failed)?;
        // The docker CLI's own mode: nothing secret is in it.
        let meta = text::meta_json(name, description, socket);
        replace_file(&path, meta.as_bytes(), 0o644).map_err(failed)
    }

    /// The current context; `None` is docker's default.
    ///
    /// # Errors
    ///
    /// `config.json` cannot be read or understood.
    pub fn current(&self) -> Result<Option<String>, DockerContextError> {
        text::current(&self.read_config()?).map_err(|source| self.config_error(source))
    }

    /// Makes the context current and notes in the file `note` which one was before.
    ///
    /// Where it is current already the note is kept as it is.
    ///
    /// # Errors
    ///
    /// `config.json` cannot be read, understood or written; nothing is changed then.
    pub fn activate(&self, name: &str, note: &Path) -> Result<(), DockerContextError> {
        let _lock = self.lock()?;
        let previous = self.current()?;
        if previous.as_deref() == Some(name) {
            return Ok(());
        }
        write_note(note, previous)?;
        self.set_current(Some(name))
    }

    /// If the context is current and leads to `socket`, makes the noted one current again, or docker's default where that one
    /// is gone. Removes the note. May be repeated.
    ///
    /// `others` are the notes of other profiles. One that would come back to this context comes back to
    /// the one before it instead.
    ///
    /// # Errors
    ///
    /// `config.json` cannot be read, understood or written; the note stays then.
    pub fn deactivate(
        &self,
        name: &str,
        socket: &Path,
        note: &Path,
        others: &[PathBuf],
    ) -> Result<Restored, DockerContextError> {
        if !self.is_ours(name, socket) {
            return Ok(Restored::NotOurs);
        }
        let _lock = self.lock()?;
        for other in others {
            if other != note && Self::noted(other)?.as_deref() == Some(name) {
                write_note(other, Self::noted(note)?)?;
            }
        }
        let restored = if self.current()?.as_deref() == Some(name) {
            let previous = Self::noted(note)?.filter(|previous| self.meta_path(previous).is_file());
            self.set_current(previous.as_deref())?;
            Restored::Previous(previous)
        } else {
            Restored::NotOurs
        };
        remove_if_there(note)?;
        Ok(restored)
    }

    /// Whether the context is there and leads to `socket`: another home, or another program, may have one
    /// of the same name.
    fn is_ours(&self, name: &str, socket: &Path) -> bool {
        let meta = fs::read(self.meta_path(name)).unwrap_or_default();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap_or_default();
        let host = meta.pointer("/Endpoints/docker/Host");
        host.and_then(|host| host.as_str()) == Some(&format!("unix://{}", socket.display()))
    }

    /// Removes the context, if it leads to `socket`. May be repeated.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn remove(&self, name: &str, socket: &Path) -> Result<(), DockerContextError> {
        if !self.is_ours(name, socket) {
            return Ok(());
        }
        let path = self.meta_path(name);
        remove_if_there(&path)?;
        let Some(dir) = path.parent() else {
            return Ok(());
        };
        match fs::remove_dir(dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(file_error("remove", dir)(source)),
        }
    }

    fn meta_path(&self, name: &str) -> PathBuf {
        self.dir.join(text::meta_path(name))
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    fn config_error(&self, source: text::ParseDockerConfigError) -> DockerContextError {
        DockerContextError::Config {
            path: self.config_path(),
            source,
        }
    }

    fn read_config(&self) -> Result<String, DockerContextError> {
        let path = self.config_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(file_error("read", &path)(source)),
        }
    }

    fn set_current(&self, name: Option<&str>) -> Result<(), DockerContextError> {
        let old = self.read_config()?;
        let new = text::with_current(&old, name).map_err(|source| self.config_error(source))?;
        if new == old {
            return Ok(());
        }
        let path = self.config_path();
        // Who keeps the file elsewhere behind a link keeps the link.
        let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let mode = fs::metadata(&target).map_or(0o600, |file| file.permissions().mode() & 0o777);
        replace_file(&target, new.as_bytes(), mode).map_err(file_error("write", &path))
    }

    fn noted(note: &Path) -> Result<Option<String>, DockerContextError> {
        match fs::read(note) {
            // A note that cannot be understood names nothing; docker's default is always right.
            Ok(text) => Ok(serde_json::from_slice::<PreviousContext>(&text)
                .ok()
                .filter(|noted| noted.version == NOTE_VERSION)
                .and_then(|noted| noted.previous)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file_error("read", note)(source)),
        }
    }

    /// Keeps other profiles' commands out while `config.json` is read and written. The docker CLI takes
    /// no lock; what it writes in the same moment can be lost, as between two docker commands.
    fn lock(&self) -> Result<File, DockerContextError> {
        let failed = file_error("lock", &self.dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(&failed)?;
        let dir = File::open(&self.dir).map_err(&failed)?;
        flock(&dir, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        Ok(dir)
    }
}

fn write_note(note: &Path, previous: Option<String>) -> Result<(), DockerContextError> {
    let version = NOTE_VERSION;
    let text = serde_json::json!(PreviousContext { version, previous });
    write_private(note, text.to_string().as_bytes()).map_err(file_error("write", note))
}

fn file_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DockerContextError {
    let path = path.to_owned();
    move |source| DockerContextError::File {
        action,
        path: path.clone(),
        source,
    }
}

fn remove_if_there(path: &Path) -> Result<(), DockerContextError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(file_error("remove", path)(source)),
    }
}
