//! `colima mount-worker`: serves one share, and nothing else.

use std::{io, os::unix::net::UnixStream, time::Duration};

use colima_core::{
    Endpoint,
    mounts::{MountAccess, SERVICE},
};
use colima_mount::{Access, Root, Server};
use colima_net::{
    NetError,
    mux::{Mux, MuxConfig},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::handover::Handover;

/// What a worker tells its daemon: a guest is connected.
pub(super) const CONNECTED: u8 = b'+';
/// And that it is not any more.
pub(super) const ALONE: u8 = b'-';

/// Bytes that a guest may send of one stream before they are read.
const WINDOW: u32 = 4 << 20;

/// An emulated guest may be busy for long, and a stream that is lost costs more than one that is slow.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// The link is waited for as long as the machine lives: a guest may boot, or sleep.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A pause after a guest that is there has refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Serves until the daemon or the machine is gone.
///
/// # Errors
///
/// The daemon handed nothing over, or the link to the guest broke: the daemon has a new one.
pub(crate) fn run() -> io::Result<()> {
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let Handover {
        root,
        stream,
        access,
    } = Handover::receive(&control)?;
    let root = Root::from_fd(root)?;
    // The second wall belongs here: what follows needs the directory, the two sockets, threads and memory, and
    // so far there is one thread.
    let server = Server::new(
        root,
        match access {
            MountAccess::ReadOnly => Access::ReadOnly,
            MountAccess::ReadWrite => Access::ReadWrite,
        },
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let (mut end, reports) = asynchronous(control)?.into_split();
        let stream = asynchronous(UnixStream::from(stream))?;
        let mut nothing = [0];
        tokio::select! {
            // The daemon says nothing more; it ends.
            _ = end.read(&mut nothing) => Ok(()),
            broken = serve(&server, stream, reports) => Err(broken),
        }
    });
    // What blocks on a slow disk is not worth waiting for.
    runtime.shutdown_background();
    served
}

fn asynchronous(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Serves one stream of the guest after the other, until the link breaks.
async fn serve(
    server: &Server,
    stream: tokio::net::UnixStream,
    mut reports: tokio::net::unix::OwnedWriteHalf,
) -> io::Error {
    let config = MuxConfig {
        window: WINDOW,
        handshake_timeout: FOR_EVER,
        dead_after: DEAD_AFTER,
        ..MuxConfig::default()
    };
    let mux = Mux::over(stream, config);
    loop {
        let stream = match mux.open(&Endpoint::Service(SERVICE.to_owned())).await {
            Ok(stream) => stream,
            Err(NetError::Closed) => return reason(&mux),
            Err(NetError::Refused { .. }) => {
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
            // The guest is not there yet.
            Err(_) => continue,
        };
        // A daemon that does not listen is leaving.
        let _ = reports.write_all(&[CONNECTED]).await;
        if let Err(error) = server.serve(stream).await {
            crate::log_line(&format!("a mount's stream ended: {error}"));
        }
        let _ = reports.write_all(&[ALONE]).await;
    }
}

fn reason(mux: &Mux) -> io::Error {
    match &*mux.state().borrow() {
        colima_net::mux::LinkState::Closed { reason } => io::Error::other(reason.to_string()),
        _ => io::ErrorKind::BrokenPipe.into(),
    }
}
