//! What holds for streams over any transport: each body here runs over the multiplexer and over ssh.

use std::{io, time::Duration};

use colima_core::{Connect, Endpoint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A transport with the far end of its streams in the hands of the test.
pub(crate) trait Transport {
    type Near: Connect + Clone + 'static;
    type Far: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// What a far end sees of a stream that was dropped.
    const DROPPED: Dropped;

    fn near(&self) -> &Self::Near;
    /// Leads to [`accept`](Self::accept).
    fn endpoint(&self) -> Endpoint;
    /// Leads nowhere.
    fn nowhere(&self) -> Endpoint;
    fn accept(&mut self) -> impl Future<Output = Self::Far> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Reset,
    End,
}

type Near<T> = <<T as Transport>::Near as Connect>::Stream;

pub(crate) async fn open<T: Transport>(transport: &mut T) -> (Near<T>, T::Far) {
    let near = transport.near().clone();
    let endpoint = transport.endpoint();
    let (near, far) = tokio::join!(near.connect(&endpoint), transport.accept());
    (near.unwrap(), far)
}

/// Bytes of which every position differs from its neighbours.
pub(crate) fn pattern(length: u32) -> Vec<u8> {
    (0..length)
        .map(|i| (i ^ (i >> 8) ^ (i >> 15)).to_le_bytes()[0])
        .collect()
}

/// Reads everything, sends it back, ends.
pub(crate) async fn echo_at_the_end<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    stream.write_all(&seen).await.unwrap();
    stream.shutdown().await.unwrap();
    seen
}

pub(crate) async fn each_direction_ends_on_its_own_with_data_in_flight<T: Transport>(
    transport: &mut T,
) {
    let sent = pattern(300_000);

    // The opener ends first.
    let (mut near, far) = open(transport).await;
    let far_side = tokio::spawn(echo_at_the_end(far));
    near.write_all(&sent).await.unwrap();
    near.shutdown().await.unwrap();
    let mut back = Vec::new();
    near.read_to_end(&mut back).await.unwrap();
    assert!(far_side.await.unwrap() == sent && back == sent);

    // The acceptor ends first, and still hears everything.
    let (mut near, mut far) = open(transport).await;
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

    // Both end without a word.
    let (mut near, mut far) = open(transport).await;
    near.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    let mut nothing = Vec::new();
    near.read_to_end(&mut nothing).await.unwrap();
    far.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty());
}

pub(crate) async fn a_refusal_is_an_error_of_its_own_stream<T: Transport>(transport: &mut T) {
    let (mut near, mut far) = open(transport).await;
    for _ in 0..3 {
        let near = transport.near().clone();
        let error = near.connect(&transport.nowhere()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
    near.write_all(b"still here").await.unwrap();
    let mut seen = [0; 10];
    far.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"still here");
}

/// Returns how many bytes were taken on a stream that nobody reads.
pub(crate) async fn a_reader_that_stops_costs_only_its_own_stream<T: Transport>(
    transport: &mut T,
) -> usize {
    let (mut near, mut far) = open(transport).await;
    let (mut other_near, mut other_far) = open(transport).await;

    let mut written = 0;
    let block = [9; 10_000];
    // That nothing moves any more is no event.
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(300), far.write(&block)).await {
        written += n.unwrap();
    }

    // The other stream carries more than any window.
    let sent = pattern(5_000_000);
    let bytes = sent.clone();
    let writer = tokio::spawn(async move {
        other_far.write_all(&bytes).await.unwrap();
        other_far.shutdown().await.unwrap();
    });
    let mut seen = Vec::new();
    other_near.read_to_end(&mut seen).await.unwrap();
    writer.await.unwrap();
    assert!(seen == sent);
    // So does the other direction of the stream itself.
    let reader = tokio::spawn(async move {
        let mut seen = vec![0; 3_000_000];
        far.read_exact(&mut seen).await.unwrap();
        (far, seen)
    });
    near.write_all(&sent[..3_000_000]).await.unwrap();
    near.flush().await.unwrap();
    let (mut far, seen) = reader.await.unwrap();
    assert!(seen == sent[..3_000_000]);

    // The stopped reader goes on and misses nothing.
    let mut seen = vec![0; written];
    near.read_exact(&mut seen).await.unwrap();
    assert!(seen.iter().all(|&byte| byte == 9));
    far.write_all(b"more").await.unwrap();
    let mut more = [0; 4];
    near.read_exact(&mut more).await.unwrap();
    assert_eq!(&more, b"more");
    written
}

pub(crate) async fn what_was_shut_down_before_a_drop_arrives<T: Transport>(transport: &mut T) {
    let sent = pattern(500_000);
    let (mut near, mut far) = open(transport).await;
    let bytes = sent.clone();
    let writer = tokio::spawn(async move {
        near.write_all(&bytes).await.unwrap();
        near.shutdown().await.unwrap();
    });
    let mut first = [0; 100];
    far.read_exact(&mut first).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).await.unwrap();
        seen
    });
    writer.await.unwrap();
    assert!([&first[..], &reader.await.unwrap()[..]].concat() == sent);

    // Without an end it is not one, where the transport can say so.
    let (near, mut far) = open(transport).await;
    drop(near);
    let mut seen = Vec::new();
    let end = far.read_to_end(&mut seen).await;
    match T::DROPPED {
        Dropped::Reset => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset),
        Dropped::End => assert_eq!(end.unwrap(), 0),
    }
}

pub(crate) async fn a_far_side_that_leaves_ends_the_writer_too<T: Transport>(transport: &mut T) {
    let (mut near, mut far) = open(transport).await;
    far.write_all(b"last words").await.unwrap();
    far.shutdown().await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    drop(far);
    let block = [1; 10_000];
    let error = loop {
        if let Err(error) = near.write_all(&block).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

pub(crate) async fn fifty_streams_at_once_carry_their_own_bytes<T: Transport>(transport: &mut T) {
    let mut near_sides = tokio::task::JoinSet::new();
    for i in 0..50_u32 {
        let near = transport.near().clone();
        let endpoint = transport.endpoint();
        near_sides.spawn(async move {
            let mut stream = near.connect(&endpoint).await.unwrap();
            let sent = [&i.to_le_bytes()[..], &pattern(100_000 + i)[..]].concat();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert!(back == sent, "stream {i}");
        });
    }
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(transport.accept().await);
    }
    // All are open before the first one ends.
    for far in held {
        tokio::spawn(echo_at_the_end(far));
    }
    while let Some(ended) = near_sides.join_next().await {
        ended.unwrap();
    }
}
