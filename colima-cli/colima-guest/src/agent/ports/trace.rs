//! Tells when some TCP socket begins or ceases to listen: the trace event `sock:inet_sock_set_state`.
//!
//! The event comes from every network namespace and, for a socket that begins to listen, a moment before
//! the socket can be found. So it is an edge and nothing more. It is read from an instance of tracefs of
//! our own (Documentation/trace/ftrace.rst), so that nobody's tracing is disturbed.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    mount::MountFlags,
    pipe::{PipeFlags, pipe_with},
};
use tokio::sync::mpsc;

/// Where tracefs belongs.
const TRACEFS: &str = "/sys/kernel/tracing";

/// `TCP_LISTEN` of `include/net/tcp_states.h` is 10.
const FILTER: &str = "newstate == 10 || oldstate == 10";

/// The edges, as they happen.
///
/// # Drop
///
/// Dropping it removes the instance.
#[derive(Debug)]
pub(super) struct Trace {
    instance: PathBuf,
    edges: mpsc::Receiver<()>,
    /// Why the reader ended, if it did.
    losses: mpsc::Receiver<io::Error>,
    reader: Option<Reader>,
}

/// The thread that reads; it ends when `stop` is closed.
#[derive(Debug)]
struct Reader {
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Trace {
    /// Begins, and mounts tracefs if nobody has.
    ///
    /// # Errors
    ///
    /// As the system does: no tracefs, no such event, no permission.
    pub(super) fn begin() -> io::Result<Self> {
        let tracefs = Path::new(TRACEFS);
        if !tracefs.join("instances").exists() {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            rustix::mount::mount("tracefs", tracefs, "tracefs", flags, None)?;
        }
        Self::in_tracefs(tracefs, "colima")
    }

    fn in_tracefs(tracefs: &Path, name: &str) -> io::Result<Self> {
        let instance = tracefs.join("instances").join(name);
        match fs::create_dir(&instance) {
            // Left by an agent that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let (lost, losses) = mpsc::channel(1);
        let (edge, edges) = mpsc::channel(1);
        let mut trace = Self {
            instance,
            edges,
            losses,
            reader: None,
        };
        let event = trace.instance.join("events/sock/inet_sock_set_state");
        fs::write(trace.instance.join("buffer_size_kb"), "16")?;
        // Wake the reader for the first byte; by default half of the buffer has to be full.
        fs::write(trace.instance.join("buffer_percent"), "0")?;
        fs::write(event.join("filter"), FILTER)?;
        let pipe = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(trace.instance.join("trace_pipe"))?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("port-trace".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = read(pipe, &stopped, &edge) {
                let _ = lost.try_send(error);
            }
        })?;
        trace.reader = Some(Reader { stop, thread });
        fs::write(event.join("enable"), "1")?;
        Ok(trace)
    }

    /// Waits for an edge, and takes all that are there by then as one.
    ///
    /// # Errors
    ///
    /// The trace is lost.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn edge(&mut self) -> io::Result<()> {
        match self.edges.recv().await {
            Some(()) => Ok(()),
            // The thread has ended, so this does.
            None => {
                Err((self.losses.recv().await)
                    .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }
}

/// Passes on edges until told to stop. Waiting is on a thread, because tokio waits for descriptors that
/// report every change, and tracefs promises that to poll(2) only.
fn read(mut pipe: File, stopped: &OwnedFd, edge: &mpsc::Sender<()>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let mut descriptors = [
            PollFd::new(&pipe, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut descriptors, None))?;
        if !descriptors[1].revents().is_empty() {
            return Ok(());
        }
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A full channel holds an edge that nobody has looked at yet.
                Ok(_) => drop(edge.try_send(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(Reader { stop, thread }) = self.reader.take() {
            drop(stop);
            // It has the instance open until it ends.
            let _ = thread.join();
        }
        // Removing it ends its events.
        let _ = fs::remove_dir(&self.instance);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use super::*;

    /// tracefs in a directory of its own: what is mounted on this machine stays as it is.
    struct Tracefs(tempfile::TempDir);

    impl Drop for Tracefs {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    #[tokio::test]
    async fn listening_and_closing_are_edges() {
        let tracefs = Tracefs(tempfile::tempdir().unwrap());
        let path = tracefs.0.path();
        let mounted = rustix::mount::mount("tracefs", path, "tracefs", MountFlags::empty(), None);
        let name = format!("colima-test-{}", std::process::id());
        let begun = mounted
            .map_err(io::Error::from)
            .and_then(|()| Trace::in_tracefs(path, &name));
        let mut trace = match begun {
            Ok(trace) => trace,
            Err(error) => {
                let _ = writeln!(
                    io::stdout(),
                    "skipped: listening_and_closing_are_edges: no tracefs: {error}"
                );
                return;
            }
        };
        let limit = Duration::from_secs(60);
        for _ in 0..3 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            tokio::time::timeout(limit, trace.edge())
                .await
                .expect("an edge for listen")
                .unwrap();
            drop(listener);
            tokio::time::timeout(limit, trace.edge())
                .await
                .expect("an edge for close")
                .unwrap();
        }
        let instance = trace.instance.clone();
        assert!(instance.exists());
        drop(trace);
        assert!(!instance.exists());
    }
}
