//! A mount for as long as somebody holds it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustix::mount::UnmountFlags;

use super::adapter::BackgroundSession;
use crate::Client;

/// A mounted file system.
///
/// * Dropping it takes the mount away at once; who still uses it gets errors when it has let go of
///   its files, and what was written but not flushed may be lost.
/// * [`MountGuard::close`] unmounts in order, and does nothing while somebody uses it.
/// * [`MountGuard::detach`] leaves the mount to itself: it works until the process ends or somebody
///   unmounts it.
pub struct MountGuard {
    path: PathBuf,
    session: Option<BackgroundSession>,
    client: Client,
}

/// The file system is in use, or could not be unmounted for another reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot unmount {}", guard.path.display())]
pub struct CloseError {
    /// The mount, which is still there.
    pub guard: MountGuard,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Debug for MountGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountGuard")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl MountGuard {
    pub(super) fn new(path: &Path, session: BackgroundSession, client: Client) -> Self {
        Self {
            path: path.to_owned(),
            session: Some(session),
            client,
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes when the connection to the server has ended; never for a client that gets another
    /// ([`Client::over`]). The mount stays: everything that needs the server fails with `ENOTCONN` from
    /// then on.
    pub async fn disconnected(&self) {
        self.client.closed().await;
    }

    /// Unmounts, when nobody uses it, and waits until the kernel has let go.
    ///
    /// # Errors
    ///
    /// Somebody uses it (`EBUSY`), or the process may not unmount; the mount is there as before.
    ///
    /// # Cancel safety
    ///
    /// The unmounting goes on; the mount is taken away in any case.
    pub async fn close(mut self) -> Result<(), CloseError> {
        let path = self.path.clone();
        let unmounted = tokio::task::spawn_blocking(move || {
            rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW)
        });
        match unmounted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let source = error.into();
                return Err(CloseError {
                    guard: self,
                    source,
                });
            }
            Err(error) => {
                let source = io::Error::other(error);
                return Err(CloseError {
                    guard: self,
                    source,
                });
            }
        }
        if let Some(session) = self.session.take() {
            // It ends by itself now; how it ended says nothing new.
            let _ = tokio::task::spawn_blocking(move || session.join()).await;
        }
        Ok(())
    }

    /// Leaves the mount to itself.
    pub fn detach(mut self) {
        if let Some(session) = self.session.take() {
            std::mem::forget(session);
        }
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if self.session.is_none() {
            return;
        }
        // Lazily, so that a drop never waits for whoever uses it. The session's own drop does the rest,
        // and all of it where this process may not unmount by itself.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}
