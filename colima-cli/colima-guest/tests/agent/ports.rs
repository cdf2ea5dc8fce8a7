//! What the agent tells about ports: real sockets of this machine, and a docker that does as told.

use std::sync::Arc;

use colima_core::{
    agent::{Reply, Request},
    boot::Runtime,
    ports::{Asked, GuestPort, Protocol},
};
use colima_guest::agent::{Agent, Ports, Readiness, handle};
use colima_net::mux::{Mux, MuxConfig, MuxStream, ServeConfig, serve};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::{open, reply, send, status};

/// Docker's API as far as the agent asks it: one container that can be started and stopped.
struct Docker {
    directory: tempfile::TempDir,
    running: Arc<std::sync::Mutex<bool>>,
    events: tokio::sync::broadcast::Sender<&'static str>,
}

impl Docker {
    /// `socket` is where the container's port would be listened on by docker's proxy.
    fn serve(published: std::net::SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener =
            tokio::net::UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let running = Arc::new(std::sync::Mutex::new(false));
        let (events, _) = tokio::sync::broadcast::channel(16);
        let docker = Self {
            directory,
            running: Arc::clone(&running),
            events: events.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (running, events) = (Arc::clone(&running), events.subscribe());
                tokio::spawn(async move {
                    let _ = Self::answer(stream, &running, events, published).await;
                });
            }
        });
        docker
    }

    fn socket(&self) -> Option<std::path::PathBuf> {
        Some(self.directory.path().join("docker.sock"))
    }

    async fn answer(
        stream: tokio::net::UnixStream,
        running: &std::sync::Mutex<bool>,
        mut events: tokio::sync::broadcast::Receiver<&'static str>,
        published: std::net::SocketAddr,
    ) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            stream.read_line(&mut request).await?;
        }
        let runs = *running.lock().unwrap();
        let (ip, port) = (published.ip(), published.port());
        let binding = format!(r#"{{"80/tcp":[{{"HostIp":"{ip}","HostPort":"{port}"}}]}}"#);
        let body = if request.starts_with("GET /containers/json ") {
            if runs { r#"[{"Id":"4a1b"}]"# } else { "[]" }.to_owned()
        } else if request.starts_with("GET /containers/4a1b/json ") {
            format!(
                r#"{{"Id":"4a1b","Name":"/web","State":{{"Running":{runs}}},
                "HostConfig":{{"PortBindings":{binding}}},"NetworkSettings":{{"Ports":{binding}}}}}"#
            )
        } else {
            assert!(request.starts_with("GET /events?"), "{request}");
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await?;
            while let Ok(action) = events.recv().await {
                let event = format!(
                    r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"4a1b"}}}}"#
                );
                stream.write_all(format!("{event}\n").as_bytes()).await?;
            }
            return Ok(());
        };
        stream
            .write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes())
            .await
    }
}

fn connect_ports(docker: Option<std::path::PathBuf>) -> Mux {
    let (host, guest) = tokio::io::duplex(64 << 10);
    let readiness = Readiness::watch(Ok(status(Runtime::None, None)));
    let agent = Arc::new(Agent::new(readiness, Ports::untraced(docker)));
    tokio::spawn(serve(guest, ServeConfig::default(), move |incoming| {
        handle(incoming, Arc::clone(&agent))
    }));
    Mux::over(host, MuxConfig::default())
}

/// Reads news until what they say satisfies `wanted`; closed ports are told with a minus.
async fn news_until(talk: &mut BufReader<MuxStream>, wanted: &str) {
    loop {
        let Reply::PortsChanged { closed, opened } = reply(talk).await else {
            panic!("no news")
        };
        let line = |sign: &str, port: &GuestPort| match &port.published {
            Some(publish) => format!("{sign}{port} {}", publish.name),
            None => format!("{sign}{port}"),
        };
        let closed = closed.iter().map(|port| line("-", port));
        if closed
            .chain(opened.iter().map(|port| line("+", port)))
            .any(|line| line == wanted)
        {
            return;
        }
    }
}

