//! Frames on the wire: bytes to values and back, without I/O.
//!
//! ```text
//! byte 0      kind, never zero
//! bytes 1-3   length of the payload, big endian, at most MAX_PAYLOAD
//! bytes 4-7   stream, big endian; 0 for the session itself
//! payload
//! last byte   TRAILER, never zero
//! ```
//!
//! The trailer exists for one reason: a sender may die in the middle of a frame while the link
//! stays up. Its successor begins with [`PREAMBLE_LEN`] zeros, which complete the cut frame, fail
//! at its trailer, and so never reach a stream as data.

use colima_core::Endpoint;

use super::{
    endpoint_bytes,
    refusal::{Reason, Refusal},
};

/// Most payload bytes of one frame.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 8;

/// The byte after every payload.
pub const TRAILER: u8 = 0xC3;

/// Most bytes of one frame.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_PAYLOAD + 1;

/// Zeros that end any frame cut anywhere and make the next header invalid.
pub const PREAMBLE_LEN: usize = MAX_FRAME + HEADER_LEN;

/// The number of a stream; never 0. The opening side of the link takes odd numbers.
pub type StreamId = u32;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Asks for a stream to an endpoint and grants the first credit, in bytes.
    Open {
        /// The new stream, chosen by the sender.
        stream: StreamId,
        /// Bytes that the receiver may send at once.
        credit: u32,
        /// Where the stream shall lead.
        endpoint: Endpoint,
    },
    /// Answers `Open`: the stream exists.
    Accept {
        /// The stream that was asked for.
        stream: StreamId,
        /// Bytes that the receiver may send at once.
        credit: u32,
    },
    /// Answers `Open`: there will be no stream.
    Refuse {
        /// The stream that was asked for.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: StreamId,
        /// 1 to [`MAX_PAYLOAD`] bytes.
        bytes: &'a [u8],
    },
    /// Grants more credit.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Additional bytes that the receiver may send.
        bytes: u32,
    },
    /// The sender has sent everything on this stream; the other direction stays open.
    Fin {
        /// The stream.
        stream: StreamId,
    },
    /// The sender has forgotten the stream, in both directions.
    Reset {
        /// The stream.
        stream: StreamId,
    },
    /// Asks for a `Pong` with the same token.
    Ping {
        /// Any value.
        token: u64,
    },
    /// Answers `Ping`.
    Pong {
        /// The token of the `Ping`.
        token: u64,
    },
}

const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const REFUSE: u8 = 3;
const DATA: u8 = 4;
const CREDIT: u8 = 5;
const FIN: u8 = 6;
const RESET: u8 = 7;
const PING: u8 = 8;
const PONG: u8 = 9;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A zero where none can be: the preamble of a peer that started anew.
    #[error("the peer started a new session")]
    Restarted,
    /// A kind this version does not know.
    #[error("frame of unknown kind {kind}")]
    UnknownKind {
        /// The first byte of the frame.
        kind: u8,
    },
    /// A payload above [`MAX_PAYLOAD`].
    #[error("frame of {length} bytes, above the limit of {MAX_PAYLOAD}")]
    Oversized {
        /// The length that the header claims.
        length: usize,
    },
    /// The payload does not fit the kind.
    #[error("malformed frame of kind {kind}")]
    Malformed {
        /// The first byte of the frame.
        kind: u8,
    },
}

/// The outcome of [`decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// More bytes are needed.
    Incomplete,
    /// A frame, and how many bytes it took.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its length on the wire.
        consumed: usize,
    },
}

/// Decodes the frame at the beginning of `bytes`.
///
/// A frame is delivered only when all of it is there.
///
/// # Errors
///
/// The bytes cannot become a frame, whatever follows them.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, FrameError> {
    let Some(&kind) = bytes.first() else {
        return Ok(Decoded::Incomplete);
    };
    match kind {
        0 => return Err(FrameError::Restarted),
        OPEN..=PONG => {}
        _ => return Err(FrameError::UnknownKind { kind }),
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(Decoded::Incomplete);
    };
    let [_, l0, l1, l2, stream @ ..] = *header;
    let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
    let stream = u32::from_be_bytes(stream);
    if length > MAX_PAYLOAD {
        return Err(FrameError::Oversized { length });
    }
    let Some(&trailer) = rest.get(length) else {
        return Ok(Decoded::Incomplete);
    };
    match trailer {
        TRAILER => {}
        0 => return Err(FrameError::Restarted),
        _ => return Err(FrameError::Malformed { kind }),
    }
    let frame = interpret(kind, stream, &rest[..length]).ok_or(FrameError::Malformed { kind })?;
    let consumed = HEADER_LEN + length + 1;
    Ok(Decoded::Frame { frame, consumed })
}

