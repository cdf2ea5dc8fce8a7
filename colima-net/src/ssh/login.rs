//! Who logs in where, and how it is proved.

use std::{fmt, path::PathBuf};

use super::HostKey;

/// What both sides prove to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name at the server.
    pub user: String,
    /// The key that the server must have. There is no way around it.
    pub host_key: HostKey,
    /// How the user is proved.
    pub credential: Credential,
}

/// How a user is proved to a server. Passwords are not among the ways.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// A private key in memory.
    Key {
        /// The text of the key file, as `ssh-keygen` writes it.
        text: String,
        /// What it is encrypted with.
        passphrase: Option<String>,
    },
    /// A private key in a file, which is read for every session.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What it is encrypted with.
        passphrase: Option<String>,
    },
    /// The keys that an ssh agent holds, one after the other.
    Agent {
        /// The agent's socket, such as the value of `SSH_AUTH_SOCK`.
        socket: PathBuf,
    },
}

impl Credential {
    /// A private key in memory, not encrypted.
    pub fn key(text: impl Into<String>) -> Self {
        Self::Key {
            text: text.into(),
            passphrase: None,
        }
    }

    /// A private key in a file, not encrypted.
    pub fn key_file(path: impl Into<PathBuf>) -> Self {
        Self::KeyFile {
            path: path.into(),
            passphrase: None,
        }
    }
}

/// Without the secrets.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { .. } => f.debug_struct("Key").finish_non_exhaustive(),
            Self::KeyFile { path, .. } => f
                .debug_struct("KeyFile")
                .field("path", path)
                .finish_non_exhaustive(),
            Self::Agent { socket } => f.debug_struct("Agent").field("socket", socket).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credential = Credential::Key {
            text: "SECRET".into(),
            passphrase: Some("SECRET".into()),
        };
        assert_eq!(format!("{credential:?}"), "Key { .. }");
    }
}
