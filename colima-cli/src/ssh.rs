//! Keys and client configuration for `colima ssh`.
//!
//! Both key pairs are made on the host: the guest is told its own host key at boot, so the client can
//! pin it, and nobody ever answers a first-contact question. No TCP port is needed: the client reaches
//! the guest's ssh server through the profile's `ssh.sock` and `colima proxy`.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why keys could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshKeyError {
    /// The program that makes keys is not installed.
    #[error("ssh-keygen was not found: install the package openssh-client")]
    KeygenMissing,
    /// It ran and failed.
    #[error("ssh-keygen could not make {}: {stderr}", path.display())]
    Keygen {
        /// The key that was to be made.
        path: PathBuf,
        /// What it said.
        stderr: String,
    },
    /// A key file could not be read or written.
    #[error("cannot use the key {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An ed25519 key pair as OpenSSH writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Text of the private key file.
    pub private: String,
    /// The one line of the public key file, without its newline.
    pub public: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The key pair in `path` and `path.pub`, made there if it does not exist.
///
/// A run that is killed leaves either nothing or a whole pair: the public half is put in place first
/// and the private one, which decides, last.
///
/// # Errors
///
/// See [`SshKeyError`].
pub fn ensure_key_pair(path: &Path, comment: &str) -> Result<KeyPair, SshKeyError> {
    let public_path = with_suffix(path, ".pub");
    let failed = |source| SshKeyError::KeyFile {
        path: path.to_owned(),
        source,
    };
    // One at a time: halves of two pairs would never match.
    let directory = fs::File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    directory.lock().map_err(failed)?;
    if !path.exists() {
        let fresh = with_suffix(path, &format!(".new-{}", std::process::id()));
        let fresh_public = with_suffix(&fresh, ".pub");
        let made = keygen(&fresh, comment)
            .and_then(|()| sync(&fresh))
            .and_then(|()| sync(&fresh_public))
            .and_then(|()| rename(&fresh_public, &public_path))
            .and_then(|()| rename(&fresh, path));
        if made.is_err() {
            // What is left of the attempt is of no use to anyone; it may not exist at all.
            let _ = fs::remove_file(&fresh);
            let _ = fs::remove_file(&fresh_public);
        }
        made?;
        directory.sync_all().map_err(failed)?;
    }
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| SshKeyError::KeyFile {
            path: path.to_owned(),
            source,
        })
    };
    Ok(KeyPair {
        private: read(path)?,
        public: read(&public_path)?.trim_end().to_owned(),
    })
}

fn keygen(path: &Path, comment: &str) -> Result<(), SshKeyError> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SshKeyError::KeygenMissing,
            _ => SshKeyError::KeyFile {
                path: path.to_owned(),
                source,
            },
        })?;
    if output.status.success() {
        // Not secret, but nobody else's business either, like everything of ours.
        let public = with_suffix(path, ".pub");
        return fs::set_permissions(&public, fs::Permissions::from_mode(0o600)).map_err(|source| {
            SshKeyError::KeyFile {
                path: public,
                source,
            }
        });
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SshKeyError::Keygen {
        path: path.to_owned(),
        stderr,
    })
}

