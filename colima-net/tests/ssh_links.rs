//! Links that are cut, fall silent or lead to somebody else.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use colima_core::{Command, Endpoint, Guest as _};
use colima_net::ssh::{Credential, Ssh, SshConfig, SshError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::UnixStream,
};

use crate::sshd::Sshd;

macro_rules! sshd {
    ($test:literal) => {
        match Sshd::new(concat!("ssh_links::", $test), "") {
            Some(sshd) => sshd,
            None => return,
        }
    };
}

fn echo() -> Endpoint {
    Endpoint::Service("echo".into())
}

/// Short deadlines, for servers that never answer.
fn impatient() -> SshConfig {
    SshConfig {
        open_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_millis(700),
        ..SshConfig::default()
    }
}

/// A link that ends after so many bytes of the server, or falls silent.
struct Failing {
    inner: UnixStream,
    bytes_left: usize,
    silent: Arc<AtomicBool>,
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.bytes_left == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = buf.take(this.bytes_left);
        let read = Pin::new(&mut this.inner).poll_read(cx, &mut part);
        if this.silent.load(Ordering::Relaxed) {
            return Poll::Pending; // What was read is lost.
        }
        let n = part.filled().len();
        if let Poll::Ready(Ok(())) = read {
            // A part of a buffer knows nothing of the whole.
            let bytes = part.filled().to_vec();
            buf.put_slice(&bytes);
            this.bytes_left -= n;
        }
        read
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

async fn echoes(ssh: &Ssh, text: &[u8]) -> io::Result<()> {
    let mut stream = ssh.open(&echo()).await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await?;
    if back != text {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[tokio::test]
async fn wherever_a_link_is_cut_the_next_call_finds_another() {
    let sshd = sshd!("wherever_a_link_is_cut_the_next_call_finds_another");
    let mut failed = 0;
    // From the banner (40 bytes) through the handshake and the login (some 3,000) into the data.
    let step = match std::env::var_os("COLIMA_TORTURE_SECONDS") {
        Some(_) => 29,
        None => 811,
    };
    for cut in (0..400).step_by(97).chain((400..14_000).step_by(step)) {
        let dialed = AtomicUsize::new(0);
        let server = Arc::clone(&sshd);
        let dial = move || {
            let first = dialed.fetch_add(1, Ordering::Relaxed) == 0;
            std::future::ready(server.connect().map(|inner| Failing {
                inner,
                bytes_left: if first { cut } else { usize::MAX },
                silent: Arc::default(),
            }))
        };
        let config = SshConfig {
            ready: 0,
            most_idle: 0, // Every call has a link of its own, and the first one's is cut.
            ..SshConfig::default()
        };
        let ssh = Ssh::new(dial, sshd.login(), config);
        // A cut before the stream is open is healed by the open itself.
        if let Err(error) = echoes(&ssh, &[7; 9000]).await {
            let kinds = [
                io::ErrorKind::ConnectionReset,
                io::ErrorKind::BrokenPipe,
                io::ErrorKind::NotConnected,
            ];
            assert!(kinds.contains(&error.kind()), "cut {cut}: {error:?}");
            failed += 1;
        }
        if let Err(error) = echoes(&ssh, b"healed").await {
            panic!("cut {cut}: {error:?}");
        }
    }
    assert!(failed > 2, "only {failed} cuts hit an open stream");
}

#[tokio::test]
async fn an_idle_session_that_died_is_replaced() {
    let sshd = sshd!("an_idle_session_that_died_is_replaced");
    let ssh = sshd.client(SshConfig {
        ready: 0,
        ..SshConfig::default()
    });
    for _ in 0..3 {
        let before = sshd.connections();
        echoes(&ssh, b"first").await.unwrap();
        while ssh.idle_sessions() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sshd.connections(), before + 1);
        sshd.kill_all();
        // At once, before the death has been noticed or after.
        echoes(&ssh, b"second").await.unwrap();
        assert_eq!(sshd.connections(), before + 2);
        while ssh.idle_sessions() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sshd.kill_all();
        // And when it has.
        while ssh.idle_sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_its_stream_says_why() {
    let sshd = sshd!("a_silent_server_is_given_up_and_its_stream_says_why");
    let silent = Arc::new(AtomicBool::new(false));
    let (server, flag) = (Arc::clone(&sshd), Arc::clone(&silent));
    let dial = move || {
        std::future::ready(server.connect().map(|inner| Failing {
            inner,
            bytes_left: usize::MAX,
            silent: Arc::clone(&flag),
        }))
    };
    let config = SshConfig {
        ping_interval: Duration::from_millis(50),
        dead_after: Duration::from_millis(500),
        ready: 0,
        ..SshConfig::default()
    };
    let ssh = Ssh::new(dial, sshd.login(), config);
    ssh.check().await.unwrap();
    let mut stream = ssh.open(&echo()).await.unwrap();
    // A server that answers lives on: some forty pings.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');

    silent.store(true, Ordering::Relaxed);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(
        error.to_string(),
        "the ssh server has been silent for 500ms"
    );
    let error = stream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    silent.store(false, Ordering::Relaxed);
    echoes(&ssh, b"back again").await.unwrap();
}

#[tokio::test]
async fn another_host_key_is_a_mismatch_with_both_fingerprints() {
    let sshd = sshd!("another_host_key_is_a_mismatch_with_both_fingerprints");
    let other = sshd!("another_host_key_is_a_mismatch_with_both_fingerprints");
    let server = Arc::clone(&sshd);
    let mut login = sshd.login();
    login.host_key = other.host_key();
    let dial = move || std::future::ready(server.connect());
    let ssh = Ssh::new(dial, login.clone(), SshConfig::default());
    let error = ssh.open(&echo()).await.unwrap_err();
    let expected = format!(
        "the ssh server has the key {}, and {} is pinned",
        sshd.host_key().fingerprint(),
        other.host_key().fingerprint()
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, SshError::HostKeyMismatch { .. }));
    // At once, and before anything about the user was said.
    assert_eq!(sshd.connections(), 1);
    assert!(!sshd.log().contains(&format!("user {}", login.user)));
    // A fingerprint pins as well as a key does.
    let server = Arc::clone(&sshd);
    login.host_key = sshd.host_key().fingerprint().into();
    let dial = move || std::future::ready(server.connect());
    let ssh = Ssh::new(dial, login, SshConfig::default());
    echoes(&ssh, b"the right one").await.unwrap();
}

#[tokio::test]
async fn who_is_not_let_in_hears_it_at_once() {
    let sshd = sshd!("who_is_not_let_in_hears_it_at_once");
    let other = sshd!("who_is_not_let_in_hears_it_at_once");
    let with = |credential| {
        let server = Arc::clone(&sshd);
        let mut login = sshd.login();
        login.credential = credential;
        let dial = move || std::future::ready(server.connect());
        Ssh::new(dial, login, SshConfig::default())
    };
    let stranger = with(Credential::key_file(other.path("user_key")));
    let error = stranger.check().await.unwrap_err();
    assert!(
        matches!(error, SshError::Authentication { .. }),
        "{error:?}"
    );
    assert_eq!(sshd.connections(), 1);
    let error = with(Credential::key("no key")).check().await.unwrap_err();
    assert!(
        matches!(error, SshError::Authentication { .. }),
        "{error:?}"
    );
    let missing = with(Credential::key_file("/nowhere/at/all"));
    let error = missing.check().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let nobody = with(Credential::Agent {
        socket: "/nowhere/at/all".into(),
    });
    let error = nobody.check().await.unwrap_err();
    assert!(matches!(error, SshError::Agent { .. }), "{error:?}");

    with(Credential::key_file(sshd.path("user_key")))
        .check()
        .await
        .unwrap();
}

#[tokio::test]
async fn an_agent_lets_in() {
    let sshd = sshd!("an_agent_lets_in");
    let socket = sshd.path("agent.sock");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let added = std::process::Command::new("ssh-add")
        .arg("-q")
        .arg(sshd.path("user_key"))
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .unwrap();
    assert!(added.success());
    let server = Arc::clone(&sshd);
    let mut login = sshd.login();
    login.credential = Credential::Agent { socket };
    let dial = move || std::future::ready(server.connect());
    let ssh = Ssh::new(dial, login, SshConfig::default());
    let output = ssh.run(&Command::new(["echo", "in"])).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(output.unwrap().stdout, b"in\n");
}

/// What a client says of a server that does `act` on every connection.
async fn reaction<A, F>(sshd: &Sshd, act: A) -> SshError
where
    A: Fn(UnixStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let dial = move || {
        let (near, far) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => return std::future::ready(Err(error)),
        };
        tokio::spawn(act(far));
        std::future::ready(Ok(near))
    };
    let ssh = Ssh::new(dial, sshd.login(), impatient());
    let endpoint = echo();
    let (stream, output) = tokio::join!(ssh.open(&endpoint), async {
        ssh.run(&Command::new(["true"])).await
    });
    output.unwrap_err();
    stream.unwrap_err()
}

#[tokio::test]
async fn rogue_servers_are_errors_before_the_deadline() {
    let sshd = sshd!("rogue_servers_are_errors_before_the_deadline");
    let hang_up = reaction(&sshd, |_| async {}).await;
    assert_eq!(hang_up.kind(), io::ErrorKind::NotConnected, "{hang_up:?}");

    let silence = reaction(&sshd, |mut link| async move {
        let mut bytes = Vec::new();
        let _ = link.read_to_end(&mut bytes).await;
    })
    .await;
    let SshError::Down { source, .. } = silence else {
        panic!("{silence:?}");
    };
    assert!(matches!(*source, SshError::HandshakeTimedOut { .. }));

    let zeros = reaction(&sshd, |mut link| async move {
        let _ = link.write_all(&[0; 100]).await;
        let _ = link.read_u8().await;
    })
    .await;
    assert!(matches!(zeros, SshError::Handshake { .. }), "{zeros:?}");

    // Lines without end, of which none is a banner (RFC 4253, 4.2 allows lines before it).
    let endless = reaction(&sshd, |mut link| async move {
        while link.write_all(&b"not yet\r\n".repeat(1000)).await.is_ok() {}
    })
    .await;
    assert_eq!(endless.kind(), io::ErrorKind::NotConnected, "{endless:?}");

    let slow = reaction(&sshd, |mut link| async move {
        for byte in b"SSH-2.0-slow".iter().cycle() {
            if link.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(slow.kind(), io::ErrorKind::NotConnected, "{slow:?}");

    let garbage = reaction(&sshd, |mut link| async move {
        let _ = link.write_all(b"SSH-2.0-rogue\r\n").await;
        let _ = link.write_all(&[0xff; 4000]).await;
        let mut bytes = Vec::new();
        let _ = link.read_to_end(&mut bytes).await;
    })
    .await;
    let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::NotConnected];
    assert!(kinds.contains(&garbage.kind()), "{garbage:?}");
}
