//! An instance to a file.

use std::time::Duration;

use tokio::time::timeout;

use super::Instance;
use crate::control::Stopped;

/// How long the guest may take to write what it has in memory to its disks.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// How long its memory may take to be written. A slow disk writes 30 MB a second.
const SAVE_LIMIT: Duration = Duration::from_secs(600);

impl Instance {
    /// Writes the guest's files and memory to disk and ends the machine. Files first: a memory that cannot be loaded
    /// is then no loss but of what ran.
    ///
    /// An error is a sentence; the machine then runs on, without its sockets on the host.
    pub(super) async fn suspend(&self) -> Result<Stopped, String> {
        let instead = |why: String| format!("it cannot be suspended and is shut down: {why}");
        match timeout(SYNC_LIMIT, self.agent.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(instead(format!("the guest: {error}"))),
            Err(_) => return Err(instead("the guest does not answer".to_owned())),
        }
        match self.machine.suspend(SAVE_LIMIT).await {
            Ok(suspended) => Ok(Stopped::Suspended {
                size: suspended.size,
                elapsed: suspended.elapsed,
            }),
            Err(error) => Err(instead(error.to_string())),
        }
    }
}
