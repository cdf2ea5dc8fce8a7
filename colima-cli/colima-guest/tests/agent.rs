//! The agent over the real multiplexer, the two ends in one process.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests by #[test], not their helpers"
)]

use std::{io::Write as _, sync::Arc, time::Duration};

use colima_core::{
    Endpoint,
    agent::{PROTOCOL_VERSION, Reply, Request},
    boot::{Runtime, User},
};
use colima_guest::{
    agent::{Agent, Ports, Readiness, Socket, handle},
    status::{InitStatus, Stage},
};
use colima_net::mux::{Mux, MuxConfig, MuxStream, ServeConfig, serve};
use proptest::prelude::*;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};

mod agent {
    mod ports;
}

const DEADLINE: Duration = Duration::from_secs(60);

fn status(runtime: Runtime, failure: Option<&str>) -> InitStatus {
    InitStatus {
        version: InitStatus::VERSION,
        runtime,
        failure: failure.map(str::to_owned),
        stages: vec![Stage {
            name: "init".into(),
            uptime_ms: 7,
        }],
    }
}

/// A multiplexer to an agent that init left in this state.
fn connect(status: Result<InitStatus, String>) -> Mux {
    let (host, guest) = tokio::io::duplex(64 << 10);
    let agent = Arc::new(Agent::new(Readiness::watch(status), Ports::untraced(None)));
    tokio::spawn(serve(guest, ServeConfig::default(), move |incoming| {
        handle(incoming, Arc::clone(&agent))
    }));
    Mux::over(host, MuxConfig::default())
}

/// Two hosts at once, each with its multiplexer, on the socket for those who come by ssh.
#[tokio::test]
async fn hosts_on_the_socket() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    std::fs::write(&path, "left behind").unwrap();
    let user = User {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..User::first("ada")
    };
    let socket = Socket::bind(&path, &user).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.uid(), user.uid);
    let ready = status(Runtime::None, None);
    let agent = Agent::new(Readiness::watch(Ok(ready)), Ports::untraced(None));
    let serving = tokio::spawn(socket.serve(Arc::new(agent)));
    let connect = || {
        let path = path.clone();
        let dial = move || tokio::net::UnixStream::connect(path.clone());
        Mux::new(dial, MuxConfig::default())
    };
    for mux in [connect(), connect()] {
        let (reply, stdout, _) = run(&mux, &["echo", "there"], b"").await;
        assert!(
            matches!(reply, Reply::Exited { exit_code: 0, .. }),
            "{reply:?}"
        );
        assert_eq!(stdout, b"there\n");
    }
    serving.abort();
}

async fn open(mux: &Mux) -> BufReader<MuxStream> {
    let service = Endpoint::Service("agent".into());
    BufReader::new(
        timeout(DEADLINE, mux.open(&service))
            .await
            .expect("an answer")
            .unwrap(),
    )
}

async fn send(talk: &mut BufReader<MuxStream>, request: &Request) {
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    talk.write_all(&line).await.unwrap();
}

