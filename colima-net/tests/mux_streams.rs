//! Streams through a multiplexer: half-close, isolation, refusals, limits.

use std::{io, time::Duration};

use colima_core::{Connect as _, Endpoint};
use colima_net::{
    NetError,
    mux::{Incoming, Mux, MuxConfig, MuxStream, ServeConfig, serve},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};

/// Generous: only a hang is to be found out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn service(name: &str) -> Endpoint {
    Endpoint::Service(name.to_owned())
}

/// A mux whose peer hands every incoming stream to the test.
fn pair(bytes_in_link: usize, config: ServeConfig) -> (Mux, mpsc::UnboundedReceiver<Incoming>) {
    let (host, guest) = tokio::io::duplex(bytes_in_link);
    (
        Mux::over(host, MuxConfig::default()),
        serve_to_channel(guest, config),
    )
}

fn serve_to_channel(guest: DuplexStream, config: ServeConfig) -> mpsc::UnboundedReceiver<Incoming> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        serve(guest, config, |incoming| {
            sender.send(incoming).unwrap();
            std::future::ready(())
        })
        .await
    });
    receiver
}

async fn open(
    mux: &Mux,
    incoming: &mut mpsc::UnboundedReceiver<Incoming>,
) -> (MuxStream, MuxStream) {
    let endpoint = service("test");
    let (near, far) = tokio::join!(mux.open(&endpoint), async {
        incoming.recv().await.unwrap().accept()
    });
    (near.unwrap(), far)
}

#[tokio::test]
async fn each_direction_ends_on_its_own_with_data_in_flight() {
    let (mux, mut incoming) = pair(100, ServeConfig::default());
    let sent: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0] ^ 7).collect();

    // The opener ends first.
    let (mut near, mut far) = open(&mux, &mut incoming).await;
    let bytes = sent.clone();
    let far_side = tokio::spawn(async move {
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).await.unwrap();
        far.write_all(&seen).await.unwrap();
        far.shutdown().await.unwrap();
        seen
    });
    near.write_all(&bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let mut back = Vec::new();
    near.read_to_end(&mut back).await.unwrap();
    assert!(far_side.await.unwrap() == sent && back == sent);

    // The acceptor ends first, and still hears everything.
    let (mut near, mut far) = open(&mux, &mut incoming).await;
    far.write_all(b"bye").await.unwrap();
    far.shutdown().await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"bye");
    let bytes = sent.clone();
    let near_side = tokio::spawn(async move {
        near.write_all(&bytes).await.unwrap();
        near.shutdown().await.unwrap();
    });
    let mut seen = Vec::new();
    far.read_to_end(&mut seen).await.unwrap();
    near_side.await.unwrap();
    assert!(seen == sent);
}

#[tokio::test]
async fn refusals_arrive_as_the_error_of_a_local_socket() {
    let (mux, mut incoming) = pair(100, ServeConfig::default());
    for kind in [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::TimedOut,
        io::ErrorKind::Unsupported,
        io::ErrorKind::Other,
    ] {
        let endpoint = service("x");
        let (result, ()) = tokio::join!(mux.connect(&endpoint), async {
            let error = io::Error::new(kind, "no\x1b[31m way");
            incoming.recv().await.unwrap().refuse(&error);
        });
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(
            error.to_string(),
            "service:x was refused: no\u{fffd}[31m way"
        );
    }
    // Not deciding is refusing.
    let endpoint = service("x");
    let (result, ()) = tokio::join!(mux.open(&endpoint), async {
        drop(incoming.recv().await.unwrap());
    });
    assert!(matches!(result, Err(NetError::Refused { .. })));
}
