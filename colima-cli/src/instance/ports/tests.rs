use std::{
    net::{SocketAddr, TcpListener},
    sync::Mutex as SyncMutex,
};

use colima_core::{
    agent::{Reply, Request},
    ports::{Asked, Protocol, Publish},
};
use colima_net::mux::{Incoming, MuxConfig, ServeConfig, serve};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// A guest whose agent and docker do as the test says.
#[derive(Clone, Default)]
struct Guest(Arc<SyncMutex<State>>);

#[derive(Default)]
struct State {
    /// What container `web` publishes once it runs.
    publishes: Vec<GuestPort>,
    /// An agent of version 1.
    is_old: bool,
    /// Conversations that break off at the first barrier.
    breaks: usize,
    conversations: usize,
    /// What docker was asked.
    requests: Vec<String>,
}

impl Guest {
    fn connect(&self) -> Agent<Mux> {
        let (host, guest) = tokio::io::duplex(64 << 10);
        let this = self.clone();
        tokio::spawn(serve(guest, ServeConfig::default(), move |incoming| {
            let this = this.clone();
            async move {
                // The host leaves when it has heard enough.
                let _ = this.answer(incoming).await;
            }
        }));
        Agent::new(Mux::over(host, MuxConfig::default()))
    }

    async fn answer(&self, incoming: Incoming) -> std::io::Result<()> {
        let is_docker = matches!(incoming.endpoint(), Endpoint::Unix(_));
        let mut talk = BufReader::new(incoming.accept());
        if is_docker {
            let mut line = String::new();
            talk.read_line(&mut line).await?;
            self.0
                .lock()
                .unwrap()
                .requests
                .push(line.trim_end().to_owned());
            talk.write_all(b"HTTP/1.0 204 No Content\r\n\r\n").await?;
            talk.shutdown().await?;
            // Dropped before, it would be reset.
            return talk.read_to_end(&mut Vec::new()).await.map(drop);
        }
        loop {
            let mut line = String::new();
            if talk.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let replies = self.replies(&serde_json::from_str(&line).unwrap());
            if replies.is_empty() {
                return Ok(());
            }
            for reply in replies {
                let mut line = serde_json::to_vec(&reply).unwrap();
                line.push(b'\n');
                talk.write_all(&line).await?;
            }
        }
    }

    /// Nothing breaks the conversation off.
    fn replies(&self, request: &Request) -> Vec<Reply> {
        let mut state = self.0.lock().unwrap();
        match request {
            Request::WatchPorts if state.is_old => vec![Reply::Failed {
                reason: "the request is not known".to_owned(),
                detail: Vec::new(),
            }],
            Request::WatchPorts => {
                state.conversations += 1;
                vec![Reply::Ports { ports: Vec::new() }]
            }
            Request::DrainPorts { .. } if state.breaks > 0 => {
                state.breaks -= 1;
                Vec::new()
            }
            Request::DrainPorts { token, container } => {
                assert_eq!(container.as_deref(), Some("web"));
                let ports = state.publishes.clone();
                vec![
                    Reply::PortsChanged {
                        closed: Vec::new(),
                        opened: ports.clone(),
                    },
                    Reply::PortsDrained {
                        token: *token,
                        container: ports,
                    },
                ]
            }
            other => panic!("{other:?}"),
        }
    }
}

