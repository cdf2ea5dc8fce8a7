//! Host directories elsewhere: a confined SFTP server, a pipelined client, and a FUSE file system over it.
//!
//! The crate knows byte streams and directories, and nothing of virtual machines.
//!
//! * [`Server`] serves one directory over any byte stream, to stock clients and to [`Client`]. Nothing
//!   outside of the directory can be reached, whatever links are in it.
//! * [`Client`] has any number of requests in flight over such a stream.
//! * `fuse::mount` (feature `fuse`, Linux) makes a file system of a client.
//! * [`sftp`] is the protocol, as bytes and values.
//!
//! Nothing here reads the environment, prints, or starts a runtime; tasks run on the caller's tokio
//! runtime. No failure of a peer panics.
//!
//! ```
//! use colima_mount::{Access, Client, Root, Server, sftp::OpenFlags};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! std::fs::write(directory.join("hello"), "from the host")?;
//! let (here, there) = tokio::io::duplex(64 * 1024);
//! let server = Server::new(Root::open(directory)?, Access::ReadOnly);
//! tokio::spawn(async move { server.serve(there).await });
//!
//! let client = Client::connect(here).await?;
//! let file = client.open(b"hello", OpenFlags::READ, None).await.map_err(std::io::Error::from)?;
//! let content = file.read_at(5, 100).await.map_err(std::io::Error::from)?;
//! assert_eq!(&content[..], b"the host");
//! # Ok(())
//! # }
//! ```

pub mod client;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod fuse;
pub mod server;
pub mod sftp;

pub use client::{Client, File, Patience};
pub use server::{Access, Root, Server};
