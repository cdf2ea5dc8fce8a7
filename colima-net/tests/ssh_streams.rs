//! Streams through a real sshd: the bodies that hold for all transports, and what is ssh's own.

use std::{io, time::Duration};

use colima_core::{Command, Connect as _, Endpoint};
use colima_net::ssh::{SshConfig, SshError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    sshd::Sshd,
    stream_bodies::{self, Transport as _, echo_at_the_end, open, pattern},
};

macro_rules! sshd {
    ($test:literal) => {
        sshd!($test, "")
    };
    ($test:literal, $config:literal) => {
        match Sshd::new(concat!("ssh_streams::", $test), $config) {
            Some(sshd) => sshd,
            None => return,
        }
    };
}

#[tokio::test]
async fn each_direction_ends_on_its_own_with_data_in_flight() {
    let sshd = sshd!("each_direction_ends_on_its_own_with_data_in_flight");
    let mut transport = sshd.accepting();
    stream_bodies::each_direction_ends_on_its_own_with_data_in_flight(&mut transport).await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_only_its_own_stream() {
    let sshd = sshd!("a_reader_that_stops_costs_only_its_own_stream");
    let mut transport = sshd.accepting();
    stream_bodies::a_reader_that_stops_costs_only_its_own_stream(&mut transport).await;
}

#[tokio::test]
async fn what_was_shut_down_before_a_drop_arrives() {
    let sshd = sshd!("what_was_shut_down_before_a_drop_arrives");
    let mut transport = sshd.accepting();
    stream_bodies::what_was_shut_down_before_a_drop_arrives(&mut transport).await;
}

#[tokio::test]
async fn a_far_side_that_leaves_ends_the_writer_too() {
    let sshd = sshd!("a_far_side_that_leaves_ends_the_writer_too");
    let mut transport = sshd.accepting();
    stream_bodies::a_far_side_that_leaves_ends_the_writer_too(&mut transport).await;
}

#[tokio::test]
async fn fifty_streams_at_once_carry_their_own_bytes() {
    let sshd = sshd!("fifty_streams_at_once_carry_their_own_bytes");
    let mut transport = sshd.accepting();
    stream_bodies::fifty_streams_at_once_carry_their_own_bytes(&mut transport).await;
    // Only so many sessions are kept.
    assert!(transport.near().idle_sessions() <= 4);
}

#[tokio::test]
async fn a_refusal_is_an_error_of_its_own_stream() {
    let sshd = sshd!("a_refusal_is_an_error_of_its_own_stream");
    let mut transport = sshd.accepting();
    stream_bodies::a_refusal_is_an_error_of_its_own_stream(&mut transport).await;
}

#[tokio::test]
async fn keys_are_exchanged_anew_under_bulk_both_ways() {
    let sshd = sshd!(
        "keys_are_exchanged_anew_under_bulk_both_ways",
        "RekeyLimit 16M\nLogLevel DEBUG1"
    );
    let mut transport = sshd.accepting();
    let (near, far) = open(&mut transport).await;
    let sent = pattern(48 << 20);
    let (mut from_near, mut to_far) = tokio::io::split(near);
    let (mut from_far, mut to_near) = tokio::io::split(far);
    // Each side sends all the time, and neither waits for the other.
    let send = |bytes: Vec<u8>| async move {
        to_far.write_all(&bytes).await.unwrap();
        to_far.shutdown().await.unwrap();
    };
    let outward = tokio::spawn(send(sent.clone()));
    let bytes = sent.clone();
    let inward = tokio::spawn(async move {
        to_near.write_all(&bytes).await.unwrap();
        to_near.shutdown().await.unwrap();
    });
    let far_side = tokio::spawn(async move {
        let mut seen = Vec::new();
        from_far.read_to_end(&mut seen).await.unwrap();
        seen
    });
    let mut seen = Vec::new();
    from_near.read_to_end(&mut seen).await.unwrap();
    outward.await.unwrap();
    inward.await.unwrap();
    assert!(seen == sent && far_side.await.unwrap() == sent);
    let ciphers = sshd.log().matches("cipher: aes128-gcm@openssh.com").count();
    assert!(ciphers >= 2, "AES-GCM is not what was agreed on");
    let rekeyed = sshd.log().matches("rekeying").count();
    assert!(rekeyed >= 6, "{rekeyed} of 3 exchanges and more, both ways");
}

#[tokio::test]
async fn ports_and_subsystems_are_endpoints_too() {
    let sshd = sshd!("ports_and_subsystems_are_endpoints_too");
    let ssh = sshd.client(SshConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let endpoint = Endpoint::Tcp { host, port };
    let (near, far) = tokio::join!(ssh.open(&endpoint), listener.accept());
    let (mut near, far) = (near.unwrap(), far.unwrap().0);
    tokio::spawn(echo_at_the_end(far));
    near.write_all(b"over a port").await.unwrap();
    near.shutdown().await.unwrap();
    let mut back = String::new();
    near.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "over a port");

    let mut echo = ssh.open(&Endpoint::Service("echo".into())).await.unwrap();
    echo.write_all(b"over a subsystem").await.unwrap();
    echo.shutdown().await.unwrap();
    let mut back = String::new();
    echo.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "over a subsystem");
    let error = ssh.connect(&Endpoint::Service("none".into())).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Unsupported);

    let command = Command::new(["tr", "a-z", "A-Z"]);
    let mut stream = ssh.open_command(&command).await.unwrap();
    stream.write_all(b"over a command").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "OVER A COMMAND");
}

