//! A channel and its user: bytes both ways, each direction ending on its own.
//!
//! Bytes move in passes. A pass tries everything once and never waits; when one has moved nothing, the
//! thread waits for the session's socket, for the user's, or for the time to ping. The user's stream is a
//! socket pair, so the kernel keeps the bytes that neither side has taken, and wakes both.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;
use tokio::sync::oneshot;

use super::{
    SshError,
    buffer::Buffer,
    libssh2::Channel,
    session::{After, FAREWELL},
    stream::StreamState,
    target::Target,
    wire::{Want, Wire, broken, moved, would_block},
};

/// A stream that a session is asked to open and carry.
pub(super) struct StreamTask {
    pub(super) target: Target,
    /// The session's end of the user's stream.
    pub(super) user: UnixStream,
    pub(super) state: Arc<StreamState>,
    pub(super) opened: oneshot::Sender<Result<(), SshError>>,
}

/// Opens the stream and carries it to its end.
pub(super) fn perform(wire: &mut Wire, task: StreamTask, open_timeout: Duration) -> After {
    let StreamTask {
        target,
        user,
        state,
        opened,
    } = task;
    let channel = match wire.waiting(open_timeout, |session| target.open(session, open_timeout)) {
        Ok(channel) => channel,
        Err(error) => {
            let refused = matches!(error, SshError::Refused { .. });
            // Who asked may have lost interest; then the link is being stopped.
            let _ = opened.send(Err(error));
            return if refused {
                After::Reusable
            } else {
                After::Spent
            };
        }
    };
    if opened.send(Ok(())).is_err() {
        wire.cut();
        return After::Spent;
    }
    let mut flow = Flow::new(wire, channel, user, &state);
    let carried = flow.carry();
    let Flow { channel, user, .. } = flow;
    if let Err(error) = carried {
        state.fail(error);
        wire.cut();
        return After::Spent;
    }
    drop(user);
    match wire.close(channel, Instant::now() + FAREWELL) {
        Ok(()) => After::Reusable,
        Err(_) => After::Spent,
    }
}

/// How far the end of a direction has been passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// The reader has seen the end; the writer is told after what is buffered.
    Ending,
    Ended,
}

struct Flow<'a> {
    wire: &'a mut Wire,
    channel: Channel,
    user: UnixStream,
    state: &'a StreamState,
    outward: (Direction, Buffer),
    inward: (Direction, Buffer),
    /// The server has closed the channel: nothing that is written arrives any more.
    closed: bool,
    /// Since when the user's end is closed, with everything before its end to be sent.
    left: Option<Instant>,
    /// The user's end was closed without an end that could be told.
    abandoned: bool,
}

/// What came of trying everything once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Moved,
    /// Nothing moved, but libssh2 holds bytes that a later call took in.
    Holding,
    Still,
}

impl<'a> Flow<'a> {
    fn new(wire: &'a mut Wire, channel: Channel, user: UnixStream, state: &'a StreamState) -> Self {
        Self {
            wire,
            channel,
            user,
            state,
            outward: (Direction::Open, Buffer::new()),
            inward: (Direction::Open, Buffer::new()),
            closed: false,
            left: None,
            abandoned: false,
        }
    }

    /// Until both directions have ended, or one side is gone.
    fn carry(&mut self) -> Result<(), SshError> {
        if let Err(error) = self.user.set_nonblocking(true) {
            return Err(SshError::Start { source: error });
        }
        loop {
            // A second look at what is held is enough: where that does not help either, libssh2 is
            // exchanging keys, and needs bytes from the peer.
            let mut looked = false;
            loop {
                match self.pass()? {
                    Pass::Moved => looked = false,
                    Pass::Holding if !looked => looked = true,
                    Pass::Holding | Pass::Still => break,
                }
            }
            if self.abandoned {
                return Ok(());
            }
            let told = self.inward.0 == Direction::Ended;
            if told && (self.closed || self.outward.0 == Direction::Ended) {
                return Ok(());
            }
            match self.left {
                // Nobody reads any more, and all has been sent.
                Some(_) if self.outward.0 == Direction::Ended || self.closed => return Ok(()),
                Some(since) if since.elapsed() >= FAREWELL => return Ok(()),
                _ => {}
            }
            self.wait()?;
            if self.abandoned {
                return Ok(());
            }
        }
    }

