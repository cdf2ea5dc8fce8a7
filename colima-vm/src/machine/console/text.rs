//! Guest bytes to text that a terminal can bear.

/// Text of untrusted bytes: control characters, invalid UTF-8, and characters that reorder or hide
/// text become visible escapes; tabs become spaces; carriage returns at the end vanish.
///
/// ```
/// use colima_vm::machine::console::escape;
///
/// assert_eq!(escape(b"ok\r"), "ok");
/// assert_eq!(escape(b"\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
/// ```
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.trim_ascii_end().utf8_chunks() {
        for character in chunk.valid().chars() {
            let _ = match character {
                '\t' => write!(text, " "),
                '\0'..=' ' if character != ' ' => write!(text, "\\x{:02x}", u32::from(character)),
                '\u{7f}'..='\u{9f}' => write!(text, "\\x{:02x}", u32::from(character)),
                _ if reorders_or_hides(character) => {
                    write!(text, "\\u{{{:x}}}", u32::from(character))
                }
                _ => write!(text, "{character}"),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Bidirectional controls, zero-width characters and line separators (Unicode TR36).
fn reorders_or_hides(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// The last `count` lines, escaped, without empty ones.
pub(in crate::machine) fn last_lines(bytes: &[u8], count: usize) -> Vec<String> {
    let mut lines: Vec<String> = bytes
        .rsplit(|byte| *byte == b'\n')
        .map(escape)
        .filter(|line| !line.is_empty())
        .take(count)
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_guest_may_try() {
        for (bytes, text) in [
            (&b"plain \xc3\xa4"[..], "plain \u{e4}"),
            (b"\x1b[2J", "\\x1b[2J"),
            (b"a\tb\x00c", "a b\\x00c"),
            (b"\xc2\x9b31m", "\\x9b31m"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}txt".as_bytes(), "\\u{202e}txt"),
            (b"over\rwrite\r", "over\\x0dwrite"),
        ] {
            assert_eq!(escape(bytes), text);
        }
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines(b"a\r\n\r\nb\nc", 2), ["b", "c"]);
        assert_eq!(last_lines(b"", 2), [""; 0]);
    }

    proptest! {
        #[test]
        fn nothing_dangerous_is_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(|c| c.is_control() || reorders_or_hides(c)), "{text:?}");
        }
    }
}
