//! Byte streams between two machines that share one byte stream, or none: relay and multiplexer.
//!
//! The crate knows sockets and the [`Connect`](colima_core::Connect) trait. It knows nothing of
//! virtual machines, and is as useful between a program and its container, or two ends of an ssh
//! command.
//!
//! * [`Relay`] (feature `relay`, default) listens here and connects there: a unix socket or a TCP
//!   port whose clients each get a stream to an endpoint on the far side.
//! * [`mux::Mux`] (feature `mux`) is such a far side: it opens many streams over one link, and keeps
//!   the link up. [`mux::serve`] answers it at the other end.
//! * [`forward`] (feature `forward`) makes ports of the far side appear here: rules, conflicts, and a
//!   relay for each port.
//! * [`datagrams`] carries UDP over a stream.
//! * [`ssh::Ssh`] (feature `ssh`) is such a far side without a program of ours: any ssh server.
//! * [`Local`] is the far side that is not far: sockets of this machine.
//! * [`agent`] (feature `agent`) is the client of a guest's agent, over any far side.
//! * [`pump`] is what they share: two streams joined so that each ends as the other does.
//!
//! Nothing here reads the environment, prints, or starts a runtime; tasks run on the caller's
//! tokio runtime. No failure of a peer panics.
//!
//! # Relay
//!
//! A socket in a private directory, whose clients reach another socket:
//!
//! ```
//! # #[cfg(feature = "relay")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use colima_core::Endpoint;
//! use colima_net::{Local, Relay, SocketFile};
//! use tokio::{io::AsyncReadExt as _, net::UnixStream};
//!
//! # let directory = tempfile::tempdir()?;
//! # let (here, there) = (directory.path().join("run/here.sock"), directory.path().join("there"));
//! # let server = tokio::net::UnixListener::bind(&there)?;
//! let relay = Relay::new(SocketFile::bind(&here)?, Local, Endpoint::Unix(there)).limit(64);
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let relay = tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() }));
//!
//! let mut client = UnixStream::connect(&here).await?;
//! # tokio::io::AsyncWriteExt::write_all(&mut server.accept().await?.0, b"hello").await?;
//! let mut text = String::new();
//! client.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//!
//! # drop(client);
//! stop.send(()).ok();
//! let report = relay.await?;
//! assert_eq!((report.accepted, report.traffic.received), (1, 5));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "relay"))]
//! # fn main() {}
//! ```
//!
//! # Multiplexer
//!
//! With a [`mux::Mux`] in the place of `Local` the same relay reaches sockets of another machine.
//! The module has an example of both ends: [`mux`].

#[cfg(feature = "agent")]
pub mod agent;
pub mod datagrams;
mod error;
#[cfg(feature = "forward")]
pub mod forward;
mod local;
#[cfg(feature = "mux")]
pub mod mux;
mod pump;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "ssh")]
pub mod ssh;

pub use error::{NetError, Violation};
pub use local::{Local, LocalStream};
#[cfg(feature = "mux")]
pub use mux::{Mux, MuxConfig, MuxStream};
pub use pump::{Hangup, Traffic, pump};
#[cfg(feature = "relay")]
pub use relay::{Relay, RelayEvent, RelayReport, SocketFile};
#[cfg(feature = "ssh")]
pub use ssh::{Ssh, SshConfig, SshError, SshStream};
