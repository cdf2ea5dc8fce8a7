//! A peer that breaks the rules ends its session with a typed error, and nothing else.

use colima_core::Endpoint;
use colima_net::{
    NetError, Violation,
    mux::{
        LinkState, Mux, MuxConfig,
        frame::{Decoded, Frame, decode, encode},
    },
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::mux_streams::service;

/// Plays the accepting side by hand: answers the hello as the wire format says.
pub(crate) async fn answer_hello(link: &mut DuplexStream) {
    let magic = b"colima-mux-hello";
    let mut seen = Vec::new();
    let nonce = loop {
        seen.push(link.read_u8().await.unwrap());
        if let Some(at) = seen.windows(16).position(|window| window == magic)
            && seen.len() == at + 37
        {
            break seen[at + 16..at + 32].to_vec();
        }
        if seen.len() > 100 && seen.ends_with(&[0; 100]) {
            seen.clear(); // The preamble.
        }
    };
    let answer = [b"colima-mux-ready", &nonce[..], &[0, 1, 0xC3]].concat();
    link.write_all(&answer).await.unwrap();
}

/// What the mux says about a peer that sends these frames after it was asked for stream 1.
async fn reaction(frames: &[Frame<'_>], tail: &[u8]) -> NetErrorText {
    let (host, mut guest) = tokio::io::duplex(1 << 20);
    let config = MuxConfig {
        window: 1000,
        ..MuxConfig::default()
    };
    let mux = Mux::over(host, config);
    answer_hello(&mut guest).await;
    let opener = tokio::spawn({
        let mux = mux.clone();
        async move { mux.open(&service("x")).await.map(std::mem::forget) }
    });
    let mut header = [0; 8];
    guest.read_exact(&mut header).await.unwrap();
    assert_eq!(header[0], 1, "an open");
    let mut bytes = Vec::new();
    for frame in frames {
        encode(frame, &mut bytes);
    }
    bytes.extend(tail);
    guest.write_all(&bytes).await.unwrap();
    guest.shutdown().await.unwrap();
    let mut state = mux.state();
    let closed = state
        .wait_for(|state| matches!(state, LinkState::Closed { .. }))
        .await
        .unwrap();
    let LinkState::Closed { reason } = &*closed else {
        panic!("not closed");
    };
    opener.abort();
    match &**reason {
        NetError::Violation { violation } => NetErrorText::Violation(*violation),
        NetError::LinkEnded => NetErrorText::LinkEnded,
        // Zeros, and then nobody to shake hands with.
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, PartialEq)]
enum NetErrorText {
    Violation(Violation),
    LinkEnded,
}

use NetErrorText::{LinkEnded, Violation as Broke};

const ACCEPT: Frame<'static> = Frame::Accept {
    stream: 1,
    credit: 10,
};

#[tokio::test]
async fn every_rule_has_its_violation() {
    let stream = 1;
    let data = |bytes| Frame::Data { stream, bytes };
    let out_of_place = Broke(Violation::OutOfPlace { stream });

    // The credit is exactly the credit.
    assert_eq!(reaction(&[ACCEPT, data(&[0; 1000])], &[]).await, LinkEnded);
    let over = [ACCEPT, data(&[0; 1000]), data(&[0; 1])];
    assert_eq!(
        reaction(&over, &[]).await,
        Broke(Violation::Credit { stream })
    );

    // Nothing before the accept, no second accept, nothing after the end.
    assert_eq!(reaction(&[data(b"x")], &[]).await, out_of_place);
    assert_eq!(reaction(&[ACCEPT, ACCEPT], &[]).await, out_of_place);
    let fin = Frame::Fin { stream };
    let late = [ACCEPT, fin.clone(), data(b"x")];
    assert_eq!(reaction(&late, &[]).await, out_of_place);
    assert_eq!(
        reaction(&[ACCEPT, fin.clone(), fin], &[]).await,
        out_of_place
    );

    // Streams of the guest's own making.
    let open = Frame::Open {
        stream: 2,
        credit: 1,
        endpoint: Endpoint::Service("evil".into()),
    };
    let unwanted = Broke(Violation::Open { stream: 2 });
    assert_eq!(reaction(&[open], &[]).await, unwanted);

    // What is no frame.
    let garbled = Broke(Violation::Frame);
    assert_eq!(reaction(&[ACCEPT], &[99]).await, garbled);
    assert_eq!(reaction(&[], &[4, 0xff, 0, 0, 0, 0, 0, 1]).await, garbled);

    // Credit without end and frames for streams that do not exist are harmless.
    let credit = Frame::Credit {
        stream,
        bytes: u32::MAX,
    };
    let stray = Frame::Reset { stream: 77 };
    let much = [ACCEPT, credit.clone(), credit, stray];
    assert_eq!(reaction(&much, &[]).await, LinkEnded);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = 1_u32..6;
    let frame = prop_oneof![
        (stream.clone(), any::<u32>())
            .prop_map(|(stream, credit)| Frame::Accept { stream, credit }),
        (stream.clone(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        stream.clone().prop_map(|stream| Frame::Fin { stream }),
        stream.clone().prop_map(|stream| Frame::Reset { stream }),
        stream.prop_map(|stream| Frame::Data {
            stream,
            bytes: b"some bytes of a stream"
        }),
        any::<u64>().prop_map(|token| Frame::Ping { token }),
    ];
    let frame = frame.prop_map(|frame| {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes);
        bytes
    });
    prop_oneof![
        9 => frame,
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever follows the handshake, the host comes to an end with an error and does not panic.
    #[test]
    fn no_sequence_of_frames_harms_the_host(
        frames in proptest::collection::vec(any_frame(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (host, mut guest) = tokio::io::duplex(1 << 20);
            let mux = Mux::over(host, MuxConfig { window: 100, ..MuxConfig::default() });
            answer_hello(&mut guest).await;
            let users: Vec<_> = (0..3).map(|_| {
                let mux = mux.clone();
                tokio::spawn(async move {
                    let mut stream = mux.open(&service("x")).await?;
                    let _ = stream.write_all(&[1; 500]).await;
                    let mut seen = Vec::new();
                    let _ = stream.read_to_end(&mut seen).await;
                    Ok::<_, NetError>(seen)
                })
            }).collect();
            guest.write_all(&frames.concat()).await.unwrap();
            guest.shutdown().await.unwrap();
            // Everything the host says is well-formed to the end.
            let mut said = Vec::new();
            guest.read_to_end(&mut said).await.unwrap();
            let mut rest = &said[..];
            while let Ok(Decoded::Frame { consumed, .. }) = decode(rest) {
                rest = &rest[consumed..];
            }
            prop_assert!(rest.is_empty() || rest[0] == 0 || decode(rest) == Ok(Decoded::Incomplete));
            for user in users {
                // An error or some bytes, but an end.
                if let Ok(seen) = user.await.unwrap() {
                    prop_assert!(seen.len() <= 22 * 40);
                }
            }
            Ok(())
        })?;
    }
}
