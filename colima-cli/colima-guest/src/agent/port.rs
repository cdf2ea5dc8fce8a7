//! A virtio-serial port as a sequence of connections.
//!
//! A port is not a socket. When the host's side goes away, reads return 0 and poll reports a hang-up for
//! as long as it stays away, which makes readiness-driven code spin; when it comes back the same
//! descriptor goes on. So what is waited for are changes ([`Edge`]). Each stay of the host is one
//! [`Connection`].
//!
//! Reading and writing happens on the thread that serves the streams. A thread of its own for each, as there
//! was once, wakes another processor for every 4 KiB, which costs an emulated guest five times the work itself;
//! and while the one thread is busy, the port gathers what it reads next.
//!
//! Bytes that the host left unread are still in the port at the next connection: the multiplexer's
//! handshake skips them.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll::EventFlags, poll},
    fs::OFlags,
    io::Errno,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

use super::edge::Edge;

/// What the host sends at once: a read gives no more than is left of one such piece
/// (`fill_readbuf` of the kernel's `virtio_console.c`), but there can be many reads in one system call.
const PIECE: usize = 4 << 10;

/// Pieces that one system call reads at most.
const PIECES: usize = 32;

/// The open port.
///
/// # Drop
///
/// It is closed with its last connection.
#[derive(Debug)]
pub struct Port {
    device: Arc<Device>,
}

#[derive(Debug)]
struct Device {
    input: File,
    output: File,
    /// Something can be read, or the host came or went.
    changed: Edge,
    writable: Edge,
    /// The host was seen leaving: what is so now is old, the next change tells of its return.
    left: AtomicBool,
}

impl Port {
    /// Opens a port's device; only one process at a time can.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while an older agent has it.
    ///
    /// # Panics
    ///
    /// It is called outside of a tokio runtime.
    pub fn open(device: &Path) -> io::Result<Self> {
        Self::of(File::options().read(true).write(true).open(device)?)
    }

    /// A port that somebody else has opened.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    ///
    /// # Panics
    ///
    /// It is called outside of a tokio runtime.
    pub fn of(device: File) -> io::Result<Self> {
        let output = device.try_clone()?;
        Self::new(device, output)
    }

    /// A port that reads and writes these files.
    pub(super) fn new(input: File, output: File) -> io::Result<Self> {
        for file in [&input, &output] {
            let flags = rustix::fs::fcntl_getfl(file)?;
            rustix::fs::fcntl_setfl(file, flags | OFlags::NONBLOCK)?;
        }
        let device = Arc::new(Device {
            changed: Edge::every(&input, EventFlags::IN)?,
            writable: Edge::once(&output, EventFlags::OUT)?,
            input,
            output,
            left: AtomicBool::new(false),
        });
        Ok(Self { device })
    }

    /// The next stay of the host; the one that goes on where a connection was given up.
    ///
    /// # Errors
    ///
    /// The port is gone.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        std::future::poll_fn(|cx| {
            // At once, not with the first byte: an agent that was restarted tells the host so.
            while self.device.left.load(Ordering::Relaxed) || !self.device.has_host()? {
                ready!(self.device.changed.poll(cx))?;
                self.device.left.store(false, Ordering::Relaxed);
            }
            Poll::Ready(Ok(()))
        })
        .await
        .map(|()| Connection {
            device: Arc::clone(&self.device),
            ended: false,
        })
    }
}

impl Device {
    fn has_host(&self) -> io::Result<bool> {
        const AT_ONCE: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut descriptors = [PollFd::new(&self.input, PollFlags::IN)];
        poll(&mut descriptors, Some(&AT_ONCE))?;
        Ok(!descriptors[0].revents().contains(PollFlags::HUP))
    }
}

/// The device of the port that the host named `name`, below the kernel's list of ports.
pub(super) fn device_of(ports: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(ports).ok()?.flatten();
    let port = entries
        .filter(|entry| {
            fs::read_to_string(entry.path().join("name"))
                .is_ok_and(|found| found.trim_end() == name)
        })
        .map(|entry| entry.file_name())
        .next()?;
    Some(Path::new("/dev").join(port))
}

/// One stay of the host.
///
/// Reads end when the host leaves; writes fail from then on. One task at a time reads, and one writes.
///
/// # Drop
///
/// The next connection begins when the host comes again, or at once if it is still there.
#[derive(Debug)]
pub struct Connection {
    device: Arc<Device>,
    /// What is read from here on belongs to the next stay.
    ended: bool,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let space = buffer.initialize_unfilled();
        if space.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        // A host that sends as fast as it is read must not keep the streams from being served.
        let turn = ready!(coop::poll_proceed(cx));
        loop {
            let mut pieces: Vec<IoSliceMut<'_>> = space
                .chunks_mut(PIECE)
                .take(PIECES)
                .map(IoSliceMut::new)
                .collect();
            match rustix::io::readv(&self.device.input, &mut pieces) {
                Ok(0) => {
                    self.ended = true;
                    self.device.left.store(true, Ordering::Relaxed);
                    turn.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Ok(count) => {
                    buffer.advance(count);
                    turn.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready!(self.device.changed.poll(cx))?,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            match rustix::io::write(&self.device.output, bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                // A host that is away takes nothing, and its absence would be the event.
                Err(Errno::AGAIN) if !self.device.has_host()? => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Err(Errno::AGAIN) => {
                    self.device
                        .writable
                        .arm(&self.device.output, EventFlags::OUT)?;
                    ready!(self.device.writable.poll(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The port has no end of a direction; the host sees one when the port is closed.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
