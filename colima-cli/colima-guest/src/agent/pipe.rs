//! A bounded buffer between a thread that blocks and a task that polls.
//!
//! One direction each. The port's threads sit on one end, the multiplexer on the other; going
//! through memory costs no system call but the wake-up.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Bytes a pipe holds at most.
const CAPACITY: usize = 256 << 10;

/// Both ends of a pipe; what an end may do is up to the side that holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Nothing more is written; what is in the pipe can still be read.
    finished: bool,
    /// Nothing more is read; what is in the pipe is gone.
    abandoned: bool,
    waker: Option<Waker>,
}

/// The reader is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Abandoned;

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets both sides look again.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The writer's end of file.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        self.changed(state);
    }

    /// The reader goes away.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.bytes = VecDeque::new();
        self.changed(state);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Writes everything, waiting for room.
    pub(super) fn write_blocking(&self, mut bytes: &[u8]) -> Result<(), Abandoned> {
        while !bytes.is_empty() {
            let full = |state: &mut State| !state.abandoned && state.bytes.len() >= CAPACITY;
            let mut state = self
                .shared
                .changed
                .wait_while(self.lock(), full)
                .unwrap_or_else(PoisonError::into_inner);
            if state.abandoned {
                return Err(Abandoned);
            }
            let room = CAPACITY - state.bytes.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            state.bytes.extend(now);
            self.changed(state);
            bytes = later;
        }
        Ok(())
    }

    /// Reads at least one byte, waiting for it; 0 at the end or when the pipe was abandoned.
    pub(super) fn read_blocking(&self, buffer: &mut [u8]) -> usize {
        let empty =
            |state: &mut State| state.bytes.is_empty() && !state.finished && !state.abandoned;
        let mut state = self
            .shared
            .changed
            .wait_while(self.lock(), empty)
            .unwrap_or_else(PoisonError::into_inner);
        let count = take(&mut state.bytes, buffer);
        self.changed(state);
        count
    }

    /// Reads at least one byte; 0 at the end.
    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let mut state = self.lock();
        if state.bytes.is_empty() && !state.finished {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = take(&mut state.bytes, buffer);
        self.changed(state);
        Poll::Ready(count)
    }

    /// Writes at least one byte.
    pub(super) fn poll_write(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Abandoned>> {
        let mut state = self.lock();
        if state.abandoned {
            return Poll::Ready(Err(Abandoned));
        }
        let count = (CAPACITY - state.bytes.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes.extend(&bytes[..count]);
        self.changed(state);
        Poll::Ready(Ok(count))
    }
}

fn take(bytes: &mut VecDeque<u8>, buffer: &mut [u8]) -> usize {
    let (first, second) = bytes.as_slices();
    let from_first = first.len().min(buffer.len());
    buffer[..from_first].copy_from_slice(&first[..from_first]);
    let from_second = second.len().min(buffer.len() - from_first);
    buffer[from_first..from_first + from_second].copy_from_slice(&second[..from_second]);
    bytes.drain(..from_first + from_second);
    from_first + from_second
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, thread};

    use super::*;

    #[tokio::test]
    async fn a_megabyte_through_each_direction() {
        let sent: Vec<u8> = (0..1_000_003_u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect();

        let inward = Pipe::default();
        let (writer, bytes) = (inward.clone(), sent.clone());
        let thread = thread::spawn(move || {
            for chunk in bytes.chunks(70_001) {
                writer.write_blocking(chunk).unwrap();
            }
            writer.finish();
        });
        let mut got = Vec::new();
        let mut buffer = [0; 4099];
        loop {
            let count = poll_fn(|cx| inward.poll_read(cx, &mut buffer)).await;
            if count == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..count]);
        }
        thread.join().unwrap();
        assert!(got == sent);

        let outward = Pipe::default();
        let reader = outward.clone();
        let thread = thread::spawn(move || {
            let mut got = Vec::new();
            let mut buffer = [0; 32 << 10];
            loop {
                match reader.read_blocking(&mut buffer) {
                    0 => return got,
                    count => got.extend_from_slice(&buffer[..count]),
                }
            }
        });
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let count = poll_fn(|cx| outward.poll_write(cx, rest)).await.unwrap();
            rest = &rest[count..];
        }
        outward.finish();
        assert!(thread.join().unwrap() == sent);
    }

    #[tokio::test]
    async fn an_abandoned_pipe_releases_its_writers() {
        let pipe = Pipe::default();
        let writer = pipe.clone();
        let mut buffer = [0; 16];
        // One byte more than fits even after what is read below.
        let too_much = vec![0; CAPACITY + buffer.len() + 1];
        let thread = thread::spawn(move || writer.write_blocking(&too_much));
        assert_eq!(poll_fn(|cx| pipe.poll_read(cx, &mut buffer)).await, 16);
        pipe.abandon();
        assert_eq!(thread.join().unwrap(), Err(Abandoned));
        assert_eq!(
            poll_fn(|cx| pipe.poll_write(cx, b"x")).await,
            Err(Abandoned)
        );
        assert_eq!(pipe.read_blocking(&mut buffer), 0);
    }
}
