use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// Two FIFOs behave like a port: reads return 0 while the other side is away, poll reports a hang-up
/// then, and the same descriptor goes on when it is back.
struct Fifos {
    directory: tempfile::TempDir,
    /// Keeps writes of the port from failing while nobody reads, as a port's do not.
    _keep: File,
}

impl Fifos {
    fn new() -> (Self, Port) {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = directory.path().join(name);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        };
        let (to_guest, from_guest) = (make("in"), make("out"));
        let input =
            rustix::fs::open(&to_guest, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        rustix::fs::fcntl_setfl(&input, OFlags::empty()).unwrap();
        let output = File::options()
            .read(true)
            .write(true)
            .open(&from_guest)
            .unwrap();
        let keep = output.try_clone().unwrap();
        let port = Port::new(input.into(), output).unwrap();
        (
            Self {
                directory,
                _keep: keep,
            },
            port,
        )
    }

    fn host(&self) -> (File, File) {
        let open = |name: &str, write: bool| {
            let path = self.directory.path().join(name);
            File::options()
                .read(!write)
                .write(write)
                .open(path)
                .unwrap()
        };
        (open("in", true), open("out", false))
    }
}

async fn accept(port: &mut Port) -> Connection {
    timeout(DEADLINE, port.accept())
        .await
        .expect("a connection")
        .unwrap()
}

/// The connection that carries `expected`; those that ended before it are skipped, as the
/// multiplexer does.
async fn accept_with(port: &mut Port, expected: &[u8]) -> Connection {
    loop {
        let mut connection = accept(port).await;
        let mut got = vec![0; expected.len()];
        let read = timeout(DEADLINE, connection.read_exact(&mut got))
            .await
            .expect("bytes or an end");
        if read.is_ok() {
            assert_eq!(got, expected);
            return connection;
        }
    }
}

#[tokio::test]
async fn the_host_comes_and_goes() {
    let (fifos, mut port) = Fifos::new();
    for round in 0..20_u8 {
        let (mut to_guest, mut from_guest) = fifos.host();
        to_guest.write_all(&[round; 5]).unwrap();
        let mut connection = accept_with(&mut port, &[round; 5]).await;
        connection.write_all(&[round; 3]).await.unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = [0; 3];
            from_guest.read_exact(&mut answer).unwrap();
            answer
        });
        assert_eq!(
            timeout(DEADLINE, answer).await.expect("an answer").unwrap(),
            [round; 3]
        );
        drop(to_guest);
        let mut rest = Vec::new();
        let end = timeout(DEADLINE, connection.read_to_end(&mut rest)).await;
        assert_eq!(end.expect("the end when the host leaves").unwrap(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_followed_by_another() {
    let (fifos, mut port) = Fifos::new();
    let (mut to_guest, _from_guest) = fifos.host();
    to_guest.write_all(b"one").unwrap();
    drop(accept_with(&mut port, b"one").await);
    // The host is still there, and goes on.
    let writer = tokio::task::spawn_blocking(move || {
        for _ in 0..200 {
            if to_guest.write_all(&[b'x'; 4096]).is_err() {
                break;
            }
        }
        to_guest
    });
    let mut second = accept(&mut port).await;
    let mut byte = [0];
    timeout(DEADLINE, second.read_exact(&mut byte))
        .await
        .expect("bytes")
        .unwrap();
    assert_eq!(&byte, b"x");
    drop(second);
    let mut third = accept(&mut port).await;
    let host = timeout(DEADLINE, async {
        tokio::spawn(async move { tokio::io::copy(&mut third, &mut tokio::io::sink()).await });
        writer.await.unwrap()
    });
    drop(host.await.expect("the port is read on"));
}

#[tokio::test]
async fn an_absent_host_costs_no_processor_time() {
    let (fifos, mut port) = Fifos::new();
    let (mut to_guest, from_guest) = fifos.host();
    to_guest.write_all(b"hello").unwrap();
    let connection = accept_with(&mut port, b"hello").await;
    drop((to_guest, from_guest));
    drop(connection);
    let before = ticks();
    // Not an event that is waited for: the time in which a spinning reader would show.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let spent = ticks() - before;
    assert!(
        spent < 30,
        "{spent} of about 100 clock ticks spent while nothing happens"
    );
}

/// Processor time of all port threads of this process, in ticks of 10 ms.
fn ticks() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let ours = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("port-"))
    });
    ours.map(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime of proc_pid_stat(5), counted from behind the name.
        [11, 12]
            .iter()
            .filter_map(|n| fields.get(*n)?.parse::<u64>().ok())
            .sum::<u64>()
    })
    .sum()
}

#[test]
fn ports_by_name() {
    let sys = tempfile::tempdir().unwrap();
    for (port, name) in [("vport1p1", "colima.1\n"), ("vport1p2", "colima.0\n")] {
        fs::create_dir(sys.path().join(port)).unwrap();
        fs::write(sys.path().join(port).join("name"), name).unwrap();
    }
    assert_eq!(
        device_of(sys.path(), "colima.0").unwrap(),
        Path::new("/dev/vport1p2")
    );
    assert_eq!(device_of(sys.path(), "colima"), None);
}