    /// Tries everything once.
    ///
    /// Whatever reads takes in all that has arrived, for all. So a write that had to wait is tried again
    /// behind the read, and the read again while libssh2 says that it holds bytes.
    fn pass(&mut self) -> Result<Pass, SshError> {
        let mut any = self.take_from_user();
        any |= self.give_to_peer()?;
        if self.closed {
            // Nothing is wanted of the peer any more, not even that it lives.
            self.wire.excuse();
        } else {
            self.wire.ping()?;
        }
        any |= self.look_for_close()?;
        any |= self.take_from_peer()?;
        any |= self.give_to_peer()?;
        any |= self.give_to_user();
        let waiting = self.inward.0 == Direction::Open
            && self.inward.1.is_empty()
            && (self.channel.read_window().available > 0 || self.channel.eof());
        Ok(match any {
            true => Pass::Moved,
            false if waiting => Pass::Holding,
            false => Pass::Still,
        })
    }

    fn take_from_user(&mut self) -> bool {
        let (direction, buffer) = &mut self.outward;
        if *direction != Direction::Open || !buffer.is_empty() {
            return false;
        }
        match buffer.fill(|space| self.user.read(space)) {
            Ok(1..) => true,
            Ok(0) => {
                // A `shutdown` sets this before the socket.
                self.abandoned = !self.state.is_finished();
                *direction = Direction::Ending;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // The user dropped its end with bytes of ours unread; its own have all been taken.
            Err(_) => {
                self.abandoned = !self.state.is_finished();
                *direction = Direction::Ending;
                true
            }
        }
    }

    fn give_to_peer(&mut self) -> Result<bool, SshError> {
        if !self.wire.has_room() || self.closed {
            return Ok(false);
        }
        let (direction, buffer) = &mut self.outward;
        if !buffer.is_empty() {
            let wrote = moved(self.channel.write(buffer.bytes()))?;
            buffer.consume(wrote.unwrap_or(0));
            return Ok(wrote.is_some_and(|n| n > 0));
        }
        if *direction != Direction::Ending || self.abandoned {
            return Ok(false);
        }
        match self.channel.send_eof() {
            Ok(()) => {
                *direction = Direction::Ended;
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }

    fn take_from_peer(&mut self) -> Result<bool, SshError> {
        let (direction, buffer) = &mut self.inward;
        if *direction != Direction::Open || !buffer.is_empty() || !self.wire.has_room() {
            return Ok(false);
        }
        match moved(buffer.fill(|space| self.channel.read(space)))? {
            Some(0) if self.channel.eof() => {
                *direction = Direction::Ending;
                Ok(true)
            }
            Some(0) | None => Ok(false),
            Some(_) if self.left.is_some() => {
                buffer.clear();
                Ok(true)
            }
            Some(_) => Ok(true),
        }
    }

    fn give_to_user(&mut self) -> bool {
        let (direction, buffer) = &mut self.inward;
        if self.left.is_some() {
            buffer.clear();
        }
        if !buffer.is_empty() {
            return match self.user.write(buffer.bytes()) {
                Ok(n) => {
                    buffer.consume(n);
                    n > 0
                }
                // That the user is gone is found where we wait.
                Err(error) => error.kind() == io::ErrorKind::Interrupted,
            };
        }
        if *direction != Direction::Ending {
            return false;
        }
        // Fails only for a user that is gone.
        let _ = self.user.shutdown(Shutdown::Write);
        *direction = Direction::Ended;
        true
    }

    /// A server that has closed the channel reads no more; one that only ended its direction does.
    fn look_for_close(&mut self) -> Result<bool, SshError> {
        if self.closed || self.inward.0 == Direction::Open || !self.wire.has_room() {
            return Ok(false);
        }
        match self.channel.wait_close() {
            Ok(()) => {
                self.closed = true;
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Waits until a pass is worth a try.
    fn wait(&mut self) -> Result<(), SshError> {
        let mut events = PollFlags::empty();
        if self.outward.0 == Direction::Open && self.outward.1.is_empty() {
            events |= PollFlags::IN;
        }
        if !self.inward.1.is_empty() {
            events |= PollFlags::OUT;
        }
        let reads = self.inward.0 == Direction::Open && self.inward.1.is_empty();
        let writes = !self.outward.1.is_empty() || self.outward.0 == Direction::Ending;
        let want = match reads || writes || self.inward.0 != Direction::Open {
            true if !self.closed => Want::Bytes,
            _ => Want::Nothing,
        };
        let deadline = self.left.map(|since| since + FAREWELL);
        // Once both ends of the pair are shut down it reports a hang-up that is none.
        let shut = self.outward.0 != Direction::Open && self.inward.0 == Direction::Ended;
        let watched = match self.left.is_some() || shut {
            true => None,
            false => Some((self.user.as_fd(), events)),
        };
        let woke = self.wire.wait(want, watched, deadline)?;
        if woke.other.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.abandoned = !self.state.is_finished();
            self.left.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}
