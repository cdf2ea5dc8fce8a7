//! The control channel against a real QEMU, and against one that lies.

use std::{os::unix::process::CommandExt as _, time::Duration};

use colima_vm::machine::qmp::{Client, Command, Error, Event, Noise, RunState, ShutdownReason};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use crate::guest_code::{PATIENCE, qemu_program};

#[tokio::test]
async fn a_real_qemu() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let theirs: std::os::fd::OwnedFd = theirs.into();
    // QEMU's standard input and output are the channel.
    let mut qemu = std::process::Command::new(qemu_program())
        .args(["-machine", "none", "-nodefaults", "-display", "none", "-S"])
        .args(["-qmp", "stdio"])
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs)
        .process_group(0)
        .spawn()
        .unwrap();
    let stream = UnixStream::from_std(ours).unwrap();
    let (client, greeting) = Client::negotiate(stream, PATIENCE).await.unwrap();
    assert!(greeting.version >= (7, 2, 0));
    let mut events = client.events();
    let (status, version, balloon) = tokio::join!(
        client.query_status(PATIENCE),
        client.execute(&Command::QueryVersion, PATIENCE),
        client.execute(&Command::QueryBalloon, PATIENCE),
    );
    assert_eq!(status.unwrap().status, RunState::Prelaunch);
    assert_eq!(version.unwrap()["qemu"]["major"], greeting.version.0);
    let refused = balloon.unwrap_err();
    assert!(matches!(&refused, Error::Refused { .. }), "{refused:?}");
    client.execute(&Command::Cont, PATIENCE).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), Event::Resume);
    client.execute(&Command::Quit, PATIENCE).await.unwrap();
    tokio::time::timeout(PATIENCE, client.closed())
        .await
        .unwrap();
    assert!(matches!(
        events.recv().await.unwrap(),
        Event::Shutdown {
            reason: ShutdownReason::HostQuit,
            ..
        }
    ));
    let after = client.execute(&Command::Stop, PATIENCE).await;
    assert!(
        matches!(after, Err(Error::Closed { command: "stop" })),
        "{after:?}"
    );
    assert_eq!(client.noise(), Noise::default());
    qemu.wait().unwrap();
}

/// A peer that greets and then does as the test says.
async fn peer() -> (Client, BufReader<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let greet = async {
        let mut theirs = BufReader::new(theirs);
        theirs
            .write_all(
                b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":9,\"minor\":1,\"micro\":0}}}}\r\n",
            )
            .await
            .unwrap();
        let id = next_id(&mut theirs).await;
        say(&mut theirs, &format!("{{\"return\":{{}},\"id\":{id}}}\n")).await;
        theirs
    };
    let (client, theirs) = tokio::join!(Client::negotiate(ours, PATIENCE), greet);
    (client.unwrap().0, theirs)
}

async fn next_id(peer: &mut BufReader<UnixStream>) -> u64 {
    let mut line = String::new();
    peer.read_line(&mut line).await.unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    value["id"].as_u64().unwrap()
}

async fn say(peer: &mut BufReader<UnixStream>, text: &str) {
    peer.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn replies_out_of_order_amid_garbage() {
    let (client, mut peer) = peer().await;
    let script = async {
        let first = next_id(&mut peer).await;
        let second = next_id(&mut peer).await;
        say(&mut peer, "not json\n[]\n{\"return\":{},\"id\":4711}\n").await;
        say(&mut peer, &"x".repeat(3 << 20)).await;
        say(&mut peer, "\n").await;
        say(&mut peer, &format!("{{\"id\":{second},\"return\":\"\u{e9}")).await;
        say(&mut peer, "2\"}\n").await;
        say(&mut peer, &format!("{{\"id\":{first},\"return\":1}}\n")).await;
    };
    let (one, two, ()) = tokio::join!(
        client.execute(&Command::Stop, PATIENCE),
        client.execute(&Command::Cont, PATIENCE),
        script,
    );
    assert_eq!(one.unwrap(), 1);
    assert_eq!(two.unwrap(), "\u{e9}2");
    assert_eq!(
        client.noise(),
        Noise {
            garbage: 3,
            strays: 1
        }
    );
}

#[tokio::test]
async fn a_late_answer_is_a_stray() {
    let (client, mut peer) = peer().await;
    let error = client
        .execute(&Command::Stop, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                command: "stop",
                ..
            }
        ),
        "{error:?}"
    );
    let late = next_id(&mut peer).await;
    let answer = async {
        let id = next_id(&mut peer).await;
        say(
            &mut peer,
            &format!("{{\"return\":0,\"id\":{late}}}\n{{\"return\":7,\"id\":{id}}}\n"),
        )
        .await;
    };
    let (value, ()) = tokio::join!(client.execute(&Command::Cont, PATIENCE), answer);
    assert_eq!(value.unwrap(), 7);
    assert_eq!(client.noise().strays, 1);
}

#[tokio::test]
async fn a_peer_that_hangs_up() {
    let (client, peer) = peer().await;
    let command = Command::Stop;
    let (result, ()) = tokio::join!(client.execute(&command, PATIENCE), async { drop(peer) });
    assert!(matches!(result, Err(Error::Closed { .. })), "{result:?}");
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let result = Client::negotiate(ours, PATIENCE).await;
    assert!(matches!(result, Err(Error::Closed { .. })), "{result:?}");
}
