//! The agent's socket, for a host that comes by ssh.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use colima_core::boot::User;
use tokio::net::UnixListener;

use super::{Agent, hold, log};

/// How long accepting pauses when the system lacks something.
const PAUSE: Duration = Duration::from_millis(200);

/// A socket on which the agent serves the multiplexer, to any number of hosts.
///
/// **Drop**: it listens no more; connections go on.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
}

impl Socket {
    /// Listens at `path`, in the place of what was there before, for root and `user` alone.
    ///
    /// # Errors
    ///
    /// As the file system fails.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(path: &Path, user: &User) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody but root may write to the directory, and connecting takes the right to write.
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        chown(path, Some(user.uid), Some(user.gid))?;
        Ok(Self { listener })
    }

    /// Serves every connection, until it is dropped.
    pub async fn serve(self, agent: Arc<Agent>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(hold(stream, Arc::clone(&agent)))),
                Err(error) => {
                    log(&format!("cannot accept on the agent's socket: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
