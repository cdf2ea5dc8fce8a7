//! Streams that are cut after a number of bytes, and a dial that gives such.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use colima_mount::{Access, Root, Server};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// How far a stream goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    /// To this byte of what the client sends.
    Sent(usize),
    /// To this byte of what it gets.
    Got(usize),
    /// On and on.
    Endless,
}

/// The client's end of a stream that is cut, for both ends, where its reach says.
pub(crate) struct Cut {
    inner: Option<DuplexStream>,
    reach: Reach,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = match self.reach {
            Reach::Got(0) => {
                self.inner = None;
                0
            }
            Reach::Got(left) => left.min(buffer.remaining()),
            _ => buffer.remaining(),
        };
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Ok(()));
        };
        let mut part = buffer.take(room);
        let result = pin!(inner).poll_read(context, &mut part);
        let filled = part.filled().to_vec();
        let got = filled.len();
        buffer.put_slice(&filled);
        if let Reach::Got(left) = &mut self.reach {
            *left -= got;
        }
        result
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = match self.reach {
            Reach::Sent(0) => {
                self.inner = None;
                0
            }
            Reach::Sent(left) => left.min(bytes.len()),
            _ => bytes.len(),
        };
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let result = pin!(inner).poll_write(context, &bytes[..room]);
        if let (Poll::Ready(Ok(sent)), Reach::Sent(left)) = (&result, &mut self.reach) {
            *left -= sent;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => pin!(inner).poll_flush(context),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

/// A dial of one server whose streams have these reaches, one after another, and no end when there are no more.
pub(crate) fn dial(
    directory: &Path,
    reaches: impl IntoIterator<Item = Reach>,
) -> impl FnMut() -> Pin<Box<dyn Future<Output = io::Result<Cut>> + Send>> + Send + 'static {
    let server = Server::new(Root::open(directory).unwrap(), Access::ReadWrite);
    let reaches = Arc::new(Mutex::new(reaches.into_iter().collect::<VecDeque<_>>()));
    move || {
        let (here, there) = tokio::io::duplex(1 << 16);
        let server = server.clone();
        tokio::spawn(async move {
            // Most of these are broken, which is what they are for.
            let _ = server.serve(there).await;
        });
        let reach = reaches.lock().unwrap().pop_front();
        let cut = Cut {
            inner: Some(here),
            reach: reach.unwrap_or(Reach::Endless),
        };
        Box::pin(async move { Ok(cut) })
    }
}
