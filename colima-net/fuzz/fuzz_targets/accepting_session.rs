//! The accepting side survives any bytes, before a hello and behind one.
#![no_main]

use colima_net::mux::{Incoming, ServeConfig, serve};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (before, behind) = input;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut host, guest) = tokio::io::duplex(1 << 20);
        let config = ServeConfig {
            window: 1000,
            max_streams: 4,
        };
        let server = serve(guest, config, |incoming: Incoming| async {
            let (mut read, mut write) = tokio::io::split(incoming.accept());
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        });
        let peer = async {
            let hello = [b"colima-mux-hello", &[7; 16][..], &[0, 1, 0, 1, 0xC3]].concat();
            let bytes = [&before[..], &hello[..], &behind[..]].concat();
            let _ = host.write_all(&bytes).await;
            let _ = host.shutdown().await;
            let mut answers = Vec::new();
            let _ = host.read_to_end(&mut answers).await;
        };
        let _ = tokio::join!(server, peer);
    });
});
