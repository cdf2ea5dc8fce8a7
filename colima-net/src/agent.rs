//! Talks to the agent in a guest: [`colima_core::agent`] over any [`Connect`].
//!
//! [`Agent`] adds to a transport what only the agent can do: run commands ([`Guest`]), tell when the
//! guest is ready, flush its file systems, set its clock, power it off. Every call is a stream of its
//! own, so that a long `wait_ready` never delays anything else. [`Agent::watch_ports`] tells which ports
//! the guest serves as that changes.

mod mounts;
mod ports;

use std::{collections::BTreeMap, io, time::Duration};

use colima_core::{
    Command, Connect, Endpoint, Guest, Output,
    agent::{LONGEST_LINE, Reply, Request, SERVICE, Space},
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

pub use ports::{PortNews, PortWatch};

/// The most output of one command that [`Guest::run`] takes into memory, in bytes per stream.
pub const LARGEST_OUTPUT: u64 = 64 << 20;

/// The agent of one guest, reached over `C`.
///
/// It holds no connection, so there is nothing to close; clones are as cheap as those of `C`.
#[derive(Clone, Debug)]
pub struct Agent<C> {
    transport: C,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol it speaks.
    pub protocol: u32,
    /// Version of its package.
    pub version: String,
    /// Changes with every boot of the guest.
    pub boot_id: String,
}

/// What nobody notices until it hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// The guest's clock.
    pub since_epoch: Duration,
    /// The file system of the data disk; `None` where it is not mounted.
    pub data_disk: Option<Space>,
}

/// A stage that the guest's boot reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its short name.
    pub name: String,
    /// Time since the guest's kernel started.
    pub uptime: Duration,
}

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The stream to the agent broke or could not be opened.
    #[error("the connection to the guest's agent failed")]
    Link {
        /// What the transport said.
        #[source]
        source: io::Error,
    },
    /// The agent answered something that is no answer to the request.
    #[error("the guest's agent broke its protocol: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
    /// The agent says that it failed.
    #[error("{reason}")]
    Failed {
        /// The agent's sentence.
        reason: String,
        /// Log lines it sent along; text of the guest, escape it before showing it.
        detail: Vec<String>,
    },
}

impl From<io::Error> for AgentError {
    fn from(source: io::Error) -> Self {
        Self::Link { source }
    }
}

impl<C: Connect> Agent<C> {
    /// An agent behind `transport`.
    #[must_use]
    pub const fn new(transport: C) -> Self {
        Self { transport }
    }

    /// The transport below.
    #[must_use]
    pub const fn transport(&self) -> &C {
        &self.transport
    }

