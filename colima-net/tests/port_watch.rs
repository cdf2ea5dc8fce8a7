//! The conversation about ports, against an agent that says what the test wants.

use std::io;

use colima_core::{
    Connect, Endpoint,
    agent::{LONGEST_LINE, MOST_PORTS, Reply, Request},
    ports::{GuestPort, Protocol},
};
use colima_net::agent::{Agent, AgentError, PortNews, PortWatch};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex},
    sync::Mutex,
};

struct Once(Mutex<Option<DuplexStream>>);

impl Connect for Once {
    type Stream = DuplexStream;

    async fn connect(&self, _: &Endpoint) -> io::Result<DuplexStream> {
        let stream = self.0.lock().await.take();
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

struct Guest(BufReader<DuplexStream>);

impl Guest {
    async fn hear(&mut self) -> Request {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn say(&mut self, reply: &Reply) {
        let mut line = serde_json::to_vec(reply).unwrap();
        line.push(b'\n');
        self.0.write_all(&line).await.unwrap();
    }
}

fn port(port: u16) -> GuestPort {
    GuestPort::socket(Protocol::Tcp, ([127, 0, 0, 1], port).into())
}

async fn watch(first: Reply) -> (Result<PortWatch<DuplexStream>, AgentError>, Guest) {
    let (host, guest) = duplex(1 << 12);
    let agent = Agent::new(Once(Mutex::new(Some(host))));
    let mut guest = Guest(BufReader::new(guest));
    let (watch, guest) = tokio::join!(agent.watch_ports(), async {
        assert_eq!(guest.hear().await, Request::WatchPorts);
        guest.say(&first).await;
        guest
    });
    (watch, guest)
}

#[tokio::test]
async fn changes_and_a_barrier_in_order() {
    let (watch, mut guest) = watch(Reply::Ports {
        ports: vec![port(1), port(2)],
    })
    .await;
    let mut watch = watch.unwrap();
    assert_eq!(watch.ports(), [port(1), port(2)]);
    let token = watch.drain(Some("web")).await.unwrap();
    let container = Some("web".to_owned());
    assert_eq!(guest.hear().await, Request::DrainPorts { token, container });
    let (closed, opened) = (vec![port(1)], vec![port(3)]);
    guest.say(&Reply::PortsChanged { closed, opened }).await;
    let container = vec![port(3)];
    guest.say(&Reply::PortsDrained { token, container }).await;
    assert!(matches!(
        watch.next().await.unwrap(),
        PortNews::Changed { .. }
    ));
    assert_eq!(watch.ports(), [port(2), port(3)]);
    let container = vec![port(3)];
    assert_eq!(
        watch.next().await.unwrap(),
        PortNews::Drained { token, container }
    );
    assert!(watch.drain(None).await.unwrap() != token);
    drop(guest);
    assert!(matches!(
        watch.next().await.unwrap_err(),
        AgentError::Link { .. }
    ));
}

#[tokio::test]
async fn an_agent_of_version_1_is_told_apart() {
    let reason = "the request is not known".to_owned();
    let (watch, _guest) = watch(Reply::Failed {
        reason,
        detail: Vec::new(),
    })
    .await;
    assert!(matches!(watch.unwrap_err(), AgentError::Failed { .. }));
}

/// A wait that is given up in the middle of a line loses nothing.
#[tokio::test]
async fn waiting_can_be_given_up() {
    let (watch, mut guest) = watch(Reply::Ports { ports: Vec::new() }).await;
    let mut watch = watch.unwrap();
    let news = Reply::PortsChanged {
        closed: Vec::new(),
        opened: vec![port(9)],
    };
    let mut line = serde_json::to_vec(&news).unwrap();
    line.push(b'\n');
    for byte in line {
        guest.0.write_all(&[byte]).await.unwrap();
        tokio::select! {
            biased;
            news = watch.next() => {
                news.unwrap();
                assert_eq!(byte, b'\n');
            }
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(watch.ports(), [port(9)]);
}

#[tokio::test]
async fn a_guest_that_goes_on_and_on_is_bounded() {
    let (watch, mut guest) = watch(Reply::Ports { ports: Vec::new() }).await;
    let mut watch = watch.unwrap();
    let telling = tokio::spawn(async move {
        for chunk in (1..=u16::MAX).collect::<Vec<_>>().chunks(5000) {
            let opened = chunk.iter().map(|number| port(*number)).collect();
            let closed = Vec::new();
            guest.say(&Reply::PortsChanged { closed, opened }).await;
        }
        let endless = vec![b'x'; LONGEST_LINE];
        // Nobody reads all of it.
        let _ = guest.0.write_all(&endless).await;
    });
    let error = loop {
        match watch.next().await {
            Ok(_) => assert!(watch.ports().len() <= MOST_PORTS),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AgentError::Protocol { .. }), "{error:?}");
    drop(watch);
    telling.await.unwrap();
}