#[tokio::test]
async fn listening_sockets_are_told_as_they_come_and_go() {
    let mux = connect_ports(None);
    let before = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WatchPorts).await;
    let Reply::Ports { ports } = reply(&mut talk).await else {
        panic!()
    };
    let port = GuestPort::socket(Protocol::Tcp, before.local_addr().unwrap());
    assert!(ports.contains(&port), "{ports:?}");
    drop(before);
    news_until(&mut talk, &format!("-{port}")).await;
    let after = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = GuestPort::socket(Protocol::Tcp, after.local_addr().unwrap());
    news_until(&mut talk, &format!("+{port}")).await;
}

/// What happened before the host asked is told before the answer.
#[tokio::test]
async fn a_barrier_comes_after_everything_before_it() {
    let mux = connect_ports(None);
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WatchPorts).await;
    assert!(matches!(reply(&mut talk).await, Reply::Ports { .. }));
    let mut listeners = Vec::new();
    for token in 0..30 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = GuestPort::socket(Protocol::Tcp, listener.local_addr().unwrap());
        listeners.push(listener);
        let container = None;
        send(&mut talk, &Request::DrainPorts { token, container }).await;
        let mut told = false;
        loop {
            match reply(&mut talk).await {
                Reply::PortsChanged { opened, .. } => told |= opened.contains(&port),
                Reply::PortsDrained {
                    token: answered, ..
                } => {
                    assert_eq!(answered, token);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(told, "{port} was not told before the barrier");
    }
}

#[tokio::test]
async fn publishes_come_from_docker_with_and_without_a_socket() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let docker = Docker::serve(address);
    let mux = connect_ports(docker.socket());
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WatchPorts).await;
    let Reply::Ports { ports } = reply(&mut talk).await else {
        panic!()
    };
    let port = GuestPort::socket(Protocol::Tcp, address);
    assert!(ports.contains(&port), "a socket so far: {ports:?}");

    // The barrier asks docker itself and waits for no event.
    *docker.running.lock().unwrap() = true;
    let container = Some("4a1b".to_owned());
    send(
        &mut talk,
        &Request::DrainPorts {
            token: 7,
            container,
        },
    )
    .await;
    news_until(&mut talk, &format!("+{port} web")).await;
    let drained = loop {
        match reply(&mut talk).await {
            Reply::PortsDrained { container, .. } => break container,
            Reply::PortsChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(drained.len(), 1);
    assert_eq!(drained[0].published.as_ref().unwrap().asked, Asked::Address);

    // The proxy goes with the container, here a little later.
    *docker.running.lock().unwrap() = false;
    docker.events.send("die").unwrap();
    drop(proxy);
    news_until(&mut talk, &format!("-{port} web")).await;

    // Without a proxy there is only docker's word.
    *docker.running.lock().unwrap() = true;
    docker.events.send("start").unwrap();
    news_until(&mut talk, &format!("+{port} web")).await;
    *docker.running.lock().unwrap() = false;
    docker.events.send("die").unwrap();
    news_until(&mut talk, &format!("-{port} web")).await;

    // A container that nobody knows is no reason to wait.
    let container = Some("../../x".to_owned());
    send(
        &mut talk,
        &Request::DrainPorts {
            token: 8,
            container,
        },
    )
    .await;
    loop {
        match reply(&mut talk).await {
            Reply::PortsDrained { token, container } => {
                assert_eq!((token, container), (8, Vec::new()));
                break;
            }
            Reply::PortsChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_conversation_about_ports_takes_nothing_else() {
    let mux = connect_ports(None);
    let mut talk = open(&mux).await;
    send(&mut talk, &Request::WatchPorts).await;
    assert!(matches!(reply(&mut talk).await, Reply::Ports { .. }));
    send(&mut talk, &Request::PowerOff).await;
    loop {
        match reply(&mut talk).await {
            Reply::PortsChanged { .. } => {}
            Reply::Failed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
}