async fn reply(talk: &mut BufReader<MuxStream>) -> Reply {
    let mut line = String::new();
    timeout(DEADLINE, talk.read_line(&mut line))
        .await
        .expect("a reply")
        .unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

async fn run(mux: &Mux, argv: &[&str], stdin: &[u8]) -> (Reply, Vec<u8>, Vec<u8>) {
    let mut talk = open(mux).await;
    let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    send(
        &mut talk,
        &Request::Run {
            argv,
            stdin_len: stdin.len() as u64,
        },
    )
    .await;
    talk.write_all(stdin).await.unwrap();
    let exited = reply(&mut talk).await;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Reply::Exited {
        stdout_len,
        stderr_len,
        ..
    } = &exited
    {
        stdout.resize(usize::try_from(*stdout_len).unwrap(), 0);
        stderr.resize(usize::try_from(*stderr_len).unwrap(), 0);
        timeout(DEADLINE, talk.read_exact(&mut stdout))
            .await
            .expect("stdout")
            .unwrap();
        timeout(DEADLINE, talk.read_exact(&mut stderr))
            .await
            .expect("stderr")
            .unwrap();
    }
    let mut rest = Vec::new();
    timeout(DEADLINE, talk.read_to_end(&mut rest))
        .await
        .expect("the end")
        .unwrap();
    assert!(rest.is_empty(), "nothing follows the last reply");
    (exited, stdout, stderr)
}

fn exit_code(reply: &Reply) -> i32 {
    let Reply::Exited { exit_code, .. } = reply else {
        panic!("{reply:?}")
    };
    *exit_code
}

#[tokio::test]
async fn hello_names_protocol_and_boot() {
    let mux = connect(Ok(status(Runtime::None, None)));
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::Hello).await;
    let Reply::Hello {
        protocol, boot_id, ..
    } = reply(&mut talk).await
    else {
        panic!()
    };
    assert_eq!(protocol, PROTOCOL_VERSION);
    assert_eq!(boot_id.len(), 36, "{boot_id}");
}

#[tokio::test]
async fn readiness_is_told_from_the_beginning_every_time() {
    let mux = connect(Ok(status(Runtime::None, None)));
    for _ in 0..2 {
        let mut talk = open(&mux).await;
        send(&mut talk, &Request::WaitReady).await;
        assert_eq!(
            reply(&mut talk).await,
            Reply::Stage {
                name: "init".into(),
                uptime_ms: 7
            }
        );
        let Reply::Stage { name, .. } = reply(&mut talk).await else {
            panic!()
        };
        assert_eq!(name, "agent");
        assert!(matches!(reply(&mut talk).await, Reply::Ready { .. }));
    }
}

#[tokio::test]
async fn what_init_refused_is_told() {
    let reason = "the data disk holds a btrfs file system and is left alone";
    let mux = connect(Ok(status(Runtime::Docker, Some(reason))));
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WaitReady).await;
    let last = loop {
        match reply(&mut talk).await {
            Reply::Stage { .. } => {}
            last => break last,
        }
    };
    assert_eq!(
        last,
        Reply::Failed {
            reason: reason.into(),
            detail: vec![]
        }
    );

    let mux = connect(Err("init left no status".into()));
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WaitReady).await;
    assert!(matches!(reply(&mut talk).await, Reply::Failed { .. }));
}

#[tokio::test]
async fn commands_with_input_output_and_exit_code() {
    let mux = connect(Ok(status(Runtime::None, None)));
    let (exited, stdout, stderr) =
        run(&mux, &["sh", "-c", "cat; echo no >&2; exit 3"], b"in").await;
    assert_eq!(
        (exit_code(&exited), &stdout[..], &stderr[..]),
        (3, &b"in"[..], &b"no\n"[..])
    );

    let (exited, ..) = run(&mux, &["sh", "-c", "kill -9 $$"], b"").await;
    assert_eq!(exit_code(&exited), 137);

    // More than a pipe, a window and a buffer, both ways.
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (exited, stdout, _) = run(&mux, &["cat"], &large).await;
    assert_eq!(exit_code(&exited), 0);
    assert!(stdout == large);

    // Input that nobody reads.
    let (exited, ..) = run(&mux, &["true"], &large).await;
    assert_eq!(exit_code(&exited), 0);

    let (failed, ..) = run(&mux, &["/no/such/program"], b"").await;
    let Reply::Failed { reason, .. } = failed else {
        panic!("{failed:?}")
    };
    assert!(reason.contains("/no/such/program"), "{reason}");
    let (failed, ..) = run(&mux, &[], b"").await;
    assert!(matches!(failed, Reply::Failed { .. }));
}

