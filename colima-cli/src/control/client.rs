//! Reaches a profile's daemon, and starts it where a request needs one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use tokio::{io::BufReader, net::UnixStream};

use super::{Reply, Request, VERSION, Withdraw, receive, send};

/// Where a profile's daemon is found, and how it is started.
#[derive(Clone, Debug)]
pub struct DaemonFiles {
    /// Its listening socket.
    pub socket: PathBuf,
    /// Held while one command line looks for the daemon and starts it, so that two never start two.
    pub spawn_lock: PathBuf,
    /// Where it writes.
    pub log: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Arguments that make it this profile's daemon.
    pub arguments: Vec<String>,
}

/// Why there is no conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A file of the daemon could not be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The daemon could not be started.
    #[error("cannot start the daemon {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The daemon ended before it listened.
    #[error("the daemon ended before it was ready, see {}: {last}", log.display())]
    EndedEarly {
        /// Its log.
        log: PathBuf,
        /// Its last line there.
        last: String,
    },
    /// The conversation broke off.
    #[error("the daemon hung up, see {}", log.display())]
    HungUp {
        /// Its log.
        log: PathBuf,
    },
    /// The conversation failed.
    #[error("the daemon could not be understood")]
    Conversation {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A request under way. Dropping it withdraws the request.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<UnixStream>,
    log: PathBuf,
}

impl Conversation {
    /// Takes the request back; the last reply says when it is undone.
    ///
    /// # Errors
    ///
    /// [`ClientError::Conversation`] when the daemon is gone.
    pub async fn withdraw(&mut self) -> Result<(), ClientError> {
        let sent = send(&mut self.stream, &Withdraw).await;
        sent.map_err(|source| ClientError::Conversation { source })
    }

    /// The next reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::HungUp`] when the daemon died: what it was asked may or may not have happened,
    /// and asking again is always right.
    pub async fn next(&mut self) -> Result<Reply, ClientError> {
        match receive(&mut self.stream).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(ClientError::HungUp {
                log: self.log.clone(),
            }),
            Err(source) => Err(ClientError::Conversation { source }),
        }
    }
}

impl DaemonFiles {
    /// Asks a daemon that already runs; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Fails when something listens but does not take the request.
    pub async fn ask_living(&self, request: &Request) -> Result<Option<Conversation>, ClientError> {
        let Some(stream) = self.dial().await? else {
            return Ok(None);
        };
        let mut stream = BufReader::new(stream);
        match send(&mut stream, request).await {
            Ok(()) => Ok(Some(Conversation {
                stream,
                log: self.log.clone(),
            })),
            // It was just leaving.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            Err(source) => Err(ClientError::Conversation { source }),
        }
    }

    /// Asks the daemon, which is started first where there is none or one of another version.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn ask(&self, request: &Request) -> Result<Conversation, ClientError> {
        // Held to the end, so that whoever comes second finds the first one's daemon.
        let _only_one = self.lock_spawning().await?;
        if !self.greets().await? {
            self.spawn().await?;
        }
        self.ask_living(request)
            .await?
            .ok_or_else(|| ClientError::HungUp {
                log: self.log.clone(),
            })
    }

    /// Whether a daemon of our version listens; one of another version is sent away first.
    async fn greets(&self) -> Result<bool, ClientError> {
        let Some(mut talk) = self.ask_living(&Request::Hello).await? else {
            return Ok(false);
        };
        match talk.next().await {
            Ok(Reply::Hello {
                version: VERSION, ..
            }) => Ok(true),
            // It was leaving, and has left when the connection is closed.
            Err(ClientError::HungUp { .. }) => Ok(false),
            Ok(_) | Err(_) => {
                if let Some(mut talk) = self.ask_living(&Request::Retire).await? {
                    while talk.next().await.is_ok() {}
                }
                Ok(false)
            }
        }
    }

    async fn dial(&self) -> Result<Option<UnixStream>, ClientError> {
        match UnixStream::connect(&self.socket).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(ClientError::File {
                    path: self.socket.clone(),
                    source: error,
                }),
            },
        }
    }

    async fn lock_spawning(&self) -> Result<File, ClientError> {
        let path = self.spawn_lock.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        });
        let failed = |source| ClientError::File {
            path: self.spawn_lock.clone(),
            source,
        };
        locked
            .await
            .map_err(|error| failed(io::Error::other(error)))?
            .map_err(failed)
    }

    /// Starts the daemon and waits until it says that it listens.
    async fn spawn(&self) -> Result<(), ClientError> {
        let file_error = |source| ClientError::File {
            path: self.log.clone(),
            source,
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(file_error)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|source| ClientError::Spawn {
                program: self.program.clone(),
                source,
            })?;
        let mut said = child.stdout.take().ok_or_else(|| self.ended_early())?;
        // One byte says that it listens; the end of the stream, that it will not.
        let listening = tokio::task::spawn_blocking(move || {
            let mut byte = [0];
            said.read(&mut byte)
        });
        match listening.await {
            Ok(Ok(1)) => Ok(()),
            _ => {
                // It has closed its output, so it is ending: this does not block for long.
                let _ = tokio::task::spawn_blocking(move || child.wait()).await;
                Err(self.ended_early())
            }
        }
    }

    fn ended_early(&self) -> ClientError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().last().unwrap_or("it said nothing").to_owned();
        ClientError::EndedEarly {
            log: self.log.clone(),
            last,
        }
    }
}