/// Gives a well-formed frame its meaning, or `None` where the payload does not fit.
fn interpret(kind: u8, stream: StreamId, payload: &[u8]) -> Option<Frame<'_>> {
    if (stream == 0) != matches!(kind, PING | PONG) {
        return None;
    }
    let number = || Some(u32::from_be_bytes(payload.try_into().ok()?));
    let token = || Some(u64::from_be_bytes(payload.try_into().ok()?));
    Some(match kind {
        OPEN => {
            let (credit, endpoint) = payload.split_first_chunk()?;
            Frame::Open {
                stream,
                credit: u32::from_be_bytes(*credit),
                endpoint: endpoint_bytes::decode(endpoint)?,
            }
        }
        ACCEPT => Frame::Accept {
            stream,
            credit: number()?,
        },
        REFUSE => {
            let (&reason, message) = payload.split_first()?;
            Frame::Refuse {
                stream,
                refusal: Refusal::from_wire(Reason::from_byte(reason), message),
            }
        }
        DATA if !payload.is_empty() => Frame::Data {
            stream,
            bytes: payload,
        },
        CREDIT => Frame::Credit {
            stream,
            bytes: number()?,
        },
        FIN if payload.is_empty() => Frame::Fin { stream },
        RESET if payload.is_empty() => Frame::Reset { stream },
        PING => Frame::Ping { token: token()? },
        PONG => Frame::Pong { token: token()? },
        _ => return None,
    })
}

