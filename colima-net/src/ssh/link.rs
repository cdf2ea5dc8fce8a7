//! The byte stream below a session, behind a socket pair.
//!
//! libssh2 does not survive a packet that was sent in part when anything else is to be sent next: most of
//! its packets are on the stack of the call that failed, and only a call with the very same address may
//! finish them (transport_send_existing() in its transport.c). So it never sees such a socket. It talks
//! to one end of a unix socket pair, which takes a packet whole whenever it is writable at all: the
//! kernel calls a unix socket writable while three quarters of its buffer are free (unix_writable() in
//! net/unix/af_unix.c), and no packet is as large. A task of the caller's runtime carries the bytes on, so
//! any byte stream will do, and dropping the task ends whatever libssh2 is waiting for.

use std::{io, os::unix::net::UnixStream as StdUnixStream, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf},
    net::UnixStream,
    task::AbortHandle,
};

/// Bytes that the socket pair holds, each way.
const PAIR_BUFFER: usize = 256 * 1024;

/// Bytes that the task copies at once.
const COPY_BUFFER: usize = 64 * 1024;

/// How long the end of a session may take to be told.
const GOODBYE: Duration = Duration::from_secs(1);

/// Starts the task that carries `io`; returns libssh2's end and what stops the task.
pub(super) fn carry<S>(io: S) -> io::Result<(StdUnixStream, LinkTask)>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (theirs, ours) = StdUnixStream::pair()?;
    for end in [&theirs, &ours] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, PAIR_BUFFER)?;
    }
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let task = tokio::spawn(copy(io, ours));
    Ok((theirs, LinkTask(task.abort_handle())))
}

async fn copy<S: AsyncRead + AsyncWrite + Send>(io: S, pair: UnixStream) {
    let (from_peer, mut to_peer) = tokio::io::split(io);
    let (from_session, mut to_session) = pair.into_split();
    let outward = async {
        let mut from = BufReader::with_capacity(COPY_BUFFER, from_session);
        if copy_buf(&mut from, &mut to_peer).await.is_ok() {
            let _ = tokio::time::timeout(GOODBYE, to_peer.shutdown()).await;
        }
    };
    let inward = async {
        let mut from = BufReader::with_capacity(COPY_BUFFER, from_peer);
        let _ = copy_buf(&mut from, &mut to_session).await;
    };
    // A session has no half-close: when either direction ends, all of it does. What has arrived stays
    // readable for the session.
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}

/// The task that carries the bytes of a session.
///
/// # Drop
///
/// Stops the task; the session finds that its link has ended.
#[derive(Debug)]
pub(super) struct LinkTask(AbortHandle);

impl LinkTask {
    /// Stops the task when it is dropped, unless it is defused before.
    pub(super) fn fuse(&self) -> Fuse {
        Fuse(Some(self.0.clone()))
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See [`LinkTask::fuse`].
#[derive(Debug)]
pub(super) struct Fuse(Option<AbortHandle>);

impl Fuse {
    pub(super) fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
