use std::time::Duration;

use colima_net::{Relay, SocketFile};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::UnixStream,
    sync::{Mutex, oneshot, watch},
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

const START: &[u8] = b"POST /v1.45/containers/web/start HTTP/1.1\r\nHost: docker\r\n\r\n";
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
const STARTED: &[u8] = b"HTTP/1.1 204 No Content\r\nServer: Docker\r\n\r\n";
const PONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

/// Gives out the one stream that it was made with.
struct Once(Mutex<Option<DuplexStream>>);

impl Connect for Once {
    type Stream = DuplexStream;

    async fn connect(&self, _: &Endpoint) -> io::Result<DuplexStream> {
        let stream = self.0.lock().await.take();
        stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

/// A client, docker's end of its connection, and what decides about the only start.
struct Bench {
    client: UnixStream,
    docker: DuplexStream,
    decide: oneshot::Sender<Verdict>,
    asked: oneshot::Receiver<String>,
    prepare: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

/// Decides about one start as the test says.
struct OneStart {
    prepared: watch::Receiver<bool>,
    once: std::sync::Mutex<Option<(oneshot::Receiver<Verdict>, oneshot::Sender<String>)>>,
}

impl Judge for OneStart {
    fn prepare(&self, container: &str) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        assert_eq!(container, "web");
        let mut prepared = self.prepared.clone();
        Box::pin(async move { drop(prepared.wait_for(|done| *done).await) })
    }

    fn judge(&self, container: &str) -> Judging {
        let (decided, tell) = self.once.lock().unwrap().take().expect("one start");
        tell.send(container.to_owned()).unwrap();
        Box::pin(async move { decided.await.unwrap() })
    }
}

#[derive(PartialEq, Eq)]
enum Preparation {
    Done,
    Waits,
}

async fn bench(preparation: Preparation) -> Bench {
    use std::os::unix::fs::PermissionsExt as _;
    let mut directory = tempfile::Builder::new();
    let directory = directory
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let (near, docker) = duplex(1 << 20);
    let (decide, decided) = oneshot::channel();
    let (tell, asked) = oneshot::channel();
    let (prepare, prepared) = watch::channel(preparation == Preparation::Done);
    let judge = Arc::new(OneStart {
        prepared,
        once: std::sync::Mutex::new(Some((decided, tell))),
    });
    let path = directory.path().join("docker.sock");
    let relay = Relay::new(
        SocketFile::bind(&path).unwrap(),
        DockerAware::new(Once(Mutex::new(Some(near))), judge),
        Endpoint::Unix("/run/docker.sock".into()),
    );
    tokio::spawn(relay.run(std::future::pending()));
    Bench {
        client: UnixStream::connect(&path).await.unwrap(),
        docker,
        decide,
        asked,
        prepare,
        _directory: directory,
    }
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut got))
        .await
        .expect("bytes")
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&got),
        String::from_utf8_lossy(bytes)
    );
}

#[tokio::test]
async fn the_answer_waits_for_the_verdict_and_what_follows_for_the_answer() {
    let mut bench = bench(Preparation::Done).await;
    bench
        .client
        .write_all(&[PING, START, PING].concat())
        .await
        .unwrap();
    expect(&mut bench.docker, &[PING, START, PING].concat()).await;
    bench
        .docker
        .write_all(&[PONG, STARTED, PONG].concat())
        .await
        .unwrap();
    expect(&mut bench.client, PONG).await;
    assert_eq!(bench.asked.await.unwrap(), "web");
    // Nothing of the answer has been written by the time the judge was asked.
    let nothing = bench.client.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    bench.decide.send(Verdict::Started).unwrap();
    expect(&mut bench.client, &[STARTED, PONG].concat()).await;
    bench.client.write_all(PING).await.unwrap();
    expect(&mut bench.docker, PING).await;
}

/// Docker does not have the whole request before the guest is ready for it, however it is cut.
#[tokio::test]
async fn a_start_waits_for_what_it_needs() {
    for cut in [1, START.len() / 2, START.len() - 1, START.len()] {
        let mut bench = bench(Preparation::Waits).await;
        bench.client.write_all(PING).await.unwrap();
        expect(&mut bench.docker, PING).await;
        bench.client.write_all(&START[..cut]).await.unwrap();
        if cut < START.len() {
            expect(&mut bench.docker, &START[..cut]).await;
        }
        bench
            .client
            .write_all(&[&START[cut..], PING].concat())
            .await
            .unwrap();
        // The way back is open meanwhile, so the relay has run; and it may run as often as it likes.
        bench.docker.write_all(PONG).await.unwrap();
        expect(&mut bench.client, PONG).await;
        let mut byte = [0; 1];
        let early = bench.docker.read_exact(&mut byte);
        let early = tokio::time::timeout(Duration::from_millis(50), early);
        assert!(early.await.is_err(), "docker has the start already");
        bench.prepare.send_replace(true);
        let held = if cut < START.len() {
            &START[cut..]
        } else {
            START
        };
        expect(&mut bench.docker, &[held, PING].concat()).await;
    }
}

#[tokio::test]
async fn a_start_that_fails_after_all_is_answered_as_docker_would() {
    let mut bench = bench(Preparation::Done).await;
    bench
        .client
        .write_all(&[START, PING].concat())
        .await
        .unwrap();
    bench
        .docker
        .write_all(&[STARTED, PONG].concat())
        .await
        .unwrap();
    let why = "Ports are not available: 127.0.0.1:80/tcp is in use by \"nginx\" (pid 1)";
    bench.decide.send(Verdict::Failed(why.to_owned())).unwrap();
    let failure = failure(why);
    expect(&mut bench.client, &[&failure[..], PONG].concat()).await;
    let text = String::from_utf8(failure).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["message"], why);
}

#[tokio::test]
async fn an_upgraded_connection_is_two_streams_of_bytes() {
    let mut bench = bench(Preparation::Done).await;
    let attach = b"POST /v1.45/containers/web/attach?stdin=1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let upgraded = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    bench.client.write_all(attach).await.unwrap();
    expect(&mut bench.docker, attach).await;
    bench.docker.write_all(upgraded).await.unwrap();
    expect(&mut bench.client, upgraded).await;
    // A start that is none, an answer that is none, and a half-close.
    bench.client.write_all(START).await.unwrap();
    bench.client.shutdown().await.unwrap();
    let mut sent = Vec::new();
    let read = bench.docker.read_to_end(&mut sent);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("the end")
        .unwrap();
    assert_eq!(sent, START);
    bench.docker.write_all(STARTED).await.unwrap();
    bench.docker.shutdown().await.unwrap();
    let mut received = Vec::new();
    let read = bench.client.read_to_end(&mut received);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("the end")
        .unwrap();
    assert_eq!(received, STARTED);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_arrives_cut_off() {
    let mut bench = bench(Preparation::Done).await;
    bench.client.write_all(START).await.unwrap();
    expect(&mut bench.docker, START).await;
    bench.docker.write_all(&STARTED[..20]).await.unwrap();
    bench.docker.shutdown().await.unwrap();
    bench.client.shutdown().await.unwrap();
    let mut received = Vec::new();
    let read = bench.client.read_to_end(&mut received);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("the end")
        .unwrap();
    assert_eq!(received, &STARTED[..20]);
}
