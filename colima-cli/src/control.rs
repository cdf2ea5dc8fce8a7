//! What the command line and a profile's daemon say to each other.
//!
//! One request per connection to the daemon's unix socket, a line of JSON; the daemon answers with
//! lines of JSON, the last of which ends the conversation. A [`Request::Withdraw`] takes the request back, and so
//! does closing the connection: a start that nobody waits for any more is undone.

use std::{io, time::Duration};

use colima_core::{Bytes, boot::BootConfig};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    command_error::CommandError,
    instance::{Happening, InstanceSpec, Probe},
    mounts::Share,
};

pub mod client;
mod probe;

/// Version of this protocol. A daemon of another version is replaced by one of ours: it holds
/// nothing that its successor does not find again.
pub const VERSION: u32 = 4;

const LONGEST_LINE: u64 = 4 << 20;

/// What the command line asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Which version are you? Answered by [`Reply::Hello`].
    Hello,
    /// Start the instance. Answered by [`Reply::Stage`]s and [`Reply::Started`].
    Start {
        /// What to start.
        spec: Box<InstanceSpec>,
        /// What the guest is told.
        boot: Box<BootConfig>,
        /// What becomes of a machine that is suspended.
        suspended: WhenSuspended,
    },
    /// Stop it. Answered by [`Reply::Stage`]s and [`Reply::Stopped`].
    Stop {
        /// How patiently.
        manner: StopManner,
    },
    /// Probe it. Answered by [`Reply::Status`].
    Status,
    /// Share one more directory while it runs. Answered by [`Reply::Mounted`].
    Mount {
        /// What and where; its port is the daemon's to choose.
        share: Share,
    },
    /// Take a shared directory away. Answered by [`Reply::Unmounted`].
    Unmount {
        /// Its path on the host or in the guest.
        path: String,
    },
    /// Tell when it does not run any more, whoever ends it. Answered by [`Reply::Stopped`] then.
    AwaitEnd,
    /// Tell the state, now and whenever it changes. Answered by [`Reply::State`]s and
    /// [`Reply::Happened`]s, without end.
    Events,
    /// Follows another request on its connection: that one is not wanted any more.
    Withdraw,
    /// Leave the machine running and exit. Answered by [`Reply::Retired`].
    Retire,
}

/// What a start makes of a machine that is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSuspended {
    /// It goes on; with other settings it is shut down in order and booted.
    Resume,
    /// It goes on only to be shut down in order, and is booted.
    ShutDown,
    /// Its memory is dropped, and it is booted.
    Drop,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopManner {
    /// Keep its memory in a file. What cannot be suspended is shut down.
    Suspend,
    /// Ask the guest and give it time.
    Orderly,
    /// End the machine now. What the guest had not written to its disks is lost.
    Forced,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// See [`VERSION`].
    Hello {
        /// Protocol version of the daemon.
        version: u32,
        /// Its process.
        pid: u32,
    },
    /// A step began, went on, or ended.
    Stage(Stage),
    /// The instance runs.
    Started(Started),
    /// The instance does not run.
    Stopped(Stopped),
    /// What the probes found.
    Status(Box<Probe>),
    /// The directory is shared.
    Mounted(Share),
    /// The directory is not shared any more.
    Unmounted(Share),
    /// What the instance is doing.
    State {
        /// Now.
        state: LifeState,
    },
    /// Something happened to the machine.
    Happened {
        /// What.
        happening: Happening,
    },
    /// The daemon is about to exit; the machine is not.
    Retired,
    /// The request failed.
    Failed(CommandError),
}

/// What an instance is doing, as far as its daemon knows without asking the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeState {
    /// On its way up.
    Starting,
    /// The machine runs.
    Running,
    /// On its way down.
    Stopping,
    /// Nothing runs.
    Stopped,
    /// Nothing runs, and the next start goes on from where it was stopped.
    Suspended,
    /// A machine runs that cannot be used.
    Broken,
}

/// Progress of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// A step began; the one before it ended well.
    Begin {
        /// Short text for people: `booting`.
        name: String,
    },
    /// News about the step that is under way.
    Detail {
        /// Short text for people: `42 %`.
        text: String,
    },
    /// Something the user should know, whatever becomes of the request.
    Note {
        /// A sentence.
        text: String,
    },
}

/// Whether a start did anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "started", rename_all = "snake_case")]
pub enum Started {
    /// The instance was started.
    Now {
        /// Time from request to readiness.
        elapsed: Duration,
    },
    /// It was suspended and goes on.
    Resumed {
        /// Time from request to readiness.
        elapsed: Duration,
    },
    /// It was running; `differing` names the settings that a restart would change.
    Before {
        /// Names of settings: `cpus`, `memory`.
        differing: Vec<String>,
    },
}

/// Whether and how a stop ended the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stopped", rename_all = "snake_case")]
pub enum Stopped {
    /// The machine ended.
    Now {
        /// What ended it, for people: `the guest powered off`.
        how: String,
        /// Time it took.
        elapsed: Duration,
    },
    /// The machine's memory is kept.
    Suspended {
        /// What that takes on disk.
        size: Bytes,
        /// Time it took.
        elapsed: Duration,
    },
    /// It was not running.
    Before,
}

/// Writes `message` as one line.
///
/// # Errors
///
/// Fails as the writer does.
pub async fn send<W, M>(writer: &mut W, message: &M) -> io::Result<()>
where
    W: AsyncWrite + Unpin + Send,
    M: Serialize + Sync,
{
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

/// Reads one line as a message; `None` at the end of the stream.
///
/// # Errors
///
/// `InvalidData` for a line that is too long, cut off, or no message.
///
/// # Cancel safety
///
/// Not cancel safe: a partly read line is lost.
pub async fn receive<R, M>(reader: &mut R) -> io::Result<Option<M>>
where
    R: AsyncBufRead + Unpin + Send,
    M: DeserializeOwned,
{
    let mut line = Vec::new();
    reader
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is cut off or too long",
        ));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
