//! The percentages that `qemu-img -p` prints.

use std::fmt;

/// How much of an operation is done, from 0 % to 100 %, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

impl Percent {
    /// Everything is done.
    pub const DONE: Self = Self(10_000);

    /// The value in hundredths of a percent, at most 10,000.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
    }
}

/// Finds the percentages in the output, which arrives in pieces of any length.
///
/// QEMU prints `    (12.34/100%)` and a carriage return (`progress_simple_print` in
/// util/qemu-progress.c), and a line feed at the end.
#[derive(Debug, Default)]
pub(crate) struct ProgressParser {
    line: Vec<u8>,
}

/// Longer than any line of progress; the rest of a longer line is ignored.
const LONGEST_LINE: usize = 64;

impl ProgressParser {
    pub(crate) fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Percent)) {
        for &byte in piece {
            match byte {
                b'\r' | b'\n' => {
                    if let Some(percent) = parse(&self.line) {
                        found(percent);
                    }
                    self.line.clear();
                }
                _ if self.line.len() < LONGEST_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<Percent> {
    let text = str::from_utf8(line).ok()?;
    let number = text.trim().strip_prefix('(')?.strip_suffix("/100%)")?;
    let (whole, hundredths) = number.split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    let whole: u16 = whole.parse().ok()?;
    let hundredths: u16 = hundredths.parse().ok()?;
    let value = whole.checked_mul(100)?.checked_add(hundredths)?;
    (value <= Percent::DONE.0).then_some(Percent(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = ProgressParser::default();
        let mut seen = Vec::new();
        for piece in pieces {
            parser.feed(piece, |percent| seen.push(percent.to_string()));
        }
        seen
    }

    #[test]
    fn a_real_transcript_in_pieces() {
        assert_eq!(
            all(&[
                b"    (0.0",
                b"0/100%)\r    (49.97/100%)\r   ",
                b" (100.00/100%)\r\n"
            ]),
            ["0.00%", "49.97%", "100.00%"]
        );
    }

    #[test]
    fn other_lines_are_no_progress() {
        for line in [
            "(nan/100%)",
            "(-1.00/100%)",
            "(100.01/100%)",
            "(1.5/100%)",
            "(9/100%)",
            "",
        ] {
            assert_eq!(all(&[line.as_bytes(), b"\r"]), [""; 0], "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = ProgressParser::default();
            parser.feed(&bytes, |percent| assert!(percent <= Percent::DONE));
            prop_assert!(parser.line.len() <= LONGEST_LINE);
        }

        #[test]
        fn where_the_pieces_break_does_not_matter(value in 0_u16..=10_000, cut in 0_usize..10) {
            let text = format!("    ({}.{:02}/100%)\r", value / 100, value % 100);
            let (head, tail) = text.as_bytes().split_at(cut);
            prop_assert_eq!(all(&[head, tail]), [Percent(value).to_string()]);
        }
    }
}
