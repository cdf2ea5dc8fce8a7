//! The serial console: what the guest prints before anything better works.
//!
//! Everything the guest prints is kept in three bounded places: a ring in memory, a log file with one
//! predecessor, and whatever a listener has not read yet, which is the ring again. A guest that prints
//! for ever fills nothing.
//!
//! The bytes are the guest's and not to be trusted with a terminal; [`escape`] makes text of them.

mod log_file;
mod ring;
mod text;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{io::AsyncReadExt as _, net::UnixStream, sync::watch, task::AbortHandle};

use log_file::LogFile;
use ring::Ring;
pub use text::escape;
pub(super) use text::last_lines;

/// Bytes of console output that are kept in memory.
pub const RING_SIZE: usize = 256 * 1024;

/// Bytes after which `console.log` becomes `console.log.1` and starts anew.
pub const LOG_SEGMENT: u64 = 512 * 1024;

/// The console of a machine. Clones share it.
///
/// It reads for as long as a clone lives; with the last one the connection closes, and what the
/// guest prints from then on is lost.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    _reader: Arc<Reader>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
}

/// Changes with every piece that was read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    closed: bool,
}

#[derive(Debug)]
struct Reader(AbortHandle);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Console {
    /// Starts to read a console from `stream`, with a copy in the file `log`.
    ///
    /// Needs a tokio runtime. A log that cannot be written is given up silently: a full disk must not
    /// stop the machine.
    #[must_use]
    pub fn follow(stream: UnixStream, log: &Path) -> Self {
        let shared = Arc::new(Shared {
            ring: Mutex::new(Ring::new(RING_SIZE)),
        });
        let (sender, progress) = watch::channel(Progress::default());
        let log = LogFile::new(log, LOG_SEGMENT);
        let reader = tokio::spawn(read_all(Arc::clone(&shared), stream, log, sender));
        Self {
            shared,
            progress,
            _reader: Arc::new(Reader(reader.abort_handle())),
        }
    }

    /// The last `count` lines, escaped, without empty ones.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<String> {
        let bytes = self.shared.ring().read_from(0).1;
        last_lines(&bytes, count)
    }

    /// Lines from the oldest that is kept.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines {
            console: self.clone(),
            position: 0,
        }
    }

    /// Waits until `text` was printed, be it before the call or after, with or without a line end.
    ///
    /// Returns `false` when the console closed first.
    ///
    /// # Cancel safety
    ///
    /// An abandoned wait can be repeated.
    pub async fn printed(&self, text: &str) -> bool {
        let needle = text.as_bytes();
        let mut progress = self.progress.clone();
        let mut position = 0;
        loop {
            let closed = progress.borrow_and_update().closed;
            let (start, bytes) = self.shared.ring().read_from(position);
            if needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle) {
                return true;
            }
            // The text may have begun at the end of what is there.
            let end = start + bytes.len() as u64;
            position = start.max(end.saturating_sub(needle.len() as u64 - 1));
            if closed || progress.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits until the other side has closed the console and everything it printed is kept.
    ///
    /// # Cancel safety
    ///
    /// An abandoned wait can be repeated.
    pub async fn closed(&self) {
        let mut progress = self.progress.clone();
        let _ = progress.wait_for(|progress| progress.closed).await;
    }
}

/// Complete lines of a console, one after the other.
#[derive(Debug)]
pub struct Lines {
    console: Console,
    position: u64,
}

impl Lines {
    /// The next line, escaped and without its end; `None` when the console is closed and everything
    /// was handed out. A reader slower than the guest by more than [`RING_SIZE`] misses lines.
    ///
    /// # Cancel safety
    ///
    /// No line is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<String> {
        let mut progress = self.console.progress.clone();
        loop {
            let closed = progress.borrow_and_update().closed;
            let (start, bytes) = self.console.shared.ring().read_from(self.position);
            let end = bytes.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                self.position = start + end as u64 + 1;
                return Some(escape(&bytes[..end]));
            }
            if closed {
                self.position = start + bytes.len() as u64;
                return (!bytes.is_empty()).then(|| escape(&bytes));
            }
            // An error means that the reader is gone without a word: its runtime was shut down.
            if progress.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_all(
    shared: Arc<Shared>,
    mut stream: UnixStream,
    mut log: LogFile,
    progress: watch::Sender<Progress>,
) {
    let mut buffer = vec![0; 16 * 1024];
    // An error of the stream means what its end means: nothing more will come.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let bytes = &buffer[..length];
        shared.ring().write(bytes);
        log.write(bytes);
        progress.send_modify(|_| ());
    }
    progress.send_modify(|progress| progress.closed = true);
}
