//! Bytes from QEMU in pieces of any size: never a panic, and never dependent on the pieces.
#![no_main]

use colima_vm::machine::qmp::{Decoder, Line, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, &[u8])| {
    let (piece, bytes) = data;
    let mut whole = Decoder::default();
    whole.feed(bytes);
    let expected: Vec<Line> = std::iter::from_fn(|| whole.next_line()).collect();
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(usize::from(piece).max(1)) {
        decoder.feed(piece);
        found.extend(std::iter::from_fn(|| decoder.next_line()));
    }
    assert_eq!(found, expected);
    for line in found {
        if let Line::Complete(line) = line {
            let _ = Message::parse(&line);
        }
    }
});
