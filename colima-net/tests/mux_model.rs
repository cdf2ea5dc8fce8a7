//! Whole sessions against a model: random scripts over links of random sizes.

use std::io;

use colima_net::mux::{Mux, MuxConfig, MuxStream, ServeConfig};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::mux_streams::{serve_to_channel, service};

/// What one side of a stream does.
#[derive(Clone, Debug)]
struct Script {
    writes: Vec<usize>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// Ends its direction, and reads the other to its end.
    Finish,
    /// Drops the stream after its writes.
    Drop,
}

/// What one side saw.
#[derive(Debug)]
struct Outcome {
    seen: Vec<u8>,
    read: io::Result<()>,
    wrote: io::Result<()>,
}

fn script() -> impl Strategy<Value = Script> {
    let writes = proptest::collection::vec(0_usize..5000, 0..6);
    let ending = prop_oneof![4 => Just(Ending::Finish), 1 => Just(Ending::Drop)];
    (writes, ending).prop_map(|(writes, ending)| Script { writes, ending })
}

/// The bytes that a side writes; every position of every stream is different from its neighbours.
fn bytes_of(script: &Script, seed: usize) -> Vec<u8> {
    (0..script.writes.iter().sum::<usize>())
        .map(|i| ((i * 31 + i / 251 + seed * 101) % 255).to_le_bytes()[0])
        .collect()
}

async fn perform(stream: MuxStream, script: Script, seed: usize) -> Outcome {
    let (mut read, mut write) = tokio::io::split(stream);
    let bytes = bytes_of(&script, seed);
    let writing = async {
        let mut rest = &bytes[..];
        for n in script.writes {
            let (now, later) = rest.split_at(n);
            write.write_all(now).await?;
            rest = later;
        }
        if script.ending == Ending::Finish {
            write.shutdown().await?;
        }
        Ok(())
    };
    let mut seen = Vec::new();
    if script.ending == Ending::Drop {
        let wrote = writing.await;
        let read = Ok(());
        return Outcome { seen, read, wrote };
    }
    let (wrote, read) = tokio::join!(writing, read.read_to_end(&mut seen));
    let read = read.map(|_| ());
    Outcome { seen, read, wrote }
}

/// Compares what a side saw with what its peer's script allows.
fn check(outcome: &Outcome, own: &Script, peer: &Script, peer_seed: usize) {
    let sent = bytes_of(peer, peer_seed);
    if own.ending == Ending::Drop {
        return;
    }
    assert!(
        sent.starts_with(&outcome.seen),
        "bytes that were never sent"
    );
    if peer.ending == Ending::Finish {
        outcome.read.as_ref().unwrap();
        outcome.wrote.as_ref().unwrap();
        assert_eq!(outcome.seen.len(), sent.len());
    } else {
        let error = outcome.read.as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sessions_do_what_the_model_says(
        scripts in proptest::collection::vec((script(), script()), 1..6),
        bytes_in_link in 1_usize..300,
        window in 2_u32..3000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (host, guest) = tokio::io::duplex(bytes_in_link);
            let max_streams = 100;
            let mut incoming = serve_to_channel(guest, ServeConfig { window, max_streams });
            let mux = Mux::over(host, MuxConfig { window, ..MuxConfig::default() });
            let mut tasks = Vec::new();
            for (i, (near_script, far_script)) in scripts.iter().cloned().enumerate() {
                let endpoint = service("model");
                let (near, far) = tokio::join!(mux.open(&endpoint), async {
                    incoming.recv().await.unwrap().accept()
                });
                let near = tokio::spawn(perform(near.unwrap(), near_script, 2 * i));
                let far = tokio::spawn(perform(far, far_script, 2 * i + 1));
                tasks.push((near, far));
            }
            for (i, ((near, far), (near_script, far_script))) in
                tasks.into_iter().zip(&scripts).enumerate()
            {
                check(&near.await.unwrap(), near_script, far_script, 2 * i + 1);
                check(&far.await.unwrap(), far_script, near_script, 2 * i);
            }
            while mux.open_streams() > 0 {
                tokio::task::yield_now().await;
            }
            mux.close().await;
        });
    }
}
