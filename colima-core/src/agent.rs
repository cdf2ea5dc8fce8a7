//! What the host and the agent in the guest say to each other.
//!
//! The agent is reached as [`SERVICE`] over any transport. A conversation is one stream: the host
//! sends one [`Request`] as a line of JSON, the agent answers with lines of JSON, the last of which
//! ends the conversation. Bytes that do not fit JSON (standard input and output of a command) follow
//! the line that announces their length. Lines are at most [`LONGEST_LINE`] bytes.
//!
//! One request has a conversation that goes on: [`Request::WatchPorts`]. The host may follow it with
//! any number of [`Request::DrainPorts`] on the same stream.
//!
//! Versions: the agent accepts [`PROTOCOL_VERSION`] and the one before it, because after a resume the
//! agent in memory may be older than the program on the host. An older agent answers a request that it
//! does not know with [`Reply::Failed`]. Version 2 added the two requests about ports, version 3 the three about
//! mounts, version 4 [`Request::Vitals`].

use serde::{Deserialize, Serialize};

use crate::{
    Bytes,
    mounts::{GuestMount, MountState},
    ports::GuestPort,
};

/// The endpoint name of the agent: [`crate::Endpoint::Service`].
pub const SERVICE: &str = "agent";

/// The version of this protocol.
pub const PROTOCOL_VERSION: u32 = 4;

/// The longest line either side reads before it gives up, in bytes.
pub const LONGEST_LINE: usize = 1 << 20;

/// The most ports that an agent tells of; what is beyond is left out.
pub const MOST_PORTS: usize = 2048;

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
    /// Tell which ports are served, now and as that changes, until the stream closes. Answered by
    /// [`Reply::Ports`] once and any number of [`Reply::PortsChanged`].
    WatchPorts,
    /// Follows [`Request::WatchPorts`] on its stream: look now, tell what changed, and then say so with
    /// [`Reply::PortsDrained`].
    DrainPorts {
        /// Comes back with the answer.
        token: u64,
        /// A container, by id or name, whose publishes are looked up for the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// Mount a host directory, and say [`Reply::Done`] when it is there; the host serves it already. One
    /// that is mounted so is fine.
    Mount {
        /// What and where.
        mount: GuestMount,
    },
    /// Take a mount away, unless somebody uses it. Answered by [`Reply::Done`], also where it was not there.
    Unmount {
        /// Its port.
        port: u8,
    },
    /// Tell the mounts. Answered by [`Reply::Mounts`].
    Mounts,
    /// Tell what nobody notices until it hurts. Answered by [`Reply::Vitals`].
    Vitals,
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
    /// All ports that are served, at most [`MOST_PORTS`].
    Ports {
        /// In no particular order.
        ports: Vec<GuestPort>,
    },
    /// Ports changed. One whose publish changed is in both lists.
    PortsChanged {
        /// These are not served any more.
        closed: Vec<GuestPort>,
        /// These are served now.
        opened: Vec<GuestPort>,
    },
    /// Everything that had happened when the host asked has been told.
    PortsDrained {
        /// From the request.
        token: u64,
        /// The ports that the container of the request publishes now.
        container: Vec<GuestPort>,
    },
    /// The mounts.
    Mounts {
        /// By port.
        mounts: Vec<MountState>,
    },
    /// The answer to [`Request::Vitals`].
    Vitals {
        /// The guest's clock, in nanoseconds since the Unix epoch.
        unix_nanos: u64,
        /// The file system of the data disk; `None` where it is not mounted.
        data_disk: Option<Space>,
    },
}

/// The size of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it.
    pub size: Bytes,
    /// What may still be written.
    pub available: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Asked, Protocol, Publish};

    #[test]
    fn ports_on_the_wire() {
        let published = GuestPort {
            protocol: Protocol::Tcp,
            address: [0, 0, 0, 0].into(),
            port: 8080,
            published: Some(Publish {
                container: "4a1b".to_owned(),
                name: "web".to_owned(),
                asked: Asked::Port,
            }),
        };
        let socket = GuestPort::socket(Protocol::Udp, "[::1]:53".parse().unwrap());
        assert_eq!(published.to_string(), "0.0.0.0:8080/tcp");
        assert_eq!(socket.to_string(), "[::1]:53/udp");
        let reply = Reply::PortsChanged {
            closed: vec![socket],
            opened: vec![published],
        };
        let text = r#"{"reply":"ports_changed","closed":[{"protocol":"udp","address":"::1","port":53}],"opened":[{"protocol":"tcp","address":"0.0.0.0","port":8080,"published":{"container":"4a1b","name":"web","asked":"port"}}]}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), text);
        assert_eq!(serde_json::from_str::<Reply>(text).unwrap(), reply);
    }

    /// What a host of version 1 says and understands still has its form.
    #[test]
    fn version_1_is_understood() {
        let run = Request::Run {
            argv: vec!["true".to_owned()],
            stdin_len: 0,
        };
        let text = r#"{"request":"run","argv":["true"],"stdin_len":0}"#;
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), run);
        let text = r#"{"reply":"hello","protocol":1,"agent":"0.1.0","boot_id":"x"}"#;
        assert!(matches!(
            serde_json::from_str::<Reply>(text).unwrap(),
            Reply::Hello { protocol: 1, .. }
        ));
    }

    #[test]
    fn mounts_on_the_wire() {
        let request = Request::Mount {
            mount: GuestMount {
                port: 1,
                path: "/home/ada".to_owned(),
                access: crate::mounts::MountAccess::ReadWrite,
            },
        };
        let text =
            r#"{"request":"mount","mount":{"port":1,"path":"/home/ada","access":"read_write"}}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        let text = r#"{"request":"unmount","port":1}"#;
        assert_eq!(
            serde_json::from_str::<Request>(text).unwrap(),
            Request::Unmount { port: 1 }
        );
    }

    /// A line never exceeds its limit, however long the names are that the agent cuts.
    #[test]
    fn the_most_ports_fit_one_line() {
        let port = GuestPort {
            protocol: Protocol::Tcp,
            address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            port: u16::MAX,
            published: Some(Publish {
                container: "f".repeat(64),
                name: "n".repeat(128),
                asked: Asked::Address,
            }),
        };
        let one = serde_json::to_string(&port).unwrap().len() + 1;
        assert!(one * MOST_PORTS + 100 < LONGEST_LINE, "{one} bytes each");
    }
}