fn published(port: u16) -> GuestPort {
    GuestPort {
        published: Some(Publish {
            container: "web".to_owned(),
            name: "web".to_owned(),
            asked: Asked::Address,
        }),
        ..GuestPort::socket(Protocol::Tcp, ([127, 0, 0, 88], port).into())
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.88", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

async fn judge(ports: &HostPorts, agent: &Agent<Mux>) -> Verdict {
    let judging = ports.judge(agent).judge("web");
    timeout(DEADLINE, judging).await.expect("a verdict")
}

#[tokio::test]
async fn a_start_is_good_once_its_ports_are_open() {
    let guest = Guest::default();
    let port = free_port();
    guest.0.lock().unwrap().publishes = vec![published(port)];
    let agent = guest.connect();
    let ports = HostPorts::open(&PortSettings::default(), &agent, None);
    assert_eq!(judge(&ports, &agent).await, Verdict::Started);
    // It is open by now: nothing is waited for.
    let address = SocketAddr::from(([127, 0, 0, 88], port));
    std::net::TcpStream::connect(address).unwrap();
    let report = ports.report().unwrap();
    assert_eq!(report.open.len(), 1);
    assert_eq!(report.open[0].container.as_deref(), Some("web"));
    ports.close().await;
    TcpListener::bind(address).unwrap();
    // As after a stop that failed.
    ports.close().await;
    assert_eq!(judge(&ports, &agent).await, Verdict::Started);
}

#[tokio::test]
async fn a_start_whose_port_is_taken_is_undone() {
    let taken = TcpListener::bind(("127.0.0.88", 0)).unwrap();
    let guest = Guest::default();
    let port = taken.local_addr().unwrap().port();
    guest.0.lock().unwrap().publishes = vec![published(free_port()), published(port)];
    let agent = guest.connect();
    let ports = HostPorts::open(&PortSettings::default(), &agent, None);
    let Verdict::Failed(why) = judge(&ports, &agent).await else {
        panic!("it cannot be started");
    };
    let in_use = format!("Ports are not available: 127.0.0.88:{port}/tcp is in use by ");
    assert!(why.starts_with(&in_use), "{why}");
    assert!(
        why.ends_with(&format!("(pid {})", std::process::id())),
        "{why}"
    );
    let requests = guest.0.lock().unwrap().requests.clone();
    assert_eq!(requests, ["POST /containers/web/stop?t=0 HTTP/1.0"]);
    assert_eq!(ports.report().unwrap().conflicts.len(), 1);
}

/// The barrier is put up again in the next conversation.
#[tokio::test]
async fn a_conversation_that_breaks_is_begun_anew() {
    let guest = Guest::default();
    let port = free_port();
    guest.0.lock().unwrap().publishes = vec![published(port)];
    guest.0.lock().unwrap().breaks = 2;
    let agent = guest.connect();
    let ports = HostPorts::open(&PortSettings::default(), &agent, None);
    assert_eq!(judge(&ports, &agent).await, Verdict::Started);
    std::net::TcpStream::connect(("127.0.0.88", port)).unwrap();
    assert_eq!(guest.0.lock().unwrap().conversations, 3);
}

/// After a resume the agent may be older than this program.
#[tokio::test]
async fn an_agent_that_knows_no_ports_keeps_no_start_waiting() {
    let guest = Guest::default();
    guest.0.lock().unwrap().is_old = true;
    let agent = guest.connect();
    let ports = HostPorts::open(&PortSettings::default(), &agent, None);
    assert_eq!(judge(&ports, &agent).await, Verdict::Started);
    let trouble = ports.report().unwrap().trouble.expect("it is told");
    assert!(trouble.contains("the request is not known"), "{trouble}");
}

#[tokio::test]
async fn without_forwarding_nothing_is_asked() {
    let guest = Guest::default();
    let agent = guest.connect();
    let settings = PortSettings {
        forwarding: Forwarding::Off,
        ..PortSettings::default()
    };
    let ports = HostPorts::open(&settings, &agent, None);
    assert_eq!(judge(&ports, &agent).await, Verdict::Started);
    assert_eq!(ports.report(), None);
    assert_eq!(guest.0.lock().unwrap().conversations, 0);
    ports.close().await;
}

#[test]
fn settings_are_recorded() {
    let settings: PortSettings =
        serde_json::from_str(r#"{"forwarding":"off","plain":["0.0.0.0"]}"#).unwrap();
    assert_eq!(settings.forwarding, Forwarding::Off);
    assert_eq!(settings.plain, [IpAddr::from([0, 0, 0, 0])]);
}
