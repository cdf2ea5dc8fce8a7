//! The accepting side of a link.

use std::{fmt, io, sync::Arc};

use colima_core::Endpoint;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use super::{
    handshake::{Answer, Hello, find_hello, preamble},
    link::{End, Link},
    refusal::Refusal,
    stream::{MuxStream, Session},
    table::{Role, Table},
};
use crate::NetError;

/// Limits of the accepting side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Bytes that the peer may send on a stream before they are read; 256 KiB by default.
    pub window: u32,
    /// Most streams at once; 4,096 by default. More are refused with `ResourceBusy`.
    pub max_streams: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            window: 256 * 1024,
            max_streams: 4096,
        }
    }
}

/// A stream that the peer asks for, and that waits for a decision.
///
/// # Drop
///
/// Dropping it undecided refuses it.
pub struct Incoming {
    endpoint: Endpoint,
    stream: MuxStream,
}

impl Incoming {
    /// Where the stream shall lead.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Grants the stream.
    #[must_use]
    pub fn accept(self) -> MuxStream {
        let id = self.stream.id();
        self.stream.session().with(|table| table.accept(id));
        self.stream
    }

    /// Refuses the stream; the peer's open fails with the kind and the text of `error`.
    ///
    /// The kinds that survive are `ConnectionRefused`, `NotFound`, `PermissionDenied`, `TimedOut`,
    /// `ResourceBusy` and `Unsupported`; any other becomes `Other`.
    pub fn refuse(self, error: &io::Error) {
        let refusal = Refusal::from_error(error);
        let id = self.stream.id();
        self.stream
            .session()
            .with(|table| table.refuse(id, refusal));
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Serves the opening side at the other end of `io`, one session after the other, until `io` ends.
///
/// `handler` is called for every stream that the peer asks for, and its future runs as a task of
/// its own. When the peer begins a new session all streams of the old one fail with
/// `ConnectionReset`; the handlers notice and end by themselves.
///
/// Bytes that belong to no session are skipped, so the function may be called on a port that
/// still holds the remains of earlier connections, and again after it returned.
///
/// A peer that breaks the protocol loses its session and may begin a new one: stale bytes can look
/// the same.
///
/// # Errors
///
/// [`NetError::Link`] when `io` fails.
///
/// # Cancel safety
///
/// Dropping the future fails all streams and aborts the handlers that still run, as does its
/// return.
pub async fn serve<S, H, F>(io: S, config: ServeConfig, mut handler: H) -> Result<(), NetError>
where
    S: AsyncRead + AsyncWrite + Send,
    H: FnMut(Incoming) -> F + Send,
    F: Future<Output = ()> + Send + 'static,
{
    let mut link = Link::new(io);
    let mut handlers = JoinSet::new();
    // A peer that still talks to our predecessor learns that it is gone.
    link.output.replace(preamble);
    loop {
        let hello = match next_hello(&mut link).await {
            Ok(hello) => hello,
            Err(End::Io(source)) => return Err(NetError::Link { source }),
            Err(_) => return Ok(()),
        };
        let version = hello.choose_version();
        let nonce = hello.nonce;
        link.output
            .replace(|out| Answer { nonce, version }.encode(out));
        if version.is_none() {
            continue;
        }
        let table = Table::new(Role::Accepting, config.window, config.max_streams);
        let session = EndOnDrop(Session::new(table));
        let end = link
            .run(&session.0, None, |offer| {
                while handlers.try_join_next().is_some() {}
                let stream = MuxStream::new(Arc::clone(&session.0), offer.stream);
                let endpoint = offer.endpoint;
                handlers.spawn(handler(Incoming { endpoint, stream }));
            })
            .await;
        match end {
            End::Eof => return Ok(()),
            End::Io(source) => return Err(NetError::Link { source }),
            // Zeros: a hello is behind them.
            End::Restarted => link.output.replace(|_| {}),
            // Stale bytes can look like a peer that breaks the rules. The zeros make a live one
            // begin again at once.
            End::Garbled | End::Violation(_) | End::Silent(_) => link.output.replace(preamble),
        }
    }
}

/// Finishes what is queued while looking for a hello.
async fn next_hello<S: AsyncRead + AsyncWrite>(link: &mut Link<S>) -> Result<Hello, End> {
    let Link { input, output } = link;
    let write = async {
        match output.write_queued().await {
            Ok(()) => std::future::pending().await,
            Err(error) => End::Io(error),
        }
    };
    tokio::select! {
        hello = input.scan(find_hello) => hello,
        end = write => Err(end),
    }
}

/// A session whose streams fail when it goes out of scope, however that happens.
struct EndOnDrop(Arc<Session>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.with(Table::end);
    }
}
