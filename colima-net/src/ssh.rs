//! Streams and commands at an ssh server.
//!
//! [`Ssh`] is a far side without any program of ours: it opens streams to unix sockets
//! (`direct-streamlocal@openssh.com`), TCP ports (`direct-tcpip`) and subsystems, and runs commands, at
//! any OpenSSH server.
//!
//! # Sessions
//!
//! Every stream has a session of its own: a connection, a login, a thread that alone touches libssh2. A
//! slow reader, a broken link or a bug below harms that stream and no other. Sessions whose stream came to
//! its end in order are used again, and one is made ready in advance, so that an open does not wait for a
//! handshake. Many long streams at once are better carried by a `Mux` over
//! [`Ssh::open_command`], if the server can have a program of its own.
//!
//! # Trust
//!
//! * The server must prove the key that [`Login`] pins. There is no first-use trust, and a mismatch names
//!   both fingerprints.
//! * The user is proved by a key: in memory, in a file, or in an agent.
//! * AES-GCM is preferred. The library below is the libssh2 that `libssh2-sys` brings along, not the
//!   system's: Debian 12 has 1.10, which has neither AES-GCM nor the fixes of CVE-2026-55200. OpenSSL
//!   is the system's.
//!
//! # Life
//!
//! A server that is silent is asked; one that does not answer is given up, and its stream fails with
//! `ConnectionReset`, the reason ([`SshError::PeerSilent`]) as the error's source. The next open makes a
//! new session, and tries until its deadline.
//!
//! # Differences to `Mux`
//!
//! * A stream that is dropped without a `shutdown` looks to the far side as if it had ended: ssh has no
//!   word for a reset. Nor does the near side see one.
//! * A missing socket and one that nobody listens on are both `ConnectionRefused`.
//! * Streams outlive their client.
//!
//! # Example
//!
//! ```no_run
//! use colima_core::{Command, Guest as _};
//! use colima_net::ssh::{Credential, Login, Ssh, SshConfig};
//! use tokio::net::TcpStream;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let login = Login {
//!     user: "me".into(),
//!     host_key: "SHA256:JySPR47NSDl9Y2exSN08yvqgDFpPTS+6aE/QOp4q5Ts".parse()?,
//!     credential: Credential::key_file("/home/me/.ssh/id_ed25519"),
//! };
//! let ssh = Ssh::new(|| TcpStream::connect("server:22"), login, SshConfig::default());
//! let output = ssh.run(&Command::new(["uname", "-m"])).await?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok(())
//! # }
//! ```

// Documentation can be built without OpenSSL, and so without the library that needs it.
#[cfg(colima_docs)]
mod libssh2;
#[cfg(not(colima_docs))]
use ssh2 as libssh2;

mod buffer;
mod client;
mod command;
mod error;
mod flow;
mod host_key;
mod link;
mod login;
mod pool;
mod session;
mod stream;
mod target;
mod wire;

pub use client::{Ssh, SshConfig};
pub use error::SshError;
pub use host_key::{Fingerprint, HostKey, ParseHostKeyError};
pub use login::{Credential, Login};
pub use stream::SshStream;

/// The most output of one command that [`Ssh::command`] takes into memory, in bytes per stream.
pub const LARGEST_OUTPUT: usize = 64 << 20;
