//! Bytes to lines, in pieces of any size. No I/O.

/// Longest line that is kept, in bytes without its end. QEMU's own longest replies
/// (`query-qmp-schema`) stay well below.
pub const LONGEST_LINE: usize = 1 << 20;

/// What [`Decoder::next_line`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The bytes of a line without its end.
    Complete(Vec<u8>),
    /// A line that was longer than [`LONGEST_LINE`] and was thrown away.
    TooLong,
}

/// Cuts a byte stream into lines that end with LF or CR LF.
///
/// Memory is bounded by [`LONGEST_LINE`] plus the largest piece fed to it.
///
/// ```
/// use colima_vm::machine::qmp::{Decoder, Line};
///
/// let mut decoder = Decoder::default();
/// decoder.feed(b"{\"QMP\": {}}\r\n{\"ret");
/// assert_eq!(decoder.next_line(), Some(Line::Complete(b"{\"QMP\": {}}".to_vec())));
/// assert_eq!(decoder.next_line(), None);
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no line end.
    searched: usize,
    skipping: Skipping,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Skipping {
    #[default]
    No,
    UntilLineEnd,
}

impl Decoder {
    /// Adds bytes as they came from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, or `None` until more bytes are fed. Empty lines are passed over.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            else {
                if self.buffer.len() > LONGEST_LINE + 1 {
                    self.skipping = Skipping::UntilLineEnd;
                    self.buffer.clear();
                }
                self.searched = self.buffer.len();
                return None;
            };
            let mut line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
            self.searched = 0;
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if self.skipping == Skipping::UntilLineEnd || line.len() > LONGEST_LINE {
                self.skipping = Skipping::No;
                return Some(Line::TooLong);
            }
            if !line.is_empty() {
                return Some(Line::Complete(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_lines(decoder: &mut Decoder) -> Vec<Line> {
        std::iter::from_fn(|| decoder.next_line()).collect()
    }

    #[test]
    fn a_line_too_long_costs_only_itself() {
        let mut decoder = Decoder::default();
        let mut lines = Vec::new();
        for _ in 0..40 {
            decoder.feed(&vec![b'x'; LONGEST_LINE / 8]);
            lines.extend(all_lines(&mut decoder));
        }
        assert_eq!(lines, []);
        assert!(decoder.buffer.len() <= LONGEST_LINE + LONGEST_LINE / 8);
        decoder.feed(b"tail\nshort\n");
        assert_eq!(
            all_lines(&mut decoder),
            [Line::TooLong, Line::Complete(b"short".to_vec())]
        );
    }

    #[test]
    fn the_longest_line_is_kept() {
        for end in ["\n", "\r\n"] {
            let mut decoder = Decoder::default();
            decoder.feed(&vec![b'x'; LONGEST_LINE]);
            assert_eq!(decoder.next_line(), None);
            decoder.feed(end.as_bytes());
            assert_eq!(
                decoder.next_line(),
                Some(Line::Complete(vec![b'x'; LONGEST_LINE]))
            );
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(0xc3), Just(0xa9), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let mut whole = Decoder::default();
            whole.feed(&bytes);
            let expected = all_lines(&mut whole);

            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut pieces = Decoder::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                pieces.feed(&bytes[pair[0]..pair[1]]);
                found.extend(all_lines(&mut pieces));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
