//! Serving a mount that a keeper holds.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
};

use super::{MountError, Who, adapter, coherence, journal::Journal, root_of, volume::Volume};
use crate::Client;

/// A mount that is served by this process and kept by another.
///
/// Dropping it changes nothing: the mount is served until it is unmounted or the process ends.
#[derive(Debug)]
pub struct Serving {
    session: adapter::BackgroundSession,
}

impl Serving {
    /// Completes when the mount is gone.
    ///
    /// # Cancel safety
    ///
    /// The mount is served as before.
    pub async fn ended(self) {
        // How it ended says nothing new.
        let _ = tokio::task::spawn_blocking(move || self.session.join()).await;
    }
}

/// As [`resume_for`], for everybody.
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
pub async fn resume(
    client: Client,
    device: OwnedFd,
    journal: OwnedFd,
) -> Result<Serving, MountError> {
    resume_for(client, device, journal, Who::Everybody).await
}

/// Serves the mount of a [`Keeper`](super::Keeper): as the first process, or in the place of one that is
/// dead. Two at the same time would each do a part of the work, wrongly.
///
/// Files that are open are opened again, by their names; those that are not there any more fail with
/// `EIO`, and so does the next write, sync or close of one that was written and not flushed. What the
/// kernel has asked and was not answered it asks again, where it can (Linux 6.9); what may have been
/// done already then, and is no other if done twice, fails with `EIO`.
///
/// # Errors
///
/// The server has not our extensions, the client is one of a single stream, or the descriptors are not
/// those of a keeper.
///
/// # Panics
///
/// It is polled outside of a tokio runtime.
///
/// # Cancel safety
///
/// Nothing is served; another process can.
pub async fn resume_for(
    client: Client,
    device: OwnedFd,
    journal: OwnedFd,
    who: Who,
) -> Result<Serving, MountError> {
    if !client.recovers() {
        return Err(MountError::OneStream);
    }
    let root = root_of(&client).await?;
    let (journal, records) =
        Journal::open(journal).map_err(|source| MountError::Journal { source })?;
    let (notices, noted) = mpsc::channel();
    let volume = Volume::resume(client.clone(), root, notices, journal, &records);
    let volume = Arc::new(volume);
    let follower: std::sync::Weak<Volume> = Arc::downgrade(&volume);
    client.follow(follower);
    volume.reopen().await;
    let serving = {
        let volume = Arc::clone(&volume);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let (session, notifier) = adapter::resume(volume, runtime, &device, who)?;
            // An older kernel does not know it: what was asked waits until it is interrupted.
            let _ = notifier.ask_again();
            std::thread::Builder::new()
                .name("colima-notices".into())
                .spawn(move || adapter::notify(&notifier, &noted))?;
            Ok(Serving { session })
        })
    };
    let serving = match serving.await {
        Ok(Ok(serving)) => serving,
        Ok(Err(source)) => return Err(MountError::Device { source }),
        Err(error) => {
            let source = io::Error::other(error);
            return Err(MountError::Device { source });
        }
    };
    tokio::spawn(coherence::follow(Arc::downgrade(&volume)));
    Ok(serving)
}
