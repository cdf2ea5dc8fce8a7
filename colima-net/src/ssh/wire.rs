//! A session that never blocks, and whether its peer is alive.
//!
//! The rules that libssh2 needs, kept in one place:
//!
//! * A call that may send is made only when the socket [has room](Wire::has_room) for all that it sends.
//! * A call that reads takes everything off the socket, whichever call waits for it. So readable is no
//!   sign for one particular call, and after a wake-up all of them are tried.
//! * libssh2 has a keep-alive, but it keeps every reply to it in memory, for ever, and tells nobody. A
//!   ping here is the opening of a channel of a type that no server knows; RFC 4254, 5.1 makes the
//!   server refuse it, and libssh2 frees what it was made of.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    SshError,
    libssh2::{self, Channel, ErrorCode, Session},
};

/// The type of the channels that are pings.
const PING: &str = "ping@colima";

/// When a peer is asked whether it lives, and when it is given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub(super) interval: Duration,
    pub(super) dead_after: Duration,
}

/// What a loop waits for on its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Bytes from the peer.
    Bytes,
    /// Nothing: what it has is not taken off its hands.
    Nothing,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Woke {
    /// The session has something to read.
    pub(super) readable: bool,
    /// What happened to the other descriptor.
    pub(super) other: PollFlags,
}

pub(super) struct Wire {
    pub(super) session: Session,
    socket: UnixStream,
    heartbeat: Heartbeat,
    heard: Instant,
    /// Since when the answer to a ping is waited for.
    asked: Option<Instant>,
    /// Since when the socket has had no room.
    stuck: Option<Instant>,
}

impl Wire {
    /// `socket` is another descriptor of the session's socket.
    pub(super) fn new(session: Session, socket: UnixStream, heartbeat: Heartbeat) -> Self {
        Self {
            session,
            socket,
            heartbeat,
            heard: Instant::now(),
            asked: None,
            stuck: None,
        }
    }

    /// Runs calls that wait by themselves, such as the opening of a channel; each fails after `at_most`.
    ///
    /// libssh2 remembers one opening per session, and a ping is one: it has to be answered first, or
    /// the ping's channel would be taken for the one that was asked for.
    pub(super) fn waiting<T>(
        &mut self,
        at_most: Duration,
        calls: impl FnOnce(&Session) -> Result<T, SshError>,
    ) -> Result<T, SshError> {
        self.settle()?;
        let millis = u32::try_from(at_most.as_millis()).unwrap_or(u32::MAX);
        self.session.set_timeout(millis.max(1));
        self.session.set_blocking(true);
        let done = calls(&self.session);
        self.session.set_blocking(false);
        done
    }

    /// The socket takes what one call sends, or is broken, which the call will find out.
    pub(super) fn has_room(&mut self) -> bool {
        let room = !ready(&self.socket, PollFlags::OUT).is_empty();
        if room {
            self.stuck = None;
        } else {
            self.stuck.get_or_insert_with(Instant::now);
        }
        room
    }

    /// Does not ask the peer for another while.
    pub(super) fn excuse(&mut self) {
        self.heard = Instant::now();
    }

    /// Asks a peer that has been quiet, or looks for its answer.
    pub(super) fn ping(&mut self) -> Result<(), SshError> {
        let due = self.heard.elapsed() >= self.heartbeat.interval;
        match self.asked {
            None if !due => Ok(()),
            _ => self.ask(),
        }
    }

    /// Waits for the answer to a ping, if one is on its way.
    pub(super) fn settle(&mut self) -> Result<(), SshError> {
        while self.asked.is_some() {
            self.wait(Want::Bytes, None, None)?;
            self.ping()?;
        }
        Ok(())
    }

