//! Bytes on their way from one side to the other.

use std::io;

/// As much as libssh2 hands out at once, and twice what it takes.
const SIZE: usize = 64 * 1024;

/// Bytes that one side has read and the other has not taken yet.
pub(super) struct Buffer {
    space: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            space: vec![0; SIZE].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.space[self.start..self.end]
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Replaces what is there, which is nothing or done with, by one read.
    pub(super) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.clear();
        self.end = read(&mut self.space)?;
        Ok(self.end)
    }
}
