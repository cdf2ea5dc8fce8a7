//! Moves messages over a unix socket.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc, oneshot, watch},
    task::AbortHandle,
    time::timeout,
};

use super::{Command, Decoder, Error, Event, Greeting, Line, Message, MigrationInfo, StatusInfo};

/// Events that a slow listener may be behind before it misses the oldest.
pub(in crate::machine) const EVENTS_KEPT: usize = 256;

/// Commands that wait for the socket.
const COMMANDS_KEPT: usize = 64;

/// A connection to QEMU's control channel. Clones share it.
///
/// Needs a tokio runtime. Dropping the last clone closes the connection; QEMU goes on.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Outgoing>,
    closed: watch::Receiver<bool>,
    _tasks: Arc<Tasks>,
}

/// What came over the channel and meant nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Lines that were no message of the protocol, or too long.
    pub garbage: u64,
    /// Replies to no command of ours, those that came after their limit included.
    pub strays: u64,
}

/// A command on its way to the socket.
#[derive(Debug)]
struct Outgoing {
    line: Vec<u8>,
    fd: Option<OwnedFd>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next_id: AtomicU64,
    garbage: AtomicU64,
    strays: AtomicU64,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
enum Reply {
    Return(Value),
    Failure { class: String, description: String },
}

#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Client {
    /// Waits for the greeting on a fresh connection and ends the negotiation.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when QEMU does neither within `limit`, [`Error::Closed`] when it hangs up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn negotiate(stream: UnixStream, limit: Duration) -> Result<(Self, Greeting), Error> {
        Self::negotiate_into(stream, limit, broadcast::Sender::new(EVENTS_KEPT)).await
    }

    /// As [`Client::negotiate`], with events going to an existing audience.
    pub(in crate::machine) async fn negotiate_into(
        stream: UnixStream,
        limit: Duration,
        events: broadcast::Sender<Event>,
    ) -> Result<(Self, Greeting), Error> {
        let (read, write) = stream.into_split();
        let (greeted, greeting) = oneshot::channel();
        let (commands, to_send) = mpsc::channel(COMMANDS_KEPT);
        let (close, closed) = watch::channel(false);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            garbage: AtomicU64::new(0),
            strays: AtomicU64::new(0),
            events,
        });
        let reader = tokio::spawn(read_all(Arc::clone(&shared), read, greeted, close));
        let writer = tokio::spawn(write_all(to_send, write));
        let client = Self {
            shared,
            commands,
            closed,
            _tasks: Arc::new(Tasks(vec![reader.abort_handle(), writer.abort_handle()])),
        };
        let command = "the greeting";
        let greeting = timeout(limit, greeting)
            .await
            .map_err(|_| Error::TimedOut { command, limit })?
            .map_err(|_| Error::Closed { command })?;
        client.execute(&Command::QmpCapabilities, limit).await?;
        Ok((client, greeting))
    }

    /// Sends a command and waits for its reply. Any number may be under way at once.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] is QEMU's answer; [`Error::TimedOut`] and [`Error::Closed`] leave open
    /// whether the command was carried out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the command sent or not, never half; the connection stays usable.
    pub async fn execute(&self, command: &Command, limit: Duration) -> Result<Value, Error> {
        self.exchange(command, None, limit).await
    }

    /// As [`Client::execute`], and hands a descriptor over with the command: [`Command::GetFd`].
    ///
    /// # Errors
    ///
    /// As [`Client::execute`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::execute`].
    pub async fn execute_with(
        &self,
        command: &Command,
        fd: OwnedFd,
        limit: Duration,
    ) -> Result<Value, Error> {
        self.exchange(command, Some(fd), limit).await
    }

    async fn exchange(
        &self,
        command: &Command,
        fd: Option<OwnedFd>,
        limit: Duration,
    ) -> Result<Value, Error> {
        let name = command.name();
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        self.shared.waiting().insert(id, sender);
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        if *self.closed.borrow() {
            return Err(Error::Closed { command: name });
        }
        let exchange = async {
            let line = command.encode(id);
            self.commands.send(Outgoing { line, fd }).await.ok()?;
            reply.await.ok()
        };
        match timeout(limit, exchange).await {
            Err(_) => Err(Error::TimedOut {
                command: name,
                limit,
            }),
            Ok(None) => Err(Error::Closed { command: name }),
            Ok(Some(Reply::Return(value))) => Ok(value),
            Ok(Some(Reply::Failure { class, description })) => Err(Error::Refused {
                command: name,
                class,
                description,
            }),
        }
    }

    /// Asks whether the guest runs.
    ///
    /// # Errors
    ///
    /// As [`Client::execute`], and [`Error::Unreadable`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::execute`].
    pub async fn query_status(&self, limit: Duration) -> Result<StatusInfo, Error> {
        self.query(Command::QueryStatus, limit).await
    }

    /// Asks how far a migration is.
    ///
    /// # Errors
    ///
    /// As [`Client::query_status`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::execute`].
    pub async fn query_migrate(&self, limit: Duration) -> Result<MigrationInfo, Error> {
        self.query(Command::QueryMigrate, limit).await
    }

    async fn query<T: DeserializeOwned>(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<T, Error> {
        let value = self.execute(&command, limit).await?;
        serde_json::from_value(value).map_err(|error| Error::Unreadable {
            command: command.name(),
            reason: error.to_string(),
        })
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// What was ignored so far.
    #[must_use]
    pub fn noise(&self) -> Noise {
        Noise {
            garbage: self.shared.garbage.load(Ordering::Relaxed),
            strays: self.shared.strays.load(Ordering::Relaxed),
        }
    }

    /// Whether QEMU has closed the channel.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until QEMU has closed the channel and everything it said was handed out.
    ///
    /// # Cancel safety
    ///
    /// An abandoned wait can be repeated.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the reader is gone, which is the same thing.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

/// Takes a command off the list of those that wait, however its future ends.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        // Nothing panics while it is locked; a map is never half changed anyway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: Option<u64>, reply: Reply) {
        let waiting = id.and_then(|id| self.waiting().remove(&id));
        if waiting.is_none_or(|sender| sender.send(reply).is_err()) {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn read_all(
    shared: Arc<Shared>,
    mut stream: OwnedReadHalf,
    greeted: oneshot::Sender<Greeting>,
    close: watch::Sender<bool>,
) {
    let mut greeted = Some(greeted);
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 16 * 1024];
    // An error of the stream means what its end means: nobody will answer.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        decoder.feed(&buffer[..length]);
        while let Some(line) = decoder.next_line() {
            let message = match line {
                Line::Complete(line) => Message::parse(&line),
                Line::TooLong => Message::Garbage,
            };
            match message {
                Message::Greeting(greeting) => {
                    if let Some(greeted) = greeted.take() {
                        // Nobody waits when the negotiation was abandoned.
                        let _ = greeted.send(greeting);
                    }
                }
                Message::Return { id, value } => shared.answer(Some(id), Reply::Return(value)),
                Message::Failure {
                    id,
                    class,
                    description,
                } => shared.answer(id, Reply::Failure { class, description }),
                Message::Event(event) => {
                    // Nobody may be listening.
                    let _ = shared.events.send(event);
                }
                Message::Garbage => {
                    shared.garbage.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    // First the mark, then the drop of those who wait: a command that comes between sees the mark.
    close.send_replace(true);
    shared.waiting().clear();
}

async fn write_all(mut commands: mpsc::Receiver<Outgoing>, mut stream: OwnedWriteHalf) {
    while let Some(Outgoing { line, fd }) = commands.recv().await {
        let sent = match fd {
            None => stream.write_all(&line).await,
            Some(fd) => send_with(&mut stream, &line, fd).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Sends a line whose first bytes carry a descriptor (`SCM_RIGHTS`, unix(7)).
async fn send_with(stream: &mut OwnedWriteHalf, line: &[u8], fd: OwnedFd) -> io::Result<()> {
    let sent = {
        let stream: &UnixStream = stream.as_ref();
        stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut rights = SendAncillaryBuffer::new(&mut space);
                let fds = [fd.as_fd()];
                rights.push(SendAncillaryMessage::ScmRights(&fds));
                let line = [IoSlice::new(line)];
                Ok(rustix::net::sendmsg(
                    stream,
                    &line,
                    &mut rights,
                    SendFlags::empty(),
                )?)
            })
            .await?
    };
    stream.write_all(&line[sent..]).await
}
