//! Connections through a relay: half-close, failures, limits, shutdown, leaks.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use colima_core::Endpoint;
use colima_net::{Local, Relay, RelayEvent, RelayReport, SocketFile};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
};

/// A running relay from `near` to a unix listener that the test holds.
struct Bench {
    _directory: tempfile::TempDir,
    near: PathBuf,
    target: UnixListener,
    open: watch::Receiver<usize>,
    events: broadcast::Receiver<RelayEvent>,
    stop: oneshot::Sender<()>,
    relay: JoinHandle<RelayReport>,
}

impl Bench {
    fn new(configure: impl FnOnce(Relay<Local>) -> Relay<Local>) -> Self {
        let directory = private_directory();
        let near = directory.path().join("near.sock");
        let far = directory.path().join("far.sock");
        let target = UnixListener::bind(&far).unwrap();
        let socket = SocketFile::bind(&near).unwrap();
        let relay = configure(Relay::new(socket, Local, Endpoint::Unix(far)));
        let (open, events) = (relay.open_connections(), relay.events());
        let (stop, stopped) = oneshot::channel::<()>();
        let relay = tokio::spawn(relay.run(async move {
            let _ = stopped.await;
        }));
        Self {
            _directory: directory,
            near,
            target,
            open,
            events,
            stop,
            relay,
        }
    }

    async fn connect(&self) -> (UnixStream, UnixStream) {
        let (near, far) = tokio::join!(UnixStream::connect(&self.near), self.target.accept());
        (near.unwrap(), far.unwrap().0)
    }

    async fn all_closed(&mut self) {
        self.open.wait_for(|open| *open == 0).await.unwrap();
    }

    async fn stop(self) -> RelayReport {
        self.stop.send(()).unwrap();
        self.relay.await.unwrap()
    }
}

pub(crate) fn private_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new()
        .permissions(mode)
        .tempdir()
        .unwrap()
}

async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let bench = Bench::new(|relay| relay);
    let question = vec![1; 200_000];
    let answer = vec![2; 300_000];

    // The client ends first and still gets its answer.
    let (mut client, mut server) = bench.connect().await;
    let (asked, answered) = (question.clone(), answer.clone());
    let server_side = tokio::spawn(async move {
        assert!(read_all(&mut server).await == asked);
        server.write_all(&answered).await.unwrap();
    });
    client.write_all(&question).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(read_all(&mut client).await == answer);
    server_side.await.unwrap();

    // The server ends first and still hears the client.
    let (mut client, mut server) = bench.connect().await;
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    client.write_all(b"still here").await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await, b"still here");

    let report = bench.stop().await;
    assert_eq!((report.accepted, report.failed, report.open), (2, 0, 0));
    assert_eq!(report.traffic.sent, 200_010);
    assert_eq!(report.traffic.received, 300_000);
}

#[tokio::test]
async fn a_client_that_is_gone_ends_a_silent_server_connection() {
    let mut bench = Bench::new(|relay| relay);
    let (mut client, mut server) = bench.connect().await;
    client.write_all(b"logs -f").await.unwrap();
    drop(client);
    // The server never writes, and is told all the same.
    assert_eq!(read_all(&mut server).await, b"logs -f");
    bench.all_closed().await;
    let error = server.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(bench.stop().await.failed, 1);
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_heard() {
    let bench = Bench::new(|relay| relay);
    let mut client = UnixStream::connect(&bench.near).await.unwrap();
    client.write_all(&[5; 100_000]).await.unwrap();
    drop(client);
    let (mut server, _) = bench.target.accept().await.unwrap();
    assert_eq!(read_all(&mut server).await.len(), 100_000);
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_only_ended_its_direction_is_kept() {
    let bench = Bench::new(|relay| relay);
    let (mut client, mut server) = bench.connect().await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"");
    // Whatever the relay wants to conclude from the end it concludes before the next client.
    let other = bench.connect().await;
    server.write_all(b"late").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"late");
    drop((client, server, other));
    assert_eq!(bench.stop().await.accepted, 2);
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let directory = private_directory();
    let far = directory.path().join("far.sock");
    let target = UnixListener::bind(&far).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Relay::new(listener, Local, Endpoint::Unix(far));
    let mut open = relay.open_connections();
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async move {
        let _ = stopped.await;
    }));

    // The client resets: the server's connection ends, although neither side sends.
    let (client, server) = tokio::join!(TcpStream::connect(address), target.accept());
    let linger = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(client.unwrap(), linger).unwrap();
    assert_eq!(read_all(&mut server.unwrap().0).await, b"");
    open.wait_for(|open| *open == 0).await.unwrap();

    // The server dies with unread bytes: the client sees an error, not an end.
    let (client, server) = tokio::join!(TcpStream::connect(address), target.accept());
    let (mut client, server) = (client.unwrap(), server.unwrap().0);
    client.write_all(b"unread").await.unwrap();
    server.readable().await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    let error = client.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    stop.send(()).unwrap();
    let report = relay.await.unwrap();
    assert_eq!((report.failed, report.open), (2, 0));
}

