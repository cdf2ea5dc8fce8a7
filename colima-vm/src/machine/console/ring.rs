//! The last bytes of a stream, addressed by their position in it.

use std::collections::VecDeque;

/// Keeps the last `capacity` bytes written.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Position of the oldest byte that is kept.
    start: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
            start: 0,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..surplus);
        self.start += surplus as u64;
    }

    /// What is kept from `position` on, and the position of its first byte.
    pub(super) fn read_from(&self, position: u64) -> (u64, Vec<u8>) {
        let begin = position.max(self.start);
        let skipped = usize::try_from(begin - self.start).unwrap_or(usize::MAX);
        (begin, self.bytes.iter().skip(skipped).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_exactly_the_end(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            position in 0_u64..250,
        ) {
            let mut ring = Ring::new(16);
            let mut all = Vec::new();
            for piece in &pieces {
                ring.write(piece);
                all.extend_from_slice(piece);
            }
            let (start, bytes) = ring.read_from(position);
            prop_assert!(bytes.len() <= 16);
            prop_assert!(start >= position);
            let from = usize::try_from(start).unwrap().min(all.len());
            prop_assert_eq!(&bytes, &all[from..]);
            prop_assert!(from == all.len() || from <= all.len().saturating_sub(16).max(usize::try_from(position).unwrap()));
        }
    }
}
