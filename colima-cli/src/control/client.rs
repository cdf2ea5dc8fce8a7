//! Reaches a profile's daemon, and starts it where a request needs one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixStream,
};

use super::{Reply, Request, VERSION, send};

/// Where a profile's daemon is found, and how it is started.
#[derive(Clone, Debug)]
pub struct DaemonFiles {
    /// Its listening socket.
    pub socket: PathBuf,
    /// Held while one command line looks for the daemon and starts it, so that two never start two.
    pub spawn_lock: PathBuf,
    /// Where it writes.
    pub log: PathBuf,
    /// The state directory, told to the daemon: it works in another directory than we do.
    pub home: PathBuf,
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
    #[error("the daemon ended before it was ready, see {}: {said}", log.display())]
    EndedEarly {
        /// Its log.
        log: PathBuf,
        /// What it wrote there.
        said: String,
    },
    /// The conversation broke off.
    #[error("the daemon hung up, see {}", log.display())]
    HungUp {
        /// Its log.
        log: PathBuf,
    },
    /// The daemon took the question and does not answer.
    #[error("the daemon{} does not respond, see {}", number(*process), log.display())]
    Silent {
        /// Its log.
        log: PathBuf,
        /// Its process, where the system knows it.
        process: Option<i32>,
    },
    /// The conversation failed.
    #[error("the daemon could not be understood")]
    Conversation {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn number(process: Option<i32>) -> String {
    process.map_or_else(String::new, |process| format!(", process {process},"))
}

/// How long a daemon may take for what it answers at once.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A log longer than this is begun anew, in bytes; its predecessor is kept beside it.
const LONGEST_LOG: u64 = 512 * 1024;

/// A request under way. Dropping it withdraws the request.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
    log: PathBuf,
}

impl Conversation {
    /// Takes the request back; the last reply says when it is undone.
    ///
    /// # Errors
    ///
    /// [`ClientError::Conversation`] when the daemon is gone.
    pub async fn withdraw(&mut self) -> Result<(), ClientError> {
        let sent = send(&mut self.stream, &Request::Withdraw).await;
        sent.map_err(|source| ClientError::Conversation { source })
    }

    /// The next reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::HungUp`] when the daemon died: what it was asked may or may not have happened,
    /// and asking again is always right.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a line that came in part is kept for the next call.
    pub async fn next(&mut self) -> Result<Reply, ClientError> {
        let failed = |source| ClientError::Conversation { source };
        match self.stream.read_until(b'\n', &mut self.line).await {
            // unix(7): the far side closed its socket with our request unread. It was just leaving.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.line.clear(),
            read => drop(read.map_err(failed)?),
        }
        if self.line.last() != Some(&b'\n') {
            return Err(ClientError::HungUp {
                log: self.log.clone(),
            });
        }
        let reply = serde_json::from_slice(&self.line).map_err(|error| failed(error.into()))?;
        self.line.clear();
        Ok(reply)
    }

    /// The only reply of a request that is answered at once.
    ///
    /// # Errors
    ///
    /// [`ClientError::Silent`] when it does not come within five seconds.
    pub async fn answer(&mut self) -> Result<Reply, ClientError> {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok(reply) => reply,
            Err(_) => Err(ClientError::Silent {
                log: self.log.clone(),
                process: listener(self.stream.get_ref()),
            }),
        }
    }
}

/// The process that listens at the other end: unix(7), `SO_PEERCRED`. It need not have accepted.
fn listener(stream: &UnixStream) -> Option<i32> {
    stream.peer_cred().ok()?.pid()
}

impl DaemonFiles {
    /// A daemon that does not answer.
    pub(super) async fn silent(&self) -> ClientError {
        // A connection waits in the system's queue, whoever does not take it.
        let stream = self.dial().await;
        ClientError::Silent {
            log: self.log.clone(),
            process: stream.ok().flatten().as_ref().and_then(listener),
        }
    }

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
                line: Vec::new(),
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
        if let Some(talk) = self.ask_living(request).await? {
            return Ok(talk);
        }
        // It had nothing to do and left between its greeting and our question.
        self.spawn().await?;
        self.ask_living(request)
            .await?
            .ok_or_else(|| ClientError::HungUp {
                log: self.log.clone(),
            })
    }

    /// Whether a daemon of our version listens; one of another version is sent away first.
    pub(crate) async fn greets(&self) -> Result<bool, ClientError> {
        let Some(mut talk) = self.ask_living(&Request::Hello).await? else {
            return Ok(false);
        };
        match talk.answer().await {
            Ok(Reply::Hello {
                version: VERSION, ..
            }) => Ok(true),
            // It was leaving, and has left when the connection is closed.
            Err(ClientError::HungUp { .. }) => Ok(false),
            Err(error @ ClientError::Silent { .. }) => Err(error),
            Ok(_) | Err(_) => {
                if let Some(mut talk) = self.ask_living(&Request::Retire).await? {
                    while talk.answer().await.is_ok() {}
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

    /// Keeps everybody else from starting the daemon while the file is held.
    pub(crate) async fn lock_spawning(&self) -> Result<File, ClientError> {
        let path = self.spawn_lock.clone();
        let locked = tokio::task::spawn_blocking(move || {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)?;
            }
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
        let begins = self.rotate_log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(file_error)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // Nothing is kept busy that the user may want to unmount.
            .current_dir("/")
            .env("COLIMA_HOME", &self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|source| ClientError::Spawn {
                program: self.program.clone(),
                source,
            })?;
        let mut said = child
            .stdout
            .take()
            .ok_or_else(|| self.ended_early(begins))?;
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
                Err(self.ended_early(begins))
            }
        }
    }

    /// Makes room in the log and returns where the next daemon's lines begin.
    fn rotate_log(&self) -> u64 {
        let length = fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        let mut old = self.log.clone().into_os_string();
        old.push(".1");
        if length > LONGEST_LOG && fs::rename(&self.log, old).is_ok() {
            return 0;
        }
        length
    }

    fn ended_early(&self, begins: u64) -> ClientError {
        let log = fs::read(&self.log).unwrap_or_default();
        let begins = usize::try_from(begins).unwrap_or(usize::MAX);
        let said = String::from_utf8_lossy(log.get(begins..).unwrap_or_default()).into_owned();
        let said: Vec<&str> = said.lines().collect();
        ClientError::EndedEarly {
            log: self.log.clone(),
            said: if said.is_empty() {
                "it said nothing".to_owned()
            } else {
                said.join("; ")
            },
        }
    }
}
