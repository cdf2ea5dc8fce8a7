//! The conversation about ports, from the host's side.

use colima_core::{
    agent::{LONGEST_LINE, MOST_PORTS, Reply, Request},
    ports::GuestPort,
};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

use super::{AgentError, unexpected};

/// Something about the guest's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortNews {
    /// Closed first, then opened; a port that only changed is in both.
    Changed {
        /// Not served any more.
        closed: Vec<GuestPort>,
        /// Served now.
        opened: Vec<GuestPort>,
    },
    /// The answer to [`PortWatch::drain`]: everything up to then has been told.
    Drained {
        /// What the call returned.
        token: u64,
        /// What the container that was asked about publishes.
        container: Vec<GuestPort>,
    },
}

/// Follows the ports that a guest serves.
///
/// # Drop
///
/// Dropping it ends the conversation.
#[derive(Debug)]
pub struct PortWatch<S> {
    talk: BufReader<S>,
    /// A line that came in part.
    line: Vec<u8>,
    ports: Vec<GuestPort>,
    last_token: u64,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> PortWatch<S> {
    pub(super) async fn begin(talk: BufReader<S>) -> Result<Self, AgentError> {
        let mut watch = Self {
            talk,
            line: Vec::new(),
            ports: Vec::new(),
            last_token: 0,
        };
        match watch.reply().await? {
            Reply::Ports { ports } => watch.ports = bounded(ports),
            other => return Err(unexpected(&other)),
        }
        Ok(watch)
    }

    /// The ports that are served as of the last news, at most [`MOST_PORTS`].
    #[must_use]
    pub fn ports(&self) -> &[GuestPort] {
        &self.ports
    }

    /// Waits for news; [`ports`](Self::ports) has them by then.
    ///
    /// # Errors
    ///
    /// [`AgentError::Link`] when the stream ended: watch anew.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<PortNews, AgentError> {
        match self.reply().await? {
            Reply::PortsChanged { closed, opened } => {
                self.ports.retain(|port| !closed.contains(port));
                self.ports.retain(|port| !opened.contains(port));
                self.ports.extend(opened.iter().cloned());
                self.ports.truncate(MOST_PORTS);
                Ok(PortNews::Changed { closed, opened })
            }
            Reply::PortsDrained { token, container } => Ok(PortNews::Drained { token, container }),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the guest to look now. [`PortNews::Drained`] with the returned token comes after the news of
    /// everything that had happened by the time the guest was asked.
    ///
    /// `container`, an id or a name, is looked up for the answer.
    ///
    /// # Errors
    ///
    /// [`AgentError::Link`] when the stream ended.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a request that is sent in part breaks the conversation.
    pub async fn drain(&mut self, container: Option<&str>) -> Result<u64, AgentError> {
        self.last_token += 1;
        let token = self.last_token;
        let request = Request::DrainPorts {
            token,
            container: container.map(str::to_owned),
        };
        let mut line = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
        line.push(b'\n');
        self.talk.write_all(&line).await?;
        self.talk.flush().await?;
        Ok(token)
    }

    async fn reply(&mut self) -> Result<Reply, AgentError> {
        loop {
            let room = LONGEST_LINE.saturating_sub(self.line.len()) as u64;
            let before = self.line.len();
            (&mut self.talk)
                .take(room)
                .read_until(b'\n', &mut self.line)
                .await?;
            if self.line.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                return super::parse(&line);
            }
            if self.line.len() >= LONGEST_LINE {
                return Err(AgentError::Protocol {
                    what: "a line is too long".to_owned(),
                });
            }
            if self.line.len() == before {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn bounded(mut ports: Vec<GuestPort>) -> Vec<GuestPort> {
    ports.truncate(MOST_PORTS);
    ports
}