fn sync(path: &Path) -> Result<(), SshKeyError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| SshKeyError::KeyFile {
        path: path.to_owned(),
        source,
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), SshKeyError> {
    fs::rename(from, to).map_err(|source| SshKeyError::KeyFile {
        path: to.to_owned(),
        source,
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What an ssh client has to know of one instance.
#[derive(Clone, Debug)]
pub struct ClientConfig<'a> {
    /// The name to type: `colima`, `colima-work`.
    pub host: &'a str,
    /// Login name in the guest.
    pub user: &'a str,
    /// Private key of the host's user.
    pub identity: &'a Path,
    /// The `known_hosts` file with the pinned host key.
    pub known_hosts: &'a Path,
    /// This program.
    pub program: &'a Path,
    /// The profile's relay to the guest's ssh server.
    pub socket: &'a Path,
    /// Whether sessions in the guest may use the host's agent.
    pub agent: AgentForwarding,
}

/// Whether sessions in the guest may use the host's ssh agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentForwarding {
    /// They may, and so may everybody who is root there.
    On,
    /// They may not.
    Off,
}

impl From<bool> for AgentForwarding {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// The `ssh_config(5)` text for one instance, or `None` where a path cannot be written in one: the
/// format has no way to carry a line break, and a `"` only outside of quotes.
#[must_use]
pub fn client_config(config: &ClientConfig<'_>) -> Option<String> {
    let proxy = format!(
        "{} proxy {}",
        shell_word(config.program)?,
        shell_word(config.socket)?
    );
    Some(format!(
        "Host {host}\n  \
           HostName {host}\n  \
           User {user}\n  \
           IdentityFile {identity}\n  \
           IdentitiesOnly yes\n  \
           UserKnownHostsFile {known_hosts}\n  \
           HostKeyAlias {host}\n  \
           StrictHostKeyChecking yes\n  \
           PreferredAuthentications publickey\n  \
           Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com\n  \
           LogLevel ERROR\n  \
           ForwardAgent {agent}\n  \
           ProxyCommand {proxy}\n",
        agent = match config.agent {
            AgentForwarding::On => "yes",
            AgentForwarding::Off => "no",
        },
        host = config.host,
        user = config.user,
        identity = quoted(config.identity)?,
        known_hosts = quoted(config.known_hosts)?,
    ))
}

/// The line that pins `public_key` to `host`.
#[must_use]
pub fn known_hosts_line(host: &str, public_key: &str) -> String {
    let key: Vec<&str> = public_key.split_whitespace().take(2).collect();
    format!("{host} {}\n", key.join(" "))
}

/// A path as a quoted argument: `%` introduces a token there and is doubled.
fn quoted(path: &Path) -> Option<String> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).ok()?;
    if text.contains(['"', '\n', '\r', '\0']) {
        return None;
    }
    Some(format!("\"{}\"", text.replace('%', "%%")))
}

/// A path as one word of the shell line that a `ProxyCommand` is.
fn shell_word(path: &Path) -> Option<String> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).ok()?;
    if text.contains(['\n', '\r', '\0']) {
        return None;
    }
    Some(format!(
        "'{}'",
        text.replace('\'', "'\\''").replace('%', "%%")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(home: &str) -> Option<String> {
        client_config(&ClientConfig {
            host: "colima-work",
            user: "ada",
            identity: &Path::new(home).join("_ssh/id_ed25519"),
            known_hosts: &Path::new(home).join("work/known_hosts"),
            program: Path::new("/usr/bin/colima"),
            socket: &Path::new(home).join("work/ssh.sock"),
            agent: AgentForwarding::Off,
        })
    }

    #[test]
    fn the_text() {
        insta::assert_snapshot!(config("/home/ada/.colima").unwrap());
    }

    #[test]
    fn odd_paths_arrive_whole() {
        let text = config("/home/a b/100%/it's").unwrap();
        assert!(
            text.contains("\"/home/a b/100%%/it's/_ssh/id_ed25519\""),
            "{text}"
        );
        assert!(
            text.contains("proxy '/home/a b/100%%/it'\\''s/work/ssh.sock'"),
            "{text}"
        );
        assert_eq!(config("/home/\"quote"), None);
        assert_eq!(config("/home/line\nbreak"), None);
    }

    #[test]
    fn a_pair_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = ensure_key_pair(&path, "test").unwrap();
        assert!(
            first
                .private
                .starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
        );
        assert!(first.public.starts_with("ssh-ed25519 "));
        assert_eq!(ensure_key_pair(&path, "test").unwrap(), first);
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["key", "key.pub"]);
        assert_eq!(
            known_hosts_line("colima", "ssh-ed25519 AAAA comment here"),
            "colima ssh-ed25519 AAAA\n"
        );
    }
}
