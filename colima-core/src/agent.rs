//! What the host and the agent in the guest say to each other.
//!
//! The agent is reached as [`SERVICE`] over any transport. A conversation is one stream: the host
//! sends one [`Request`] as a line of JSON, the agent answers with lines of JSON, the last of which
//! ends the conversation. Bytes that do not fit JSON (standard input and output of a command) follow
//! the line that announces their length. Lines are at most [`LONGEST_LINE`] bytes.
//!
//! Versions: the agent accepts [`PROTOCOL_VERSION`] and the one before it, because after a resume the
//! agent in memory may be older than the program on the host.

use serde::{Deserialize, Serialize};

/// The endpoint name of the agent: [`crate::Endpoint::Service`].
pub const SERVICE: &str = "agent";

/// The version of this protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest line either side reads before it gives up, in bytes.
pub const LONGEST_LINE: usize = 1 << 20;

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Who are you? Answered by [`Reply::Hello`].
    Hello,
    /// Tell the stages of the boot as they are reached, from the beginning. Answered by any number
    /// of [`Reply::Stage`] and then [`Reply::Ready`] or [`Reply::Failed`].
    WaitReady,
    /// Run a command as root. `stdin_len` bytes of standard input follow the line. Answered by
    /// [`Reply::Exited`] with the output behind it; when the stream closes first the agent kills
    /// the command.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// Bytes of standard input that follow this line.
        stdin_len: u64,
    },
    /// Flush every file system. Answered by [`Reply::Done`].
    Sync,
    /// Set the clock. Answered by [`Reply::Done`].
    SetClock {
        /// Nanoseconds since the Unix epoch.
        unix_nanos: u64,
    },
    /// Power off in order. Answered by [`Reply::Done`] before it happens.
    PowerOff,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// The answer to [`Request::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`] of the agent.
        protocol: u32,
        /// Version of the agent's package.
        agent: String,
        /// The kernel's boot id: changes with every boot of the guest.
        boot_id: String,
    },
    /// A stage of the boot was reached.
    Stage {
        /// A short name: `agent`, `docker`.
        name: String,
        /// Milliseconds since the guest's kernel started.
        uptime_ms: u64,
    },
    /// Everything that was asked for runs.
    Ready {
        /// Versions by component name, such as `docker`.
        versions: std::collections::BTreeMap<String, String>,
    },
    /// The boot cannot become ready, or the request failed.
    Failed {
        /// What failed and why, in one sentence.
        reason: String,
        /// Lines that help a person: a unit's log, for instance.
        detail: Vec<String>,
    },
    /// A command ended; standard output and error follow the line, in this order.
    Exited {
        /// See [`crate::Output::exit_code`].
        exit_code: i32,
        /// Bytes of standard output that follow.
        stdout_len: u64,
        /// Bytes of standard error that follow those.
        stderr_len: u64,
    },
    /// Done as asked.
    Done,
}
