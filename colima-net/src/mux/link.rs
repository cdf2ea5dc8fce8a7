//! One byte stream: reading frames into a session's table and writing what the table owes.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    frame::{self, Decoded, FrameError, MAX_FRAME},
    handshake::Scan,
    stream::Session,
    table::Offer,
};
use crate::Violation;

/// Bytes gathered for one write; several frames, so that small ones share a system call.
const WRITE_BUDGET: usize = 64 * 1024;

/// Bytes asked for in one read.
const READ_BUFFER: usize = 4 * MAX_FRAME;

/// Why a session on a link is over.
#[derive(Debug)]
pub(super) enum End {
    /// The byte stream ended.
    Eof,
    /// The byte stream failed.
    Io(io::Error),
    /// The peer began anew; the link itself is fine.
    Restarted,
    /// The peer sent what cannot be a frame.
    Garbled,
    /// The peer broke a rule.
    Violation(Violation),
    /// The peer has been silent for this long.
    Silent(Duration),
}

/// How the peer's life is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub(super) interval: Duration,
    pub(super) dead_after: Duration,
}

/// A byte stream with its buffers, which outlive the sessions on it.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub(super) input: Input<S>,
    pub(super) output: Output<S>,
}

impl<S: AsyncRead + AsyncWrite> Link<S> {
    pub(super) fn new(io: S) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self {
            input: Input {
                reader,
                buffer: vec![0; READ_BUFFER].into_boxed_slice(),
                start: 0,
                end: 0,
            },
            output: Output {
                writer,
                buffer: Vec::with_capacity(WRITE_BUDGET + MAX_FRAME),
                written: 0,
            },
        }
    }

    /// Runs a session until it ends for any reason.
    ///
    /// `offer` is called for every stream that the peer asks for. Dropping the future loses
    /// nothing: what was gathered for writing stays in the buffer.
    pub(super) async fn run(
        &mut self,
        session: &Session,
        heartbeat: Option<Heartbeat>,
        offer: impl FnMut(Offer),
    ) -> End {
        let reads = AtomicU64::new(0);
        tokio::select! {
            end = self.input.receive(session, &reads, offer) => end,
            error = self.output.send(session) => End::Io(error),
            silent = watch(session, &reads, heartbeat) => End::Silent(silent),
        }
    }
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Input<S> {
    reader: ReadHalf<S>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S: AsyncRead> Input<S> {
    /// Reads once; 0 at the end of the stream.
    async fn read_more(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < MAX_FRAME {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let n = self.reader.read(&mut self.buffer[self.end..]).await?;
        self.end += n;
        Ok(n)
    }

    /// Skips bytes until `find` recognises a message.
    pub(super) async fn scan<T>(&mut self, find: impl Fn(&[u8]) -> Scan<T>) -> Result<T, End> {
        loop {
            match find(&self.buffer[self.start..self.end]) {
                Scan::Found { message, consumed } => {
                    self.start += consumed;
                    return Ok(message);
                }
                Scan::Nothing { useless } => self.start += useless,
            }
            match self.read_more().await {
                Ok(0) => return Err(End::Eof),
                Ok(_) => {}
                Err(error) => return Err(End::Io(error)),
            }
        }
    }

    async fn receive(
        &mut self,
        session: &Session,
        reads: &AtomicU64,
        mut offer: impl FnMut(Offer),
    ) -> End {
        loop {
            loop {
                match frame::decode(&self.buffer[self.start..self.end]) {
                    Ok(Decoded::Frame { frame, consumed }) => {
                        match session.with(|table| table.receive(frame)) {
                            Ok(None) => {}
                            Ok(Some(offered)) => offer(offered),
                            Err(violation) => return End::Violation(violation),
                        }
                        self.start += consumed;
                    }
                    Ok(Decoded::Incomplete) => break,
                    Err(FrameError::Restarted) => return End::Restarted,
                    Err(_) => return End::Garbled,
                }
            }
            match self.read_more().await {
                Ok(0) => return End::Eof,
                Ok(_) => reads.fetch_add(1, Ordering::Relaxed),
                Err(error) => return End::Io(error),
            };
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub(super) struct Output<S> {
    writer: WriteHalf<S>,
    buffer: Vec<u8>,
    written: usize,
}

impl<S: AsyncWrite> Output<S> {
    /// Forgets what is not written yet and queues a message instead.
    ///
    /// This may cut a frame; the peer then finds the message by scanning.
    pub(super) fn replace(&mut self, message: impl FnOnce(&mut Vec<u8>)) {
        self.buffer.clear();
        self.written = 0;
        message(&mut self.buffer);
    }

    /// Writes what is queued.
    ///
    /// # Cancel safety
    ///
    /// The next call goes on where this one stopped.
    pub(super) async fn write_queued(&mut self) -> io::Result<()> {
        while self.written < self.buffer.len() {
            match self.writer.write(&self.buffer[self.written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.written += n,
            }
        }
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }

    /// Writes what is queued and what the session owes, until it owes nothing.
    pub(super) async fn drain(&mut self, session: &Session) -> io::Result<()> {
        loop {
            self.write_queued().await?;
            session.with_writer(|table| table.fill(&mut self.buffer, WRITE_BUDGET));
            if self.buffer.is_empty() {
                return self.writer.flush().await;
            }
        }
    }

    async fn send(&mut self, session: &Session) -> io::Error {
        loop {
            if let Err(error) = self.drain(session).await {
                return error;
            }
            session.work.notified().await;
        }
    }
}

/// Pings an idle peer; returns how long it has been silent once that is too long.
///
/// Silence is counted in pings sent while this process ran, not on the clock: after the whole
/// process was stopped for an hour the peer gets the same chance to answer as before.
async fn watch(session: &Session, reads: &AtomicU64, heartbeat: Option<Heartbeat>) -> Duration {
    let Some(Heartbeat {
        interval,
        dead_after,
    }) = heartbeat
    else {
        return std::future::pending().await;
    };
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut silent, mut token) = (0, Duration::ZERO, 0);
    loop {
        ticks.tick().await;
        let now = reads.load(Ordering::Relaxed);
        if now == seen {
            silent += interval;
            if silent >= dead_after {
                return silent;
            }
            token += 1;
            session.with(|table| table.send_ping(token));
        } else {
            (seen, silent) = (now, Duration::ZERO);
        }
    }
}
