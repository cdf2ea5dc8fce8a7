//! A virtio-serial port as a sequence of connections.
//!
//! A port is not a socket. When the host's side goes away, reads return 0 and poll reports a hang-up
//! for as long as it stays away, which makes readiness-driven code spin; when it comes back the same
//! descriptor goes on. So one thread reads and blocks, and after a hang-up waits for the *edge* of
//! the next event; another thread writes and blocks. Each stay of the host is one [`Connection`].
//!
//! Bytes that the host left unread, or that we had not written when it went away, are still in the
//! port at the next connection: the multiplexer's handshake skips them.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use super::pipe::Pipe;

/// What the driver takes at once (`port_fops_write` of the kernel's `virtio_console.c`).
const CHUNK: usize = 32 << 10;

/// The open port.
///
/// # Drop
///
/// The thread that reads stays until the host sends or leaves; the process is expected to end.
#[derive(Debug)]
pub struct Port {
    connections: mpsc::Receiver<Connection>,
    reader: Option<JoinHandle<io::Error>>,
}

impl Port {
    /// Opens a port's device; only one process at a time can.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while an older agent has it.
    pub fn open(device: &Path) -> io::Result<Self> {
        let input = File::options().read(true).write(true).open(device)?;
        let output = input.try_clone()?;
        Self::new(input, output)
    }

    /// A port that reads and writes these files, which must block.
    pub(super) fn new(input: File, output: File) -> io::Result<Self> {
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&edges, &input, epoll::EventData::new_u64(0), interest)?;
        let (sender, connections) = mpsc::channel(1);
        let mut reader = Reader {
            input,
            output,
            edges,
            sender,
            current: None,
            last_writer: None,
        };
        let thread = thread::Builder::new()
            .name("port-reader".into())
            .spawn(move || reader.run())?;
        Ok(Self {
            connections,
            reader: Some(thread),
        })
    }

    /// The next stay of the host.
    ///
    /// # Errors
    ///
    /// The port is gone.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        match self.connections.recv().await {
            Some(connection) => Ok(connection),
            // The reader drops its sender when it ends, so this does not block.
            None => Err(self
                .reader
                .take()
                .and_then(|thread| thread.join().ok())
                .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())),
        }
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

/// The thread that reads.
struct Reader {
    input: File,
    output: File,
    edges: std::os::fd::OwnedFd,
    sender: mpsc::Sender<Connection>,
    /// The stay that goes on; none between a hang-up and the host's return.
    current: Option<Stay>,
    last_writer: Option<JoinHandle<()>>,
}

/// A connection, seen from the port.
struct Stay {
    inward: Pipe,
    writer: JoinHandle<()>,
}

impl Reader {
    /// Runs until the port or the agent is gone.
    fn run(&mut self) -> io::Error {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let Err(error) = self.step(&mut buffer) {
                if let Some(stay) = self.current.take() {
                    stay.inward.finish();
                }
                return error;
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        // At once, not with the first byte: an agent that was restarted tells the host so.
        if self
            .current
            .as_ref()
            .is_none_or(|stay| stay.inward.is_abandoned())
            && self.is_connected()?
        {
            self.begin()?;
        }
        match self.input.read(buffer) {
            Ok(0) => {
                // Whatever is read from here on belongs to the next stay, even if the agent has not
                // dropped this one yet.
                if let Some(stay) = self.current.take() {
                    stay.inward.finish();
                    self.last_writer = Some(stay.writer);
                }
                self.wait_for_edge()
            }
            Ok(count) => {
                if let Some(stay) = &self.current
                    && stay.inward.write_blocking(&buffer[..count]).is_ok()
                {
                    return Ok(());
                }
                // The host came between the look and the read, or the agent gave the connection up.
                // In the second case these bytes belong to what was given up.
                if self.current.is_none() {
                    self.begin()?;
                    if let Some(stay) = &self.current {
                        let _ = stay.inward.write_blocking(&buffer[..count]);
                    }
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn is_connected(&self) -> io::Result<bool> {
        let mut descriptors = [PollFd::new(&self.input, PollFlags::IN)];
        poll(
            &mut descriptors,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )?;
        Ok(!descriptors[0].revents().contains(PollFlags::HUP))
    }

    fn wait_for_edge(&self) -> io::Result<()> {
        let mut events = Vec::with_capacity(1);
        match epoll::wait(
            &self.edges,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a stay when nothing of the last one is being written any more. That ends: the multiplexer
    /// drops its side when it sees the end of its input, and what the host's leaving blocked goes on now.
    fn begin(&mut self) -> io::Result<()> {
        let given_up = self.current.take().map(|stay| stay.writer);
        if let Some(writer) = given_up.or(self.last_writer.take()) {
            let _ = writer.join();
        }
        let (inward, outward) = (Pipe::default(), Pipe::default());
        let (mut output, from_agent) = (self.output.try_clone()?, outward.clone());
        let writer = thread::Builder::new()
            .name("port-writer".into())
            .spawn(move || {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let count = from_agent.read_blocking(&mut buffer);
                    if count == 0 || output.write_all(&buffer[..count]).is_err() {
                        from_agent.abandon();
                        return;
                    }
                }
            })?;
        self.current = Some(Stay {
            inward: inward.clone(),
            writer,
        });
        self.sender
            .blocking_send(Connection { inward, outward })
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// One stay of the host.
///
/// Reads end when the host leaves.
///
/// # Drop
///
/// Unwritten bytes are discarded. The next connection begins when the host comes again, or at once
/// if it is still there.
#[derive(Debug)]
pub struct Connection {
    inward: Pipe,
    outward: Pipe,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inward.abandon();
        self.outward.abandon();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let space = buffer.initialize_unfilled();
        if space.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.inward.poll_read(cx, space).map(|count| {
            buffer.advance(count);
            Ok(())
        })
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outward
            .poll_write(cx, bytes)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outward.finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