    /// Asks who answers: the cheapest proof that the guest lives.
    ///
    /// # Errors
    ///
    /// See [`AgentError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the question.
    pub async fn hello(&self) -> Result<Hello, AgentError> {
        let mut talk = self.ask(&Request::Hello).await?;
        match read_reply(&mut talk).await? {
            Reply::Hello {
                protocol,
                agent,
                boot_id,
            } => Ok(Hello {
                protocol,
                version: agent,
                boot_id,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until everything that was asked for runs in the guest; returns versions by component.
    ///
    /// `on_stage` hears every stage of the boot, also those reached before the call.
    ///
    /// # Errors
    ///
    /// [`AgentError::Failed`] when the guest says that it will not become ready. There is no deadline
    /// of its own: put one around it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the question; a later call hears all stages again.
    pub async fn wait_ready(
        &self,
        mut on_stage: impl FnMut(Stage) + Send,
    ) -> Result<BTreeMap<String, String>, AgentError> {
        let mut talk = self.ask(&Request::WaitReady).await?;
        loop {
            match read_reply(&mut talk).await? {
                Reply::Stage { name, uptime_ms } => {
                    on_stage(Stage {
                        name,
                        uptime: Duration::from_millis(uptime_ms),
                    });
                }
                Reply::Ready { versions } => return Ok(versions),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Flushes every file system of the guest.
    ///
    /// # Errors
    ///
    /// See [`AgentError`].
    pub async fn sync(&self) -> Result<(), AgentError> {
        self.order(&Request::Sync).await
    }

    /// Sets the guest's clock to `since_epoch`.
    ///
    /// # Errors
    ///
    /// See [`AgentError`].
    pub async fn set_clock(&self, since_epoch: Duration) -> Result<(), AgentError> {
        let unix_nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        self.order(&Request::SetClock { unix_nanos }).await
    }

    /// Asks for the guest's clock and the room on its data disk.
    ///
    /// # Errors
    ///
    /// [`AgentError::Failed`] when the agent is too old to know the question.
    pub async fn vitals(&self) -> Result<Vitals, AgentError> {
        let mut talk = self.ask(&Request::Vitals).await?;
        match read_reply(&mut talk).await? {
            Reply::Vitals {
                unix_nanos,
                data_disk,
            } => Ok(Vitals {
                since_epoch: Duration::from_nanos(unix_nanos),
                data_disk,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells the guest to power off in order; returns when it has taken the order.
    ///
    /// # Errors
    ///
    /// See [`AgentError`].
    pub async fn power_off(&self) -> Result<(), AgentError> {
        self.order(&Request::PowerOff).await
    }

    /// Follows the ports that the guest serves; when it returns, those of now are known.
    ///
    /// # Errors
    ///
    /// [`AgentError::Failed`] when the agent is too old to know about ports.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the question.
    pub async fn watch_ports(&self) -> Result<PortWatch<C::Stream>, AgentError> {
        PortWatch::begin(self.ask(&Request::WatchPorts).await?).await
    }

    async fn order(&self, request: &Request) -> Result<(), AgentError> {
        let mut talk = self.ask(request).await?;
        match read_reply(&mut talk).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<BufReader<C::Stream>, AgentError> {
        let endpoint = Endpoint::Service(SERVICE.to_owned());
        let mut stream = self.transport.connect(&endpoint).await?;
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.flush().await?;
        Ok(BufReader::new(stream))
    }

    async fn run_command(&self, command: &Command) -> Result<Output, AgentError> {
        let stdin_len = command.stdin.len() as u64;
        let mut talk = self
            .ask(&Request::Run {
                argv: command.argv.clone(),
                stdin_len,
            })
            .await?;
        // A command that cannot be started does not read: its answer says why.
        let mut fed = talk.write_all(&command.stdin).await;
        if fed.is_ok() {
            fed = talk.flush().await;
        }
        let reply = match (read_reply(&mut talk).await, fed) {
            (Err(_), Err(error)) => return Err(error.into()),
            (reply, _) => reply?,
        };
        match reply {
            Reply::Exited {
                exit_code,
                stdout_len,
                stderr_len,
            } => Ok(Output {
                exit_code,
                stdout: read_bytes(&mut talk, stdout_len).await?,
                stderr: read_bytes(&mut talk, stderr_len).await?,
            }),
            other => Err(unexpected(&other)),
        }
    }
}

impl<C: Connect> Connect for Agent<C> {
    type Stream = C::Stream;

    fn connect(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        self.transport.connect(endpoint)
    }
}

impl<C: Connect> Guest for Agent<C> {
    async fn run(&self, command: &Command) -> io::Result<Output> {
        self.run_command(command)
            .await
            .map_err(|error| match error {
                AgentError::Link { source } => source,
                other => io::Error::other(other),
            })
    }
}

fn unexpected(reply: &Reply) -> AgentError {
    match reply {
        Reply::Failed { reason, detail } => AgentError::Failed {
            reason: reason.clone(),
            detail: detail.clone(),
        },
        other => AgentError::Protocol {
            what: format!("{other:?} is no answer to the request"),
        },
    }
}

/// Reads one line of at most [`LONGEST_LINE`] bytes: the guest is not trusted to be brief.
async fn read_reply<S>(talk: &mut S) -> Result<Reply, AgentError>
where
    S: AsyncBufRead + Unpin + Send,
{
    let mut line = Vec::new();
    let limit = LONGEST_LINE as u64;
    talk.take(limit).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        if line.len() as u64 == limit {
            let what = "a line is too long".to_owned();
            return Err(AgentError::Protocol { what });
        }
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    parse(&line)
}

fn parse(line: &[u8]) -> Result<Reply, AgentError> {
    serde_json::from_slice(line).map_err(|error| AgentError::Protocol {
        what: format!("an unknown reply ({error})"),
    })
}

/// Reads `length` announced bytes without believing in them: memory grows as they arrive.
async fn read_bytes<S>(talk: &mut S, length: u64) -> Result<Vec<u8>, AgentError>
where
    S: AsyncBufRead + Unpin + Send,
{
    if length > LARGEST_OUTPUT {
        return Err(AgentError::Protocol {
            what: format!("{length} bytes of output announced"),
        });
    }
    let mut bytes = Vec::new();
    talk.take(length).read_to_end(&mut bytes).await?;
    if (bytes.len() as u64) < length {
        return Err(AgentError::Protocol {
            what: "the output was cut off".to_owned(),
        });
    }
    Ok(bytes)
}
