//! How two sides that know nothing of each other's past agree on a beginning.
//!
//! A virtio-serial port keeps bytes of earlier connections in both directions, and either side may
//! have died in the middle of a frame. So the opening side sends [`PREAMBLE_LEN`] zeros, which end
//! any cut frame and throw the accepting side back to scanning, and then a hello with a fresh
//! nonce. Both sides skip whatever they do not recognise until the hello, or the answer that carries
//! the nonce, appears.
//!
//! ```text
//! hello   "colima-mux-hello"  nonce (16)  oldest version (2)  newest version (2)  TRAILER
//! answer  "colima-mux-ready"  nonce (16)  version (2), 0 when there is no common one  TRAILER
//! ```

use std::{io, ops::RangeInclusive};

use super::frame::{PREAMBLE_LEN, TRAILER};

/// The protocol versions that this code speaks.
pub(super) const VERSIONS: RangeInclusive<u16> = 1..=1;

/// Makes the answer to one hello recognisable among stale bytes.
pub(super) type Nonce = [u8; 16];

const HELLO: &[u8; 16] = b"colima-mux-hello";
const ANSWER: &[u8; 16] = b"colima-mux-ready";

/// A fresh nonce from the system's random source.
pub(super) fn fresh_nonce() -> io::Result<Nonce> {
    let mut nonce = Nonce::default();
    #[cfg(target_os = "linux")]
    {
        let mut filled = 0;
        while filled < nonce.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled +=
                rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut nonce[filled..], flags))?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut nonce)?;
    Ok(nonce)
}

/// What the opening side sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) nonce: Nonce,
    pub(super) versions: RangeInclusive<u16>,
}

impl Hello {
    /// The preamble and the hello.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        preamble(out);
        out.extend_from_slice(HELLO);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.versions.start().to_be_bytes());
        out.extend_from_slice(&self.versions.end().to_be_bytes());
        out.push(TRAILER);
    }

    /// The newest version that both sides speak.
    pub(super) fn choose_version(&self) -> Option<u16> {
        let newest = *self.versions.end().min(VERSIONS.end());
        let oldest = *self.versions.start().max(VERSIONS.start());
        (oldest <= newest).then_some(newest)
    }
}

/// What the accepting side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) nonce: Nonce,
    /// `None` when there is no common version.
    pub(super) version: Option<u16>,
}

impl Answer {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(ANSWER);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.version.unwrap_or(0).to_be_bytes());
        out.push(TRAILER);
    }
}

/// Appends the zeros that tell the peer of a new beginning.
pub(super) fn preamble(out: &mut Vec<u8>) {
    out.resize(out.len() + PREAMBLE_LEN, 0);
}

/// The outcome of looking for a message among bytes of unknown meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scan<T> {
    /// The message, and the number of bytes up to its end.
    Found { message: T, consumed: usize },
    /// No message yet; this many bytes can never become part of one.
    Nothing { useless: usize },
}

/// Looks for the first whole hello.
pub(super) fn find_hello(bytes: &[u8]) -> Scan<Hello> {
    find(bytes, HELLO, |body: &[u8; 21]| {
        let [nonce @ .., o0, o1, n0, n1, end] = *body;
        let (oldest, newest) = (u16::from_be_bytes([o0, o1]), u16::from_be_bytes([n0, n1]));
        let versions = oldest..=newest;
        (end == TRAILER && oldest != 0 && !versions.is_empty()).then_some(Hello { nonce, versions })
    })
}

/// Looks for the answer to the hello with `nonce`; answers to other hellos are skipped.
pub(super) fn find_answer(bytes: &[u8], nonce: Nonce) -> Scan<Answer> {
    find(bytes, ANSWER, |body: &[u8; 19]| {
        let [answered @ .., v0, v1, end] = *body;
        let version = u16::from_be_bytes([v0, v1]);
        (end == TRAILER && answered == nonce).then_some(Answer {
            nonce,
            version: (version != 0).then_some(version),
        })
    })
}

fn find<T, const BODY: usize>(
    bytes: &[u8],
    magic: &[u8; 16],
    parse: impl Fn(&[u8; BODY]) -> Option<T>,
) -> Scan<T> {
    let mut at = 0;
    while let Some(step) = bytes[at..].iter().position(|&byte| byte == magic[0]) {
        at += step;
        let candidate = &bytes[at..];
        let compared = candidate.len().min(magic.len());
        if candidate[..compared] == magic[..compared] {
            match candidate[compared..].first_chunk::<BODY>() {
                None => return Scan::Nothing { useless: at },
                Some(body) => {
                    if let Some(message) = parse(body) {
                        let consumed = at + magic.len() + BODY;
                        return Scan::Found { message, consumed };
                    }
                }
            }
        }
        at += 1;
    }
    Scan::Nothing {
        useless: bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(nonce: Nonce) -> Vec<u8> {
        let mut out = Vec::new();
        let versions = 1..=3;
        Hello { nonce, versions }.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn a_hello_is_found_behind_anything(
            mut noise in proptest::collection::vec(any::<u8>(), 0..100),
            cut in 0_usize..37,
            nonce in any::<Nonce>(),
        ) {
            // An earlier hello that was cut, then ours.
            noise.extend(&hello([7; 16])[PREAMBLE_LEN..PREAMBLE_LEN + cut]);
            let mut bytes = noise.clone();
            bytes.extend(hello(nonce));
            let expected = Scan::Found {
                message: Hello { nonce, versions: 1..=3 },
                consumed: bytes.len(),
            };
            prop_assert_eq!(find_hello(&bytes), expected);
        }

        #[test]
        fn what_is_useless_can_be_forgotten(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            split in any::<proptest::sample::Index>(),
        ) {
            let mut whole = bytes;
            whole.extend(&hello([9; 16])[PREAMBLE_LEN..]);
            let split = split.index(whole.len());
            let Scan::Nothing { useless } = find_hello(&whole[..split]) else {
                return Ok(()); // The noise happened to contain one.
            };
            let Scan::Found { consumed, .. } = find_hello(&whole[useless..]) else {
                panic!("lost behind {useless} bytes");
            };
            prop_assert_eq!(useless + consumed, whole.len());
        }
    }

    #[test]
    fn only_the_answer_to_the_own_hello_counts() {
        let mut bytes = Vec::new();
        for nonce in [[1; 16], [2; 16]] {
            let version = Some(1);
            Answer { nonce, version }.encode(&mut bytes);
        }
        let Scan::Found { message, consumed } = find_answer(&bytes, [2; 16]) else {
            panic!("the answer was not found");
        };
        assert_eq!((message.version, consumed), (Some(1), bytes.len()));
        let useless = bytes.len();
        assert_eq!(find_answer(&bytes, [3; 16]), Scan::Nothing { useless });
    }

    #[test]
    fn versions() {
        let choose = |versions| {
            let nonce = [0; 16];
            Hello { nonce, versions }.choose_version()
        };
        assert_eq!(choose(1..=1), Some(1));
        assert_eq!(choose(1..=9), Some(1));
        assert_eq!(choose(2..=9), None);
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(fresh_nonce().unwrap(), fresh_nonce().unwrap());
    }
}