#[tokio::test]
async fn an_unreachable_far_side_turns_the_client_away() {
    let mut bench = Bench::new(|relay| relay);
    let target = bench.target.local_addr().unwrap();
    std::fs::remove_file(target.as_pathname().unwrap()).unwrap();
    let mut client = UnixStream::connect(&bench.near).await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    let RelayEvent::ConnectFailed { reason } = bench.events.recv().await.unwrap() else {
        panic!("another event");
    };
    assert_eq!(reason.kind(), io::ErrorKind::NotFound);
    bench.all_closed().await;
    let report = bench.stop().await;
    assert_eq!((report.accepted, report.refused), (1, 1));
}

#[tokio::test]
async fn clients_above_the_limit_wait_in_the_backlog() {
    let bench = Bench::new(|relay| relay.limit(2));
    let first = bench.connect().await;
    let second = bench.connect().await;
    let mut third = UnixStream::connect(&bench.near).await.unwrap();
    third.write_all(b"patience").await.unwrap();
    assert_eq!(*bench.open.borrow(), 2);
    let waited = tokio::time::timeout(Duration::from_millis(200), bench.target.accept()).await;
    assert!(waited.is_err(), "the third client was let in");
    drop(first);
    let (mut server, _) = bench.target.accept().await.unwrap();
    drop(third);
    assert_eq!(read_all(&mut server).await, b"patience");
    drop(second);
    assert_eq!(bench.stop().await.accepted, 3);
}

#[tokio::test]
async fn shutdown_closes_the_door_and_lets_the_guests_finish() {
    let bench = Bench::new(|relay| relay.drain(Duration::from_secs(60)));
    let (mut client, mut server) = bench.connect().await;
    let near = bench.near.clone();
    let mut open = bench.open.clone();
    let report = tokio::spawn(bench.stop());
    // The file goes first.
    while near.exists() {
        tokio::task::yield_now().await;
    }
    server.write_all(b"last words").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, b"last words");
    drop(client);
    open.wait_for(|open| *open == 0).await.unwrap();
    let report = report.await.unwrap();
    assert_eq!((report.aborted, report.open), (0, 0));
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let bench = Bench::new(|relay| relay.drain(Duration::from_millis(50)));
    let (mut client, _server) = bench.connect().await;
    let report = bench.stop().await;
    assert_eq!((report.aborted, report.open), (1, 0));
    assert_eq!(read_all(&mut client).await, b"");
}

fn open_descriptors(below: &Path) -> usize {
    std::fs::read_dir(below).unwrap().count()
}

/// In a process of its own, because descriptors are counted and limited per process.
#[test]
fn descriptors_and_tasks_return_to_where_they_were() {
    in_own_process("descriptors_and_tasks_return_to_where_they_were", async {
        let mut bench = Bench::new(|relay| relay);
        let descriptors = Path::new("/proc/self/fd");
        drop(bench.connect().await);
        bench.all_closed().await;
        let before = open_descriptors(descriptors);
        let metrics = tokio::runtime::Handle::current().metrics();
        let tasks = metrics.num_alive_tasks();
        for _ in 0..20 {
            let mut streams = Vec::new();
            for _ in 0..25 {
                streams.push(bench.connect().await);
            }
            for (i, (mut client, mut server)) in streams.into_iter().enumerate() {
                match i % 3 {
                    0 => drop((client, server)),
                    1 => client.shutdown().await.unwrap(),
                    _ => server.shutdown().await.unwrap(),
                }
            }
            bench.all_closed().await;
        }
        // The gauge falls inside the task; its last descriptors fall with it.
        while metrics.num_alive_tasks() > tasks {
            tokio::task::yield_now().await;
        }
        assert_eq!(open_descriptors(descriptors), before);
        let report = bench.stop().await;
        assert_eq!((report.accepted, report.open), (501, 0));
    });
}

#[test]
fn no_descriptors_left_means_waiting_and_not_spinning() {
    in_own_process(
        "no_descriptors_left_means_waiting_and_not_spinning",
        async {
            let mut bench = Bench::new(|relay| relay);
            // Take every descriptor but the one that the client itself needs.
            let file = std::fs::File::open("/dev/null").unwrap();
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let few = rustix::process::Rlimit {
                current: Some(100),
                maximum: limit.maximum,
            };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
            let mut hoard: Vec<OwnedFd> = Vec::new();
            while let Ok(copy) = file.try_clone() {
                hoard.push(copy.into());
            }
            hoard.pop();
            let client = UnixStream::connect(&bench.near).await.unwrap();
            for _ in 0..3 {
                let RelayEvent::Paused { reason, .. } = bench.events.recv().await.unwrap() else {
                    panic!("another event");
                };
                assert_eq!(reason.raw_os_error(), Some(24), "{reason}");
            }
            drop(hoard);
            let (mut server, _) = bench.target.accept().await.unwrap();
            drop(client);
            assert_eq!(read_all(&mut server).await, b"");
            bench.all_closed().await;
            let report = bench.stop().await;
            assert_eq!(report.accepted, 1);
            assert!((3..=9).contains(&report.pauses), "{}", report.pauses);
            assert!(file.as_raw_fd() >= 0);
        },
    );
}

/// Runs one test of this binary again, alone, in a child.
fn in_own_process(name: &str, body: impl Future<Output = ()>) {
    const MARK: &str = "COLIMA_NET_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body);
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("relay_connections::{name}"),
            "--nocapture",
        ])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}
