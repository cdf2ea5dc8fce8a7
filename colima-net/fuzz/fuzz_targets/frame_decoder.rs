//! Any bytes decode to frames or an error, and what decodes encodes to the same bytes.
#![no_main]

use colima_net::mux::frame::{Decoded, Frame, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Decoded::Frame { frame, consumed }) = decode(rest) {
        // The text of a refusal is made harmless on the way in.
        if !matches!(frame, Frame::Refuse { .. }) {
            let mut again = Vec::new();
            encode(&frame, &mut again);
            assert_eq!(again, &rest[..consumed]);
        }
        rest = &rest[consumed..];
    }
});