    /// Takes in what the peer sent, whatever it is, by asking it, or by looking for its answer.
    pub(super) fn ask(&mut self) -> Result<(), SshError> {
        self.asked.get_or_insert_with(Instant::now);
        if !self.has_room() {
            return Ok(());
        }
        match self.session.channel_open(PING, 1, 1, None) {
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) if is(&error, libssh2_sys::LIBSSH2_ERROR_CHANNEL_FAILURE) => {}
            Err(error) => return Err(broken(&error)),
            Ok(_) => {
                let message = "the server opened a channel of a type that does not exist".into();
                return Err(SshError::Session { message });
            }
        }
        self.asked = None;
        self.heard = Instant::now();
        Ok(())
    }

    /// Waits for the session, for `other`, or for the time to ask the peer. All calls are worth a try
    /// afterwards.
    pub(super) fn wait(
        &mut self,
        want: Want,
        other: Option<(BorrowedFd<'_>, PollFlags)>,
        deadline: Option<Instant>,
    ) -> Result<Woke, SshError> {
        let mut own = PollFlags::empty();
        if !self.has_room() {
            own = PollFlags::OUT;
        } else if want == Want::Bytes || self.asked.is_some() {
            own = PollFlags::IN;
        }
        let verdict = self.verdict();
        let now = Instant::now();
        if verdict <= now {
            let after = self.heartbeat.dead_after;
            return Err(SshError::PeerSilent { after });
        }
        let mut until = verdict;
        if self.asked.is_none() && self.stuck.is_none() {
            until = self.heard + self.heartbeat.interval;
        }
        until = deadline.map_or(until, |deadline| until.min(deadline));

        // A socket of which nothing is wanted would report its end again and again.
        let mut sockets = Vec::with_capacity(2);
        if let Some((other, events)) = other {
            sockets.push(PollFd::from_borrowed_fd(other, events));
        }
        if !own.is_empty() {
            sockets.push(PollFd::new(&self.socket, own));
        }
        let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                let message = io::Error::from(errno).to_string();
                return Err(SshError::Session { message });
            }
        }
        let of_session = match own.is_empty() {
            true => PollFlags::empty(),
            false => sockets[sockets.len() - 1].revents(),
        };
        let readable = of_session.contains(PollFlags::IN);
        if readable {
            self.heard = Instant::now();
        }
        let other = other.map_or(PollFlags::empty(), |_| sockets[0].revents());
        Ok(Woke { readable, other })
    }

    /// When the peer is dead unless it moves.
    fn verdict(&self) -> Instant {
        let Heartbeat {
            interval,
            dead_after,
        } = self.heartbeat;
        if let Some(since) = self.stuck {
            return since + dead_after;
        }
        // A process that was stopped finds its last news old, and asks before it judges.
        let asked = self.asked.unwrap_or_else(Instant::now);
        (self.heard + dead_after).max(asked + dead_after.saturating_sub(interval))
    }

    /// Closes a channel, both ways, and frees it; what still comes is dropped. Fails at `deadline`,
    /// and then the session is of no use any more.
    pub(super) fn close(
        &mut self,
        mut channel: Channel,
        deadline: Instant,
    ) -> Result<(), SshError> {
        let closed = self.wait_for_close(&mut channel, deadline);
        if closed.is_err() {
            self.cut();
        }
        closed
    }

    /// Ends the session's socket.
    ///
    /// To free a channel or a session is to say goodbye, and where libssh2 would have to wait for that, it
    /// frees nothing. On a socket that has ended it does not wait.
    pub(super) fn cut(&self) {
        // Fails only where it has ended already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    fn wait_for_close(&mut self, channel: &mut Channel, deadline: Instant) -> Result<(), SshError> {
        loop {
            if self.has_room() {
                match channel.close() {
                    Ok(()) => return Ok(()),
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(broken(&error)),
                }
            }
            if Instant::now() >= deadline {
                let message = "the server did not close a channel".into();
                return Err(SshError::Session { message });
            }
            self.ping()?;
            self.wait(Want::Bytes, None, Some(deadline))?;
        }
    }
}

/// The fields follow: the session is freed on a socket that has ended.
impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What of `events` holds for a socket now.
pub(super) fn ready(socket: &UnixStream, events: PollFlags) -> PollFlags {
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), events)];
    match poll(&mut sockets, Some(&Timespec::default())) {
        Ok(1..) => sockets[0].revents(),
        _ => PollFlags::empty(),
    }
}

pub(super) fn is(error: &libssh2::Error, code: i32) -> bool {
    error.code() == ErrorCode::Session(code)
}

pub(super) fn would_block(error: &libssh2::Error) -> bool {
    is(error, libssh2_sys::LIBSSH2_ERROR_EAGAIN)
}

pub(super) fn broken(error: &libssh2::Error) -> SshError {
    SshError::Session {
        message: error.message().to_owned(),
    }
}

/// A result of `Read` or `Write`: how many bytes, or none for now.
pub(super) fn moved(result: io::Result<usize>) -> Result<Option<usize>, SshError> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(SshError::Session {
            message: error.to_string(),
        }),
    }
}
