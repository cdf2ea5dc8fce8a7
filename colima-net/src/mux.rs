//! Many streams over one byte stream.
//!
//! The *opening* side, usually the host, holds a [`Mux`]; it implements
//! [`Connect`](colima_core::Connect). The *accepting* side, usually a guest, calls [`serve`].
//! Between them is any one full-duplex byte stream: a socket, a virtio-serial port, the standard
//! streams of an ssh command.
//!
//! ```text
//!  Mux::open ──Open──────────────▶ serve ──▶ handler: Incoming::accept or refuse
//!            ◀──Accept, or Refuse──
//!  MuxStream ◀──Data, Credit, Fin, Reset──▶ MuxStream
//! ```
//!
//! # What holds
//!
//! * **Isolation.** Each direction of a stream has its own credit, 256 KiB at first. A reader that
//!   stops costs its own stream and 256 KiB. Writers take turns, 32 KiB at a time.
//! * **Half-close.** `shutdown` ends one direction. Dropping a stream resets both.
//! * **An untrusted peer.** The accepting side cannot make the opening side remember more than the
//!   streams it opened itself and their credit, and whatever it sends, the answer is an [`NetError`]
//!   and a new link, never a panic.
//! * **Resynchronisation.** A session begins with a handshake that works whatever bytes of earlier
//!   sessions are still in the link, and wherever either side was cut: see the
//!   [wire format](frame) and the handshake's own file.
//! * **Liveness.** An idle peer is pinged; one that stays silent is given up, its streams fail with
//!   `ConnectionReset`, and the link is opened anew. Opens wait for that, up to their deadline.
//!
//! # States of a link
//!
//! ```text
//!            dial           answer to our hello
//!  Connecting ──▶ handshake ────────▶ Up
//!                  ▲   ▲              │ │ zeros: the peer was restarted
//!             dial │   └──────────────┼─┘
//!                  │                  │ end, error, violation, silence
//!                 Down ◀──────────────┘        close ──▶ Closed (from anywhere)
//! ```
//!
//! # Example
//!
//! ```
//! use colima_core::Endpoint;
//! use colima_net::mux::{Mux, MuxConfig, ServeConfig, serve};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (host, guest) = tokio::io::duplex(4096);
//!
//! // The accepting side sends everything back.
//! tokio::spawn(serve(guest, ServeConfig::default(), |incoming| async {
//!     let (mut read, mut write) = tokio::io::split(incoming.accept());
//!     if tokio::io::copy(&mut read, &mut write).await.is_ok() {
//!         write.shutdown().await.ok();
//!     }
//! }));
//!
//! // The opening side.
//! let mux = Mux::over(host, MuxConfig::default());
//! let mut stream = mux.open(&Endpoint::Service("echo".into())).await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! mux.close().await;
//! # Ok(())
//! # }
//! ```

mod endpoint_bytes;
pub mod frame;
mod handshake;
mod host;
mod link;
mod refusal;
mod serve;
mod stream;
mod table;

pub use host::{LinkState, Mux, MuxConfig};
pub use refusal::Refusal;
pub use serve::{Incoming, ServeConfig, serve};
pub use stream::MuxStream;

#[cfg(doc)]
use crate::NetError;
