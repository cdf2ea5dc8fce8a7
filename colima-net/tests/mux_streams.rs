//! Streams through a multiplexer: half-close, isolation, refusals, limits.

use std::{io, pin::pin};

use colima_core::{Connect as _, Endpoint};
use colima_net::{
    Hangup as _, NetError,
    mux::{Incoming, Mux, MuxConfig, MuxStream, ServeConfig, serve},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};

use crate::stream_bodies::{self, Dropped, Transport};

pub(crate) fn service(name: &str) -> Endpoint {
    Endpoint::Service(name.to_owned())
}

/// A mux whose peer hands every incoming stream to the test.
pub(crate) fn pair(
    bytes_in_link: usize,
    config: ServeConfig,
) -> (Mux, mpsc::UnboundedReceiver<Incoming>) {
    let (host, guest) = tokio::io::duplex(bytes_in_link);
    (
        Mux::over(host, MuxConfig::default()),
        serve_to_channel(guest, config),
    )
}

pub(crate) fn serve_to_channel(
    guest: DuplexStream,
    config: ServeConfig,
) -> mpsc::UnboundedReceiver<Incoming> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        serve(guest, config, |incoming| {
            // A test that has seen enough drops the receiver.
            let _ = sender.send(incoming);
            std::future::ready(())
        })
        .await
    });
    receiver
}

pub(crate) async fn open(
    mux: &Mux,
    incoming: &mut mpsc::UnboundedReceiver<Incoming>,
) -> (MuxStream, MuxStream) {
    let endpoint = service("test");
    let (near, far) = tokio::join!(mux.open(&endpoint), async {
        incoming.recv().await.unwrap().accept()
    });
    (near.unwrap(), far)
}

/// A mux and the streams that its peer accepts.
struct Accepting {
    mux: Mux,
    incoming: mpsc::UnboundedReceiver<Incoming>,
}

impl Accepting {
    fn new() -> Self {
        let (mux, incoming) = pair(4096, ServeConfig::default());
        Self { mux, incoming }
    }
}

impl Transport for Accepting {
    type Near = Mux;
    type Far = MuxStream;

    const DROPPED: Dropped = Dropped::Reset;

    fn near(&self) -> &Mux {
        &self.mux
    }

    fn endpoint(&self) -> Endpoint {
        service("test")
    }

    fn nowhere(&self) -> Endpoint {
        service("nowhere")
    }

    async fn accept(&mut self) -> MuxStream {
        self.incoming.recv().await.unwrap().accept()
    }
}

#[tokio::test]
async fn each_direction_ends_on_its_own_with_data_in_flight() {
    stream_bodies::each_direction_ends_on_its_own_with_data_in_flight(&mut Accepting::new()).await;
}

#[tokio::test]
async fn a_reader_that_stops_does_not_stop_the_others() {
    let mut transport = Accepting::new();
    let taken = stream_bodies::a_reader_that_stops_costs_only_its_own_stream(&mut transport).await;
    assert_eq!(taken, 256 * 1024 + 64 * 1024);
}

#[tokio::test]
async fn what_was_shut_down_before_a_drop_arrives() {
    stream_bodies::what_was_shut_down_before_a_drop_arrives(&mut Accepting::new()).await;
}

#[tokio::test]
async fn a_far_side_that_leaves_ends_the_writer_too() {
    stream_bodies::a_far_side_that_leaves_ends_the_writer_too(&mut Accepting::new()).await;
}

#[tokio::test]
async fn fifty_streams_at_once_carry_their_own_bytes() {
    stream_bodies::fifty_streams_at_once_carry_their_own_bytes(&mut Accepting::new()).await;
}

#[tokio::test]
async fn a_refusal_is_an_error_of_its_own_stream() {
    let (mux, mut asked) = pair(4096, ServeConfig::default());
    let (sender, incoming) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(stream) = asked.recv().await {
            if stream.endpoint() == &service("nowhere") {
                stream.refuse(&io::ErrorKind::ConnectionRefused.into());
            } else if sender.send(stream).is_err() {
                return;
            }
        }
    });
    let mut transport = Accepting { mux, incoming };
    stream_bodies::a_refusal_is_an_error_of_its_own_stream(&mut transport).await;
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

