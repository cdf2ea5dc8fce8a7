//! A file system of the kernel over a [`Client`]. Linux only.
//!
//! ```text
//! application ─ kernel ─ /dev/fuse ─ adapter ─ volume ─ client ~~~ stream ~~~ server ─ disk
//!                 ▲                              ▲                               │
//!                 └── forget this ── coherence ──┴──────── changes ── inotify ───┘
//! ```
//!
//! The kernel keeps names, metadata, content and listings for as long as the server tells of changes,
//! and for a second otherwise. What the host changes is dropped from its memory when the server
//! tells so; the echo of what this client did is known by its being no news. `SEMANTICS.md` says
//! what that means for applications.

mod adapter;
mod coherence;
mod echoes;
mod guard;
mod inodes;
mod journal;
mod keeper;
mod listing;
mod replay;
mod resumption;
mod volume;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

pub use guard::{CloseError, MountGuard};
pub use keeper::{Keeper, KeeperCloseError};
pub use resumption::{Serving, resume, resume_for};

use crate::{
    Client,
    sftp::{Errno, FileKind, Metadata},
};

/// Who may use a mount; what each may do there is decided by owners and modes, as anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every user of this machine.
    Everybody,
    /// The user who mounts.
    Owner,
}

/// Whether who watches files on the mount hears of what the host does to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// They hear of it by inotify and the like: host changes are done once more on the mount, without
    /// touching the host. Needs the right to mount, also later on. Not for a mount of a [`Keeper`]. While both
    /// sides change the same names at the same time, the mount may keep an old state until the next change.
    Replayed,
    /// They hear only of what is done on the mount.
    None,
}

/// How to mount.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MountOptions {
    /// The source in the table of mounts; nothing else depends on it.
    pub name: String,
    /// Who may use it.
    pub who: Who,
    /// Whether watchers hear of host changes.
    pub events: Events,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            name: "colima".into(),
            who: Who::Everybody,
            events: Events::None,
        }
    }
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The server is of another kind; its clients are the stock ones.
    #[error("the server has not the extensions that a mount needs")]
    Stock,
    /// The root of the server cannot be looked at, or is no directory.
    #[error("the server's root cannot be used")]
    Root {
        /// What the server said.
        source: io::Error,
    },
    /// The client ends with its stream, and cannot tell what was done before.
    #[error("a mount that is resumed needs a client that reconnects")]
    OneStream,
    /// What an earlier process has written down is no journal, or spoiled; the mount cannot be resumed.
    #[error("the journal of the mount cannot be used")]
    Journal {
        /// What the system said.
        source: io::Error,
    },
    /// The device of the mount cannot be used.
    #[error("the device of the mount cannot be used")]
    Device {
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount on {path}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Mounts what the server behind a client serves.
///
/// # Errors
///
/// The server has not our extensions, or the kernel refuses.
///
/// # Panics
///
/// It is polled outside of a tokio runtime.
///
/// # Cancel safety
///
/// What was mounted meanwhile is taken away.
pub async fn mount(client: Client, path: impl AsRef<Path>) -> Result<MountGuard, MountError> {
    mount_with(client, path, MountOptions::default()).await
}

async fn root_of(client: &Client) -> Result<Metadata, MountError> {
    if !client.has_ours() {
        return Err(MountError::Stock);
    }
    match client.metadata(b"/").await {
        Ok(root) if root.kind() == FileKind::Directory => Ok(root),
        Ok(_) => {
            let source = Errno::NotADirectory.into();
            Err(MountError::Root { source })
        }
        Err(error) => {
            let source = error.into();
            Err(MountError::Root { source })
        }
    }
}

/// As [`mount`], with options.
///
/// # Errors
///
/// As there.
///
/// # Panics
///
/// As there.
///
/// # Cancel safety
///
/// As there.
pub async fn mount_with(
    client: Client,
    path: impl AsRef<Path>,
    options: MountOptions,
) -> Result<MountGuard, MountError> {
    let root = root_of(&client).await?;
    let path = path.as_ref().to_owned();
    let (notices, noted) = mpsc::channel();
    let replays = (options.events == Events::Replayed).then(replay::Replays::new);
    let volume = volume::Volume::new(client.clone(), root, notices, replays);
    let volume = Arc::new(volume);
    let follower: std::sync::Weak<volume::Volume> = Arc::downgrade(&volume);
    client.follow(follower);
    let mounting = {
        let told = Arc::downgrade(&volume);
        let inside = tokio::runtime::Handle::current();
        let (volume, path) = (Arc::clone(&volume), path.clone());
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let (session, notifier) = adapter::mount(volume, runtime, &path, &options)?;
            let guard = MountGuard::new(&path, session, client);
            std::thread::Builder::new()
                .name("colima-notices".into())
                .spawn(move || {
                    // The last reference to the volume may be the one that is used there.
                    let _inside = inside.enter();
                    replay::tell(&notifier, &noted, &path, &told);
                })?;
            Ok(guard)
        })
    };
    let failed = |source| MountError::Mount { path, source };
    let guard = match mounting.await {
        Ok(Ok(guard)) => guard,
        Ok(Err(source)) => return Err(failed(source)),
        Err(error) => return Err(failed(io::Error::other(error))),
    };
    if volume.replays.is_some() {
        // Who watches the root does not look for it. If it cannot be, watchers hear of nothing there.
        let _ = volume.watch(inodes::ROOT).await;
    }
    tokio::spawn(coherence::follow(Arc::downgrade(&volume)));
    Ok(guard)
}