/// Appends a frame to `out`.
///
/// # Panics
///
/// When a payload is above [`MAX_PAYLOAD`]; every other part of a frame is bounded by its type.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        Frame::Open {
            stream,
            credit,
            endpoint,
        } => put(out, OPEN, *stream, |out| {
            out.extend_from_slice(&credit.to_be_bytes());
            endpoint_bytes::encode(endpoint, out);
        }),
        Frame::Accept { stream, credit } => put(out, ACCEPT, *stream, |out| {
            out.extend_from_slice(&credit.to_be_bytes());
        }),
        Frame::Refuse { stream, refusal } => put(out, REFUSE, *stream, |out| {
            out.push(refusal.reason().to_byte());
            out.extend_from_slice(refusal.message().as_bytes());
        }),
        Frame::Data { stream, bytes } => put(out, DATA, *stream, |out| {
            out.extend_from_slice(bytes);
        }),
        Frame::Credit { stream, bytes } => put(out, CREDIT, *stream, |out| {
            out.extend_from_slice(&bytes.to_be_bytes());
        }),
        Frame::Fin { stream } => put(out, FIN, *stream, |_| {}),
        Frame::Reset { stream } => put(out, RESET, *stream, |_| {}),
        Frame::Ping { token } => put(out, PING, 0, |out| {
            out.extend_from_slice(&token.to_be_bytes());
        }),
        Frame::Pong { token } => put(out, PONG, 0, |out| {
            out.extend_from_slice(&token.to_be_bytes());
        }),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, stream: StreamId, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&stream.to_be_bytes());
    payload(out);
    let length = out.len() - start - HEADER_LEN;
    assert!(length <= MAX_PAYLOAD, "a payload of {length} bytes");
    let [.., l0, l1, l2] = length.to_be_bytes();
    out[start + 1..start + 4].copy_from_slice(&[l0, l1, l2]);
    out.push(TRAILER);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        prop_oneof![
            "/[a-z/.]{0,100}".prop_map(|path| Endpoint::Unix(path.into())),
            ("[a-z.:0-9]{1,60}", 1_u16..).prop_map(|(host, port)| Endpoint::Tcp { host, port }),
            "\\PC{1,20}".prop_map(Endpoint::Service),
        ]
    }

    fn owned_frame() -> impl Strategy<Value = (Frame<'static>, Vec<u8>)> {
        let stream = 1_u32..;
        let plain = prop_oneof![
            (stream.clone(), any::<u32>(), endpoint()).prop_map(|(stream, credit, endpoint)| {
                Frame::Open {
                    stream,
                    credit,
                    endpoint,
                }
            }),
            (stream.clone(), any::<u32>())
                .prop_map(|(stream, credit)| Frame::Accept { stream, credit }),
            (stream.clone(), any::<u8>(), "\\PC{0,40}").prop_map(|(stream, reason, text)| {
                Frame::Refuse {
                    stream,
                    refusal: Refusal::from_wire(Reason::from_byte(reason), text.as_bytes()),
                }
            }),
            (stream.clone(), any::<u32>())
                .prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
            stream.clone().prop_map(|stream| Frame::Fin { stream }),
            stream.clone().prop_map(|stream| Frame::Reset { stream }),
            any::<u64>().prop_map(|token| Frame::Ping { token }),
            any::<u64>().prop_map(|token| Frame::Pong { token }),
        ]
        .prop_map(|frame| (frame, Vec::new()));
        let data = (stream, proptest::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(stream, bytes)| (Frame::Data { stream, bytes: &[] }, bytes));
        prop_oneof![3 => plain, 1 => data]
    }

    fn wire(frames: &[(Frame<'static>, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (frame, bytes) in frames {
            match frame {
                Frame::Data { stream, .. } => {
                    let stream = *stream;
                    encode(&Frame::Data { stream, bytes }, &mut out);
                }
                other => encode(other, &mut out),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire(frames in proptest::collection::vec(owned_frame(), 0..8)) {
            let bytes = wire(&frames);
            let mut rest = &bytes[..];
            for (frame, data) in &frames {
                let Ok(Decoded::Frame { frame: seen, consumed }) = decode(rest) else {
                    panic!("{:?}", decode(rest));
                };
                match (&seen, frame) {
                    (Frame::Data { stream, bytes }, Frame::Data { stream: wanted, .. }) => {
                        prop_assert_eq!(stream, wanted);
                        prop_assert_eq!(bytes, data);
                    }
                    _ => prop_assert_eq!(&seen, frame),
                }
                rest = &rest[consumed..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_chunking_gives_the_same_frames(
            frames in proptest::collection::vec(owned_frame(), 1..6),
            sizes in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let bytes = wire(&frames);
            let mut sizes = sizes.iter().cycle();
            let (mut seen, mut start, mut end) = (Vec::new(), 0, 0);
            while end < bytes.len() {
                end = bytes.len().min(end + sizes.next().copied().unwrap_or(1));
                while let Decoded::Frame { frame, consumed } = decode(&bytes[start..end]).unwrap() {
                    encode(&frame, &mut seen);
                    start += consumed;
                }
            }
            prop_assert_eq!(seen, bytes);
        }

        #[test]
        fn arbitrary_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn almost_frames_are_answered(
            kind in 0_u8..12,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = Vec::new();
            put(&mut bytes, kind, 1, |out| out.extend_from_slice(&payload));
            let _ = decode(&bytes);
        }

        /// The promise of the preamble.
        #[test]
        fn a_frame_cut_anywhere_and_followed_by_zeros_is_a_restart(
            frame in owned_frame(),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = wire(&[frame]);
            bytes.truncate(cut.index(bytes.len()));
            bytes.resize(bytes.len() + PREAMBLE_LEN, 0);
            prop_assert_eq!(decode(&bytes), Err(FrameError::Restarted));
        }
    }

    #[test]
    fn limits() {
        assert_eq!(
            decode(&[DATA, 0, 0x80, 1, 0, 0, 0, 1]),
            Err(FrameError::Oversized { length: 32_769 })
        );
        assert_eq!(decode(&[77]), Err(FrameError::UnknownKind { kind: 77 }));
        let mut largest = Vec::new();
        let bytes = vec![0; MAX_PAYLOAD];
        encode(
            &Frame::Data {
                stream: 1,
                bytes: &bytes,
            },
            &mut largest,
        );
        assert_eq!(largest.len(), MAX_FRAME);
        assert!(matches!(decode(&largest), Ok(Decoded::Frame { .. })));
    }
}
