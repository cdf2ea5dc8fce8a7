//! QEMU's control channel: a client of the QEMU Machine Protocol.
//!
//! The protocol (docs/interop/qmp-spec.rst of QEMU) is lines of JSON: a greeting, commands with ids,
//! replies with the same ids in any order, and events at any time. The client trusts QEMU to answer
//! and to nothing more: what is no JSON, too long, or answers no question is counted
//! ([`Client::noise`]) and otherwise ignored, and every command has a limit in time.
//!
//! Three layers: [`Decoder`] cuts bytes into lines, [`Message::parse`] gives a line its meaning (both
//! pure), and [`Client`] moves bytes over a unix socket.

mod client;
mod decoder;
mod message;

use std::{io, time::Duration};

pub(super) use client::EVENTS_KEPT;
pub use client::{Client, Noise};
pub use decoder::{Decoder, LONGEST_LINE, Line};
pub use message::{
    Command, Event, Greeting, Message, MigrationCapability, MigrationInfo, MigrationStatus, Origin,
    Room, RunState, ShutdownReason, StatusInfo,
};

/// Why a command on the control channel failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "the module qualifies it: `qmp::Error`"
)]
pub enum Error {
    /// The socket could not be connected to.
    #[error("cannot connect to the control socket")]
    Connect {
        /// What the system said.
        source: std::sync::Arc<io::Error>,
    },
    /// No answer came in time.
    #[error("QEMU did not answer {command} within {limit:?}")]
    TimedOut {
        /// What was asked.
        command: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// QEMU closed the channel, which it does when it ends.
    #[error("QEMU closed the control channel before it answered {command}")]
    Closed {
        /// What was asked.
        command: &'static str,
    },
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {description} ({class})")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// QEMU's class of error, such as `CommandNotFound`.
        class: String,
        /// QEMU's sentence.
        description: String,
    },
    /// QEMU answered something of another shape than documented.
    #[error("QEMU answered {command} in a form that cannot be read: {reason}")]
    Unreadable {
        /// What was asked.
        command: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
}
