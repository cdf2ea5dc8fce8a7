//! What is compared with: `ssh -L` over a connection that is already up, with AES-GCM.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{Result, product::output};

/// A warm master that forwards sockets of the host.
///
/// **Drop** leaves it running; **close** is [`SshMaster::close`]. `sshd` at the far side may go away
/// before, which ends it as well.
#[derive(Debug)]
pub struct SshMaster {
    config: PathBuf,
    control: PathBuf,
}

impl SshMaster {
    /// Connects to `host` of the configuration; when it returns, `here` leads to `there` for each pair.
    ///
    /// # Errors
    ///
    /// When the connection or a forward fails.
    pub async fn open(
        config: &Path,
        host: &str,
        control: &Path,
        forwards: &[(&Path, &Path)],
    ) -> Result<Self> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F")
            .arg(config)
            .arg("-S")
            .arg(control)
            .args(["-M", "-N", "-f"]);
        for option in [
            "Ciphers=aes128-gcm@openssh.com",
            "ControlPersist=no",
            "ExitOnForwardFailure=yes",
            "StreamLocalBindUnlink=yes",
        ] {
            ssh.args(["-o", option]);
        }
        for (here, there) in forwards {
            let forward = format!("{}:{}", here.display(), there.display());
            ssh.args(["-L", &forward]);
        }
        // It goes to the background when all forwards stand, and keeps its standard error: a pipe would
        // never end.
        let status = ssh
            .arg(host)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await?;
        if !status.success() {
            return Err(format!("ssh could not connect or forward: {status}").into());
        }
        Ok(Self {
            config: config.to_owned(),
            control: control.to_owned(),
        })
    }

    /// Ends the connection.
    ///
    /// # Errors
    ///
    /// When it is gone already.
    pub async fn close(self) -> Result<()> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).arg("-S").arg(&self.control);
        output(ssh.args(["-O", "exit", "any"])).await.map(drop)
    }
}