#[tokio::test]
async fn forbidden_and_impossible_endpoints_say_so() {
    let sshd = sshd!(
        "forbidden_and_impossible_endpoints_say_so",
        "AllowTcpForwarding no"
    );
    let ssh = sshd.client(SshConfig::default());
    let endpoint = "tcp:127.0.0.1:9".parse().unwrap();
    let error = ssh.connect(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().starts_with("tcp:127.0.0.1:9 was refused"));
    let endpoint = Endpoint::Service("x".repeat(2000));
    let error = ssh.open(&endpoint).await.unwrap_err();
    assert!(matches!(error, SshError::Endpoint { .. }));
}

#[tokio::test]
async fn sessions_serve_again() {
    let sshd = sshd!("sessions_serve_again");
    let mut transport = sshd.accepting();
    for _ in 0..20 {
        let (mut near, far) = open(&mut transport).await;
        let far = tokio::spawn(echo_at_the_end(far));
        near.write_all(b"again").await.unwrap();
        near.shutdown().await.unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"again");
        far.await.unwrap();
        drop(near);
        // The session is idle once both sides have closed the channel.
        while transport.near().idle_sessions() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // The first one, and the one made ready beside it.
    assert!(sshd.connections() <= 3, "{}", sshd.connections());
}

#[tokio::test]
async fn an_abandoned_open_leaves_nothing() {
    let sshd = sshd!("an_abandoned_open_leaves_nothing");
    let mut transport = sshd.accepting();
    let endpoint = transport.endpoint();
    for millis in 0..30 {
        let opening = transport.near().open(&endpoint);
        // Wherever it is by then: dialing, logging in, opening, done.
        let _ = tokio::time::timeout(Duration::from_millis(millis * 2), opening).await;
    }
    assert!(transport.near().idle_sessions() <= 4);
    // Those that came through were dropped at once.
    let near = transport.near().clone();
    let opening = tokio::spawn(async move { near.open(&endpoint).await.unwrap() });
    let accepting = async {
        loop {
            let mut far = transport.accept().await;
            let mut byte = [0];
            if let Ok(1) = far.read(&mut byte).await {
                break byte;
            }
        }
    };
    let writing = async {
        let mut near = opening.await.unwrap();
        near.write_all(b"!").await.unwrap();
        near
    };
    let (byte, _near) = tokio::join!(accepting, writing);
    assert_eq!(&byte, b"!");
}

/// The time that the threads of sessions have used, in ticks of the kernel.
fn ticks_of_sessions() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let stats =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    let sessions = stats.filter(|stat| stat.contains("(ssh session)"));
    // proc_pid_stat(5): fields 14 and 15; the name is the second.
    let ticks = sessions.map(|stat| {
        let behind_name = stat.rsplit_once(')').unwrap().1;
        let fields = behind_name.split_ascii_whitespace();
        fields
            .skip(11)
            .take(2)
            .map(|n| n.parse::<u64>().unwrap())
            .sum::<u64>()
    });
    ticks.sum()
}

/// A process of its own, because it looks at all threads.
#[tokio::test]
#[ignore = "started by waiting_costs_no_time"]
async fn streams_that_wait() {
    let sshd = sshd!("streams_that_wait");
    let mut transport = sshd.accepting();
    let idle = open(&mut transport).await;
    // Both sides have stopped reading, with all buffers full.
    let (mut near, mut far) = open(&mut transport).await;
    let block = [1; 10_000];
    let moment = Duration::from_millis(300);
    while tokio::time::timeout(moment, far.write(&block))
        .await
        .is_ok()
    {}
    while tokio::time::timeout(moment, near.write(&block))
        .await
        .is_ok()
    {}
    // One direction has ended, on this side, on that, and with bytes that are not taken.
    let mut ended_here = open(&mut transport).await;
    ended_here.0.shutdown().await.unwrap();
    let mut ended_there = open(&mut transport).await;
    ended_there.1.shutdown().await.unwrap();
    let mut unread = open(&mut transport).await;
    unread.1.write_all(&pattern(500_000)).await.unwrap();
    drop(unread.1);
    let before = ticks_of_sessions();
    tokio::time::sleep(Duration::from_secs(7)).await; // At least one ping each.
    println!("ticks {}", ticks_of_sessions() - before);
    let mut seen = Vec::new();
    unread.0.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen.len(), 500_000);
    drop((idle, near, far, ended_here, ended_there));
}

#[test]
fn waiting_costs_no_time() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ssh_streams::streams_that_wait"])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    if let Some(line) = said.lines().find(|line| line.contains("skipped: ")) {
        println!("{line}");
        return;
    }
    let ticks = said.split_once("ticks ").unwrap().1;
    let ticks: u64 = ticks.lines().next().unwrap().parse().unwrap();
    // Of 700 per thread that spins.
    assert!(ticks < 100, "{ticks} ticks");
}

#[tokio::test]
async fn the_limit_of_streams_holds() {
    let sshd = sshd!("the_limit_of_streams_holds");
    let config = SshConfig {
        max_streams: 1,
        ..SshConfig::default()
    };
    let ssh = sshd.client(config);
    let endpoint = Endpoint::Service("echo".into());
    let held = ssh.open(&endpoint).await.unwrap();
    let error = ssh.open(&endpoint).await.unwrap_err();
    assert!(matches!(error, SshError::TooManyStreams { limit: 1 }));
    drop(held);
    while let Err(error) = ssh.open(&endpoint).await {
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
