//! When a machine counts as ready, and why it did not become so.

use std::{error::Error as StdError, fmt, fs, path::Path, pin::Pin, time::Duration};

use super::{console, handle::Exit};

/// An error of the caller's own.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A future that decides readiness.
pub type BoxFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// When a machine counts as ready.
#[non_exhaustive]
pub enum Readiness {
    /// The guest has printed this text on its console.
    ConsoleLine(String),
    /// A byte came over a stream port. The port's connection is used up by the test.
    Port {
        /// Number of the port, from 0.
        port: u8,
        /// Which byte counts.
        expect: FirstByte,
    },
    /// Whatever the caller finds out.
    Custom {
        /// What is waited for, for the error: `the agent says hello`.
        step: String,
        /// Ends when the machine is ready or cannot become so.
        future: BoxFuture,
    },
}

/// Which first byte of a stream port counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// Any at all.
    Any,
    /// This one; another is an error.
    Exactly(u8),
}

impl Readiness {
    /// Waits for the outcome of `future`, named `step` in errors.
    pub fn custom<F>(step: impl Into<String>, future: F) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::Custom {
            step: step.into(),
            future: Box::pin(future),
        }
    }

    /// What is waited for.
    pub(super) fn step(&self) -> String {
        match self {
            Self::ConsoleLine(text) => format!("waiting for {text:?} on the console"),
            Self::Port { port, .. } => format!("waiting for stream port {port}"),
            Self::Custom { step, .. } => format!("waiting until {step}"),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.step()).finish()
    }
}

/// Why a wait for readiness ended without it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The deadline passed.
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
    /// QEMU ended.
    Exited(Exit),
    /// The guest's kernel panicked.
    Panicked {
        /// The kernel's line, where it printed one.
        line: Option<String>,
    },
    /// The port answered another byte.
    WrongByte {
        /// The byte that came.
        found: u8,
    },
    /// The port or the console closed.
    Closed,
    /// The caller's own future failed.
    Custom(BoxError),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { limit } => write!(f, "not within {limit:?}"),
            Self::Exited(exit) => write!(f, "{exit}"),
            Self::Panicked { line: Some(line) } => write!(f, "the guest's kernel panicked: {line}"),
            Self::Panicked { line: None } => f.write_str("the guest's kernel panicked"),
            Self::WrongByte { found } => write!(f, "the guest answered with byte {found:#04x}"),
            Self::Closed => f.write_str("the connection closed"),
            Self::Custom(error) => write!(f, "{error}"),
        }
    }
}

/// The last lines of the guest's console and of QEMU's own output, escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// From the console, oldest first; at most 20.
    pub console: Vec<String>,
    /// From `qemu.log`, oldest first; at most 10.
    pub qemu: Vec<String>,
}

const CONSOLE_LINES: usize = 20;
const QEMU_LINES: usize = 10;

impl Evidence {
    pub(super) fn gather(console: Option<&console::Console>, qemu_log: &Path) -> Self {
        Self {
            console: console.map_or_else(Vec::new, |console| console.tail(CONSOLE_LINES)),
            qemu: last_lines_of(qemu_log, QEMU_LINES),
        }
    }
}

/// Prints nothing when there is nothing; otherwise starts on a line of its own.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, lines) in [("console", &self.console), ("QEMU", &self.qemu)] {
            for line in lines {
                write!(f, "\n  {title}: {line}")?;
            }
        }
        Ok(())
    }
}

/// The end of a log file; unreadable means empty.
fn last_lines_of(path: &Path, count: usize) -> Vec<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};

    const WINDOW: u64 = 16 * 1024;
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().map_or_else(|_| Vec::new(), |bytes| console::last_lines(&bytes, count))
}
