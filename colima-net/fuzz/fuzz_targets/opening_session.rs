//! The opening side survives any peer: this one shakes hands and then sends anything.
#![no_main]

use colima_net::{Mux, MuxConfig};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Zeros, as many as the wire format says, and the hello behind them.
const GREETING: usize = colima_net::mux::frame::PREAMBLE_LEN + 37;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (host, mut guest) = tokio::io::duplex(1 << 20);
        let config = MuxConfig {
            window: 1000,
            ..MuxConfig::default()
        };
        let mux = Mux::over(host, config);
        let mut greeting = vec![0; GREETING];
        guest.read_exact(&mut greeting).await.expect("a hello");
        let nonce = &greeting[GREETING - 21..GREETING - 5];
        let answer = [b"colima-mux-ready", nonce, &[0, 1, 0xC3]].concat();
        guest.write_all(&answer).await.expect("an answer");

        let user = tokio::spawn(async move {
            let endpoint = colima_core::Endpoint::Service("x".into());
            let Ok(mut stream) = mux.open(&endpoint).await else {
                return;
            };
            let _ = stream.write_all(&[1; 3000]).await;
            let mut seen = Vec::new();
            let _ = stream.read_to_end(&mut seen).await;
        });
        // The open is on its way before the answer to it.
        let mut header = [0; 8];
        guest.read_exact(&mut header).await.expect("an open");
        let _ = guest.write_all(bytes).await;
        let _ = guest.shutdown().await;
        let mut rest = Vec::new();
        let _ = guest.read_to_end(&mut rest).await;
        user.await.expect("no panic");
    });
});