#[tokio::test]
async fn a_background_process_keeps_nobody_waiting() {
    let mux = connect(Ok(status(Runtime::None, None)));
    let (exited, stdout, _) = run(&mux, &["sh", "-c", "sleep 300 & echo $!"], b"").await;
    assert_eq!(exit_code(&exited), 0);
    let pid = String::from_utf8(stdout).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_command_dies_with_its_stream() {
    let mux = connect(Ok(status(Runtime::None, None)));
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("alive");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut talk = open(&mux).await;
    let script = format!("exec 3>{}; echo up >&3; sleep 300 & wait", fifo.display());
    let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
    send(&mut talk, &Request::Run { argv, stdin_len: 0 }).await;
    // The fifo ends when the last process that has it open is gone.
    let reader = tokio::task::spawn_blocking(move || {
        let mut alive = std::io::BufReader::new(std::fs::File::open(fifo).unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut alive, &mut line).unwrap();
        assert_eq!(line, "up\n");
        drop(talk);
        std::io::Read::read_to_string(&mut alive, &mut line).unwrap();
    });
    timeout(DEADLINE, reader)
        .await
        .expect("the whole process group is killed")
        .unwrap();
}

#[tokio::test]
async fn streams_to_sockets_of_the_guest() {
    let mux = connect(Ok(status(Runtime::None, None)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got.reverse();
        stream.write_all(&got).await.unwrap();
    });
    let mut stream = mux.open(&Endpoint::Unix(path)).await.unwrap();
    stream.write_all(b"half-close").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    assert_eq!(answer, "esolc-flah");

    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = Endpoint::Tcp {
            host: host.into(),
            port,
        };
        let (opened, accepted) = tokio::join!(mux.open(&endpoint), tcp.accept());
        opened.unwrap();
        accepted.unwrap();
    }
    drop(tcp);

    for (endpoint, kind) in [
        (
            Endpoint::Unix("/no/such/socket".into()),
            std::io::ErrorKind::NotFound,
        ),
        (
            Endpoint::Tcp {
                host: "127.0.0.1".into(),
                port,
            },
            std::io::ErrorKind::ConnectionRefused,
        ),
        (
            Endpoint::Tcp {
                host: "example".into(),
                port,
            },
            std::io::ErrorKind::Unsupported,
        ),
        (
            Endpoint::Service("other".into()),
            std::io::ErrorKind::NotFound,
        ),
    ] {
        let error = timeout(DEADLINE, mux.open(&endpoint))
            .await
            .expect("a refusal")
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{endpoint}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_request_breaks_the_agent(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        json in prop_oneof![
            Just(""), Just("{"), Just("{}"), Just("[]"), Just(r#"{"request":"nothing"}"#),
            Just(r#"{"request":"run","argv":5,"stdin_len":-1}"#),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mux = connect(Ok(status(Runtime::None, None)));
            for mut request in [bytes, json.as_bytes().to_vec()] {
                request.push(b'\n');
                let mut talk = open(&mux).await;
                talk.write_all(&request).await.unwrap();
                assert!(matches!(reply(&mut talk).await, Reply::Failed { .. }));
            }
            let mut talk = open(&mux).await;
            send(&mut talk, &Request::Hello).await;
            assert!(matches!(reply(&mut talk).await, Reply::Hello { .. }));
        });
    }
}

/// A static program cannot ask the C library for names. Looks at the program that is shipped, where
/// it was built.
#[test]
fn the_shipped_program_asks_no_name_service() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        Into::into,
    );
    let program = target.join("x86_64-unknown-linux-gnu/release/colima-guest");
    let symbols = std::process::Command::new("nm").arg(&program).output();
    let symbols = match symbols {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        other => {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: no nm of {} ({other:?})",
                program.display()
            );
            return;
        }
    };
    assert!(
        symbols.contains(" main"),
        "the program has symbols to look at"
    );
    for name in [
        "getaddrinfo",
        "getpwnam",
        "getpwuid",
        "gethostbyname",
        "getgrnam",
    ] {
        let found = symbols
            .lines()
            .find(|line| line.split_whitespace().last() == Some(name));
        assert_eq!(found, None, "{name} is linked in");
    }
}
