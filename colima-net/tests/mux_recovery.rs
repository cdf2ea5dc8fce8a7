//! Links that break, peers that are restarted, bytes of the past.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use colima_net::{
    NetError,
    mux::{Incoming, LinkState, Mux, MuxConfig, ServeConfig, serve},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{mux_hostile_peer::answer_hello, mux_streams::service};

async fn echo(incoming: Incoming) {
    let (mut read, mut write) = tokio::io::split(incoming.accept());
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

async fn echoes(mux: &Mux, text: &str) -> io::Result<()> {
    let mut stream = mux.open(&service("echo")).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut back = String::new();
    stream.read_to_string(&mut back).await?;
    assert_eq!(back, text);
    Ok(())
}

/// Runs a short session and returns all bytes that went each way.
async fn recorded_session() -> (Vec<u8>, Vec<u8>) {
    async fn record(
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut block = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut block).await {
            bytes.extend(&block[..n]);
            if to.write_all(&block[..n]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        bytes
    }
    let (host, host_wire) = tokio::io::duplex(1 << 20);
    let (guest, guest_wire) = tokio::io::duplex(1 << 20);
    let (from_host, to_host) = tokio::io::split(host_wire);
    let (from_guest, to_guest) = tokio::io::split(guest_wire);
    let host_bytes = tokio::spawn(record(from_host, to_guest));
    let guest_bytes = tokio::spawn(record(from_guest, to_host));
    tokio::spawn(serve(guest, ServeConfig::default(), echo));
    let mux = Mux::over(host, MuxConfig::default());
    echoes(&mux, STALE).await.unwrap();
    echoes(&mux, STALE).await.unwrap();
    mux.close().await;
    (host_bytes.await.unwrap(), guest_bytes.await.unwrap())
}

const STALE: &str = "bytes of an earlier session";

/// Every byte offset of a session, except that the insides of the preamble are all alike.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    let preamble = bytes.iter().take_while(|&&byte| byte == 0).count();
    let inside = (0..preamble.saturating_sub(20)).step_by(8111);
    inside
        .chain(preamble.saturating_sub(20)..=bytes.len())
        .collect()
}

#[tokio::test]
async fn a_session_begins_behind_any_part_of_an_earlier_one() {
    let (host_bytes, guest_bytes) = recorded_session().await;
    let host_cuts = cuts(&host_bytes);
    let guest_cuts = cuts(&guest_bytes);
    assert!(host_cuts.len() > 150 && guest_cuts.len() > 150);
    for i in 0..host_cuts.len().max(guest_cuts.len()) {
        let from_host = &host_bytes[..host_cuts[i % host_cuts.len()]];
        // Of the guest's bytes the host of the earlier session has read the beginning.
        let from_guest = &guest_bytes[guest_cuts[i % guest_cuts.len()]..];
        let (mut host, mut guest) = tokio::io::duplex(1 << 20);
        guest.write_all(from_guest).await.unwrap();
        host.write_all(from_host).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        tokio::spawn(serve(guest, ServeConfig::default(), move |incoming| {
            let all = Arc::clone(&all);
            async move {
                let mut stream = incoming.accept();
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                all.lock().unwrap().push(bytes.clone());
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        }));
        let mux = Mux::over(host, MuxConfig::default());
        let state = mux.state();
        if let Err(error) = echoes(&mux, "fresh").await {
            panic!("cut {i}: {error}, {:?}", *state.borrow());
        }
        mux.close().await;
        // The zeros of the preamble, which complete a cut frame, never reach a stream.
        for bytes in &*heard.lock().unwrap() {
            let sane = bytes == b"fresh" || STALE.as_bytes().starts_with(bytes);
            assert!(sane, "cut {i}: {bytes:?}");
        }
    }
}

/// Serves on one link again and again; `restart` kills the server wherever it is.
async fn restartable_guest(mut link: DuplexStream, restart: Arc<Notify>) {
    loop {
        let server = serve(
            &mut link,
            ServeConfig::default(),
            |incoming: Incoming| async {
                if incoming.endpoint() == &service("flood") {
                    let mut stream = incoming.accept();
                    while stream.write_all(&[7; 5000]).await.is_ok() {}
                } else {
                    echo(incoming).await;
                }
            },
        );
        tokio::select! {
            _ = server => return,
            () = restart.notified() => {}
        }
    }
}

#[tokio::test]
async fn a_guest_that_is_restarted_in_mid_frame_is_found_again_on_the_same_link() {
    // The link is small, so that the guest is always in the middle of a frame.
    let (host, guest) = tokio::io::duplex(333);
    let restart = Arc::new(Notify::new());
    tokio::spawn(restartable_guest(guest, Arc::clone(&restart)));
    let mux = Mux::over(host, MuxConfig::default());
    for _ in 0..5 {
        let mut flood = mux.open(&service("flood")).await.unwrap();
        let mut bytes = [0; 20_000];
        flood.read_exact(&mut bytes).await.unwrap();
        let mut state = mux.state();
        state.mark_unchanged();
        restart.notify_one();
        let mut rest = Vec::new();
        let error = flood.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(rest.iter().all(|&byte| byte == 7), "zeros reached a stream");
        state.changed().await.unwrap();
        echoes(&mux, "again").await.unwrap();
    }
}

/// A mux whose dialer takes its links from the test.
fn dialed(config: MuxConfig) -> (Mux, mpsc::UnboundedSender<DuplexStream>) {
    let (links, waiting) = mpsc::unbounded_channel();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let dial = move || {
        let waiting = Arc::clone(&waiting);
        async move {
            let link = waiting.lock().await.recv().await;
            link.ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    };
    (Mux::new(dial, config), links)
}

#[tokio::test]
async fn a_broken_link_fails_its_streams_and_the_next_one_serves_the_waiting() {
    let (mux, links) = dialed(MuxConfig::default());
    let (host, guest) = tokio::io::duplex(1000);
    links.send(host).unwrap();
    let first = tokio::spawn(serve(guest, ServeConfig::default(), echo));
    let mut stream = mux.open(&service("echo")).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');

    first.abort();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut state = mux.state();
    let down = state
        .wait_for(|state| matches!(state, LinkState::Down { .. }))
        .await
        .unwrap()
        .clone();
    let LinkState::Down { reason } = down else {
        panic!("not down");
    };
    assert!(matches!(*reason, NetError::LinkEnded), "{reason}");

    // Opened while there is no link.
    let waiting = tokio::spawn({
        let mux = mux.clone();
        async move { echoes(&mux, "patient").await }
    });
    let (host, guest) = tokio::io::duplex(1000);
    tokio::spawn(serve(guest, ServeConfig::default(), echo));
    links.send(host).unwrap();
    waiting.await.unwrap().unwrap();
    let up = matches!(*mux.state().borrow(), LinkState::Up { version: 1 });
    assert!(up);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_link_has_an_end() {
    let (mux, links) = dialed(MuxConfig::default());
    drop(links);
    let start = Instant::now();
    let error = mux.open(&service("x")).await.unwrap_err();
    assert!(matches!(error, NetError::LinkDown { .. }), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert_eq!(start.elapsed().as_secs(), 30);
    let state = mux.state().borrow().clone();
    assert!(
        matches!(state, LinkState::Down { reason } if matches!(*reason, NetError::Dial { .. }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_an_open_is_given_up() {
    let (host, mut guest) = tokio::io::duplex(1 << 20);
    let mux = Mux::over(
        host,
        MuxConfig {
            dead_after: Duration::from_secs(3600),
            ..MuxConfig::default()
        },
    );
    answer_hello(&mut guest).await;
    let error = mux.open(&service("x")).await.unwrap_err();
    assert!(matches!(error, NetError::OpenTimedOut { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_after_fifteen_seconds() {
    let (host, mut guest) = tokio::io::duplex(1 << 20);
    let mux = Mux::over(host, MuxConfig::default());
    answer_hello(&mut guest).await;
    let mut state = mux.state();
    state
        .wait_for(|state| matches!(state, LinkState::Up { .. }))
        .await
        .unwrap();
    let start = Instant::now();
    let closed = state
        .wait_for(|state| matches!(state, LinkState::Closed { .. }))
        .await
        .unwrap()
        .clone();
    assert_eq!(start.elapsed().as_secs(), 15);
    assert!(
        matches!(&closed, LinkState::Closed { reason }
            if matches!(**reason, NetError::PeerSilent { .. })),
        "{closed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_that_answers_lives_on() {
    let (host, guest) = tokio::io::duplex(1000);
    tokio::spawn(serve(guest, ServeConfig::default(), echo));
    let mux = Mux::over(host, MuxConfig::default());
    let mut stream = mux.open(&service("echo")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_boots_late_is_greeted_until_it_answers() {
    // Nobody reads for 40 s, and the link holds only a part of the first hello.
    let (host, guest) = tokio::io::duplex(1000);
    let mux = Mux::over(host, MuxConfig::default());
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(40)).await;
        serve(guest, ServeConfig::default(), echo).await
    });
    let mut state = mux.state();
    state
        .wait_for(|state| matches!(state, LinkState::Up { .. }))
        .await
        .unwrap();
    echoes(&mux, "good morning").await.unwrap();
    mux.close().await;
    late.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_link_is_given_up_at_the_deadline() {
    let (host, _guest) = tokio::io::duplex(1000);
    let mux = Mux::over(host, MuxConfig::default());
    let start = Instant::now();
    let mut state = mux.state();
    let closed = state
        .wait_for(|state| matches!(state, LinkState::Closed { .. }))
        .await
        .unwrap()
        .clone();
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(
        matches!(&closed, LinkState::Closed { reason }
            if matches!(**reason, NetError::NoAnswer { .. })),
        "{closed:?}"
    );
}

#[tokio::test]
async fn dropping_the_mux_closes_the_link() {
    let (host, guest) = tokio::io::duplex(1000);
    let server = tokio::spawn(serve(guest, ServeConfig::default(), echo));
    let mux = Mux::over(host, MuxConfig::default());
    let mut stream = mux.open(&service("echo")).await.unwrap();
    drop(mux);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    server.await.unwrap().unwrap();
}