#[tokio::test]
async fn dropping_resets() {
    let (mux, mut incoming) = pair(100, ServeConfig::default());
    let (near, mut far) = open(&mux, &mut incoming).await;
    drop(near);
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    far.hung_up().await;
    let error = far.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    // What was shut down before the drop arrives in full.
    let (mut near, mut far) = open(&mux, &mut incoming).await;
    near.write_all(b"the end").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    far.hung_up().await;
    let mut seen = Vec::new();
    far.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"the end");
    drop(far);
    assert_eq!(mux.open_streams(), 0);
}

#[tokio::test]
async fn an_abandoned_open_leaves_nothing() {
    let (mux, mut incoming) = pair(100, ServeConfig::default());
    let endpoint = service("slow");
    {
        let mut opening = pin!(mux.open(&endpoint));
        let seen = tokio::select! {
            _ = &mut opening => panic!("opened by nobody"),
            seen = incoming.recv() => seen.unwrap(),
        };
        assert_eq!(seen.endpoint(), &endpoint);
        // The acceptor decides after the opener has lost interest.
        tokio::spawn(async move {
            let mut stream = seen.accept();
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
    }
    let (near, far) = open(&mux, &mut incoming).await;
    drop((near, far));
    while mux.open_streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn thousand_streams_leave_no_state() {
    // The peer would refuse if it remembered more than the twenty that are open at once.
    let config = ServeConfig {
        max_streams: 20,
        ..ServeConfig::default()
    };
    let (host, guest) = tokio::io::duplex(1000);
    let mux = Mux::over(host, MuxConfig::default());
    let server = tokio::spawn(serve(guest, config, |incoming| async {
        let mut stream = incoming.accept();
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }));
    for round in 0..100_u32 {
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..10_u32 {
            let mux = mux.clone();
            tasks.spawn(async move {
                let mut stream = mux.open(&service("echo")).await.unwrap();
                let text = format!("{round} {i}").repeat(30);
                stream.write_all(text.as_bytes()).await.unwrap();
                if i == 0 {
                    return; // Dropped in the middle.
                }
                stream.shutdown().await.unwrap();
                let mut back = String::new();
                stream.read_to_string(&mut back).await.unwrap();
                assert_eq!(back, text);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }
    while mux.open_streams() > 0 {
        tokio::task::yield_now().await;
    }
    mux.close().await;
    assert!(server.await.unwrap().is_ok());
}

#[tokio::test]
async fn limits_hold_on_both_sides() {
    let config = ServeConfig {
        max_streams: 2,
        ..ServeConfig::default()
    };
    let (mux, mut incoming) = pair(1000, config);
    let held = [
        open(&mux, &mut incoming).await,
        open(&mux, &mut incoming).await,
    ];
    let error = mux.open(&service("third")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    drop(held);
    open(&mux, &mut incoming).await;

    let (host, guest) = tokio::io::duplex(1000);
    let mut incoming = serve_to_channel(guest, ServeConfig::default());
    let config = MuxConfig {
        max_streams: 1,
        ..MuxConfig::default()
    };
    let mux = Mux::over(host, config);
    let _held = open(&mux, &mut incoming).await;
    let error = mux.open(&service("second")).await.unwrap_err();
    assert!(matches!(error, NetError::TooManyStreams { limit: 1 }));
    let error = mux.open(&service(&"x".repeat(2000))).await.unwrap_err();
    assert!(matches!(error, NetError::Endpoint { .. }));
}

#[tokio::test]
async fn closing_sends_what_was_written_and_fails_what_is_open() {
    let (mux, mut incoming) = pair(100, ServeConfig::default());
    let (mut near, mut far) = open(&mux, &mut incoming).await;
    let (mut open_near, _open_far) = open(&mux, &mut incoming).await;
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).await.map(|_| seen)
    });
    near.write_all(&[1; 50_000]).await.unwrap();
    near.shutdown().await.unwrap();
    mux.close().await;
    assert_eq!(reader.await.unwrap().unwrap().len(), 50_000);
    let error = open_near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = mux.open(&service("x")).await.unwrap_err();
    assert!(matches!(error, NetError::Closed));
}
