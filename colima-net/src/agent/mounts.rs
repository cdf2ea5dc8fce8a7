//! The agent's mounts: host directories in the guest.

use colima_core::{
    Connect,
    agent::{Reply, Request},
    mounts::{GuestMount, MountState},
};

use super::{Agent, AgentError, read_reply, unexpected};

impl<C: Connect> Agent<C> {
    /// Mounts a directory that the host serves on its port; returns when it is mounted.
    ///
    /// # Errors
    ///
    /// [`AgentError::Failed`] with what is wrong; or the agent is too old to know about mounts.
    pub async fn mount(&self, mount: &GuestMount) -> Result<(), AgentError> {
        let mount = mount.clone();
        self.order(&Request::Mount { mount }).await
    }

    /// Takes the mount of a port away, unless somebody uses it.
    ///
    /// # Errors
    ///
    /// [`AgentError::Failed`] while it is in use.
    pub async fn unmount(&self, port: u8) -> Result<(), AgentError> {
        self.order(&Request::Unmount { port }).await
    }

    /// Tells what is mounted, and what is not and why.
    ///
    /// # Errors
    ///
    /// See [`AgentError`].
    pub async fn mounts(&self) -> Result<Vec<MountState>, AgentError> {
        let mut talk = self.ask(&Request::Mounts).await?;
        match read_reply(&mut talk).await? {
            Reply::Mounts { mounts } => Ok(mounts),
            other => Err(unexpected(&other)),
        }
    }
}
