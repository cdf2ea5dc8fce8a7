//! Ports that open, close and collide, on the loopback of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use colima_core::{
    Connect, Endpoint,
    ports::{Asked, GuestPort, Protocol, Publish},
};
use colima_net::{
    Local, datagrams,
    forward::{Action, Bind, Cause, Change, Forward, Forwarder, Plan, Rule, Rules},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The host's side of these tests: an address of its own, because the guest's side is this machine too.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

fn to(addresses: &[IpAddr]) -> Rules {
    Rules::new([Rule {
        protocol: None,
        address: None,
        ports: 1..=u16::MAX,
        action: Action::Forward {
            bind: Bind::To(addresses.to_vec()),
            first_port: None,
        },
    }])
}

async fn serve() -> (TcpListener, GuestPort) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = GuestPort::socket(Protocol::Tcp, listener.local_addr().unwrap());
    (listener, port)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(DEADLINE, TcpStream::connect(address))
        .await
        .expect("an answer")
}

async fn whole(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .expect("the end")
        .unwrap();
    bytes
}

#[tokio::test]
async fn a_port_opens_serves_and_closes_at_once() {
    let (server, port) = serve().await;
    let host = SocketAddr::new(HOST, port.port);
    let mut forwarder = Forwarder::new(Local);
    for _ in 0..20 {
        let changes = forwarder.apply(&to(&[HOST]).plan([&port])).await;
        assert!(matches!(&changes[..], [Change::Opened(forward)] if forward.host == host));
        // The very next thing is a connection.
        let mut client = connect(host).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(whole(&mut served).await, b"question");
        served.write_all(b"answer").await.unwrap();
        drop(served);
        assert_eq!(whole(&mut client).await, b"answer");

        let changes = forwarder.apply(&Plan::default()).await;
        assert!(matches!(&changes[..], [Change::Closed(_)]), "{changes:?}");
        let refused = connect(host).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // Free for everybody else, too.
        drop(TcpListener::bind(host).await.unwrap());
    }
}

#[tokio::test]
async fn connections_outlive_their_port_and_nothing_is_opened_twice() {
    let (server, port) = serve().await;
    let host = SocketAddr::new(HOST, port.port);
    let mut forwarder = Forwarder::new(Local);
    let plan = to(&[HOST]).plan([&port]);
    forwarder.apply(&plan).await;
    assert_eq!(forwarder.apply(&plan).await, []);
    let mut client = connect(host).await.unwrap();
    let (mut served, _) = server.accept().await.unwrap();
    forwarder.apply(&Plan::default()).await;
    forwarder.apply(&plan).await;
    forwarder.apply(&Plan::default()).await;
    served.write_all(b"still here").await.unwrap();
    drop(served);
    assert_eq!(whole(&mut client).await, b"still here");
}

#[tokio::test]
async fn what_is_taken_is_named_and_opened_once_it_is_free() {
    let (_server, port) = serve().await;
    let host = SocketAddr::new(HOST, port.port);
    let mut forwarder = Forwarder::new(Local);
    let plan = to(&[HOST]).plan([&port]);

    let other = TcpListener::bind(host).await.unwrap();
    let changes = forwarder.apply(&plan).await;
    let [Change::Conflict(conflict)] = &changes[..] else {
        panic!("{changes:?}");
    };
    if cfg!(target_os = "linux") {
        let text = conflict.to_string();
        let pid = format!("(pid {})", std::process::id());
        assert!(
            text.starts_with(&format!("{host}/tcp is in use by ")),
            "{text}"
        );
        assert!(text.ends_with(&pid), "{text}");
    }
    assert!(forwarder.conflict(plan.forwards[0].place()).is_some());
    assert_eq!(forwarder.open().count(), 0);
    // The other is left alone, and the conflict is told once.
    drop(connect(host).await.unwrap());
    other.accept().await.unwrap();
    assert_eq!(forwarder.apply(&plan).await, []);

    drop(other);
    let changes = forwarder.apply(&plan).await;
    assert!(matches!(&changes[..], [Change::Opened(_)]), "{changes:?}");
    assert_eq!(forwarder.conflicts().count(), 0);
}

#[tokio::test]
async fn every_address_is_in_the_way_of_one_and_one_of_every() {
    for (first, second) in [("0.0.0.0", "127.0.0.77"), ("127.0.0.77", "0.0.0.0")] {
        let other = TcpListener::bind((first, 0)).await.unwrap();
        let forward = Forward {
            protocol: Protocol::Tcp,
            host: SocketAddr::new(second.parse().unwrap(), other.local_addr().unwrap().port()),
            guest: "127.0.0.1:9".parse().unwrap(),
            published: None,
        };
        let plan = Plan {
            forwards: vec![forward],
            ..Plan::default()
        };
        let mut forwarder = Forwarder::new(Local);
        forwarder.apply(&plan).await;
        let conflict = forwarder.conflicts().next().expect("a conflict");
        assert!(matches!(conflict.cause, Cause::InUse { .. }), "{conflict}");
    }
}

/// `0.0.0.0` and `::` are two places, as docker has them.
#[tokio::test]
async fn both_families_have_the_same_port() {
    let (server, port) = serve().await;
    if TcpListener::bind("[::1]:0").await.is_err() {
        println!("skipped: both_families_have_the_same_port: no IPv6 here");
        return;
    }
    // A port of the host that is free in both.
    let free = TcpListener::bind("[::]:0").await.unwrap();
    let first_port = free.local_addr().unwrap().port();
    drop(free);
    let rules = Rules::new([Rule {
        protocol: None,
        address: None,
        ports: port.port..=port.port,
        action: Action::Forward {
            bind: Bind::To(vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()]),
            first_port: Some(first_port),
        },
    }]);
    let mut forwarder = Forwarder::new(Local);
    forwarder.apply(&rules.plan([&port])).await;
    assert_eq!(forwarder.conflicts().next(), None);
    for address in ["127.0.0.1", "::1"] {
        let client = connect(SocketAddr::new(address.parse().unwrap(), first_port));
        let (client, served) = tokio::join!(client, server.accept());
        drop((client.unwrap(), served.unwrap()));
    }
}

#[tokio::test]
async fn a_storm_is_bounded() {
    let ports: Vec<GuestPort> = (1..=2000)
        .map(|port| GuestPort::socket(Protocol::Tcp, ([127, 0, 0, 1], port + 30_000).into()))
        .collect();
    let mut forwarder = Forwarder::new(Local).limit(20);
    forwarder.apply(&to(&[HOST]).plan(&ports)).await;
    assert!(forwarder.open().count() <= 20);
    let too_many = forwarder
        .conflicts()
        .filter(|conflict| conflict.cause == Cause::TooMany { limit: 20 });
    assert_eq!(too_many.count(), 1980);
    // What is open stays open when more is wanted.
    let open: Vec<_> = forwarder.open().map(Forward::place).collect();
    forwarder.apply(&to(&[HOST]).plan(&ports)).await;
    assert_eq!(
        forwarder.open().map(Forward::place).collect::<Vec<_>>(),
        open
    );
    forwarder.close().await;
    for place in open {
        drop(TcpListener::bind(place.address).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_reserved_is_a_conflict() {
    let publish = Publish {
        container: "c".to_owned(),
        name: "thief".to_owned(),
        asked: Asked::Address,
    };
    let port = GuestPort {
        published: Some(publish),
        ..GuestPort::socket(Protocol::Tcp, "127.0.0.77:22222".parse().unwrap())
    };
    let rules = Rules::default().reserve(Protocol::Tcp, 22222);
    let mut forwarder = Forwarder::new(Local);
    let changes = forwarder.apply(&rules.plan([&port])).await;
    assert!(
        matches!(&changes[..], [Change::Conflict(conflict)] if conflict.cause == Cause::Reserved),
        "{changes:?}"
    );
}

/// A server that is gone resets, as its kernel would refuse.
#[tokio::test]
async fn nobody_behind_the_port_is_an_end_and_not_a_silence() {
    let (server, port) = serve().await;
    let host = SocketAddr::new(HOST, port.port);
    let mut forwarder = Forwarder::new(Local);
    forwarder.apply(&to(&[HOST]).plan([&port])).await;
    drop(server);
    let mut client = connect(host).await.unwrap();
    let read = timeout(DEADLINE, client.read(&mut [0; 1])).await;
    let error = read.expect("an end").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Datagrams to this machine, as a guest's agent would carry them.
struct Datagrams;

impl Connect for Datagrams {
    type Stream = DuplexStream;

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<DuplexStream> {
        let Endpoint::Service(service) = endpoint else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let target = datagrams::target(service).ok_or(io::ErrorKind::NotFound)?;
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(target).await?;
        let (near, far) = duplex(64 << 10);
        tokio::spawn(datagrams::join(far, socket, datagrams::DEFAULT_IDLE));
        Ok(near)
    }
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let received = timeout(DEADLINE, socket.recv_from(&mut buffer)).await;
    let (count, peer) = received.expect("a datagram").unwrap();
    buffer.truncate(count);
    (buffer, peer)
}

#[tokio::test]
async fn every_peer_of_a_udp_port_gets_its_own_answers() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = GuestPort::socket(Protocol::Udp, server.local_addr().unwrap());
    let host = SocketAddr::new(HOST, port.port);
    let mut forwarder = Forwarder::new(Datagrams);
    forwarder.apply(&to(&[HOST]).plan([&port])).await;
    assert_eq!(forwarder.conflicts().next(), None);

    let mut peers = Vec::new();
    for index in 0..3_u8 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(host).await.unwrap();
        client.send(&[index; 9000]).await.unwrap();
        let (datagram, peer) = receive(&server).await;
        assert_eq!(datagram, [index; 9000]);
        peers.push((client, peer));
    }
    // In another order, an empty one among them, and more than was asked for.
    for (client, peer) in peers.iter().rev() {
        for answer in [&b"one"[..], b"", b"three"] {
            server.send_to(answer, peer).await.unwrap();
            assert_eq!(receive(client).await, (answer.to_vec(), host));
        }
    }
    // The session of a peer stays the same.
    peers[1].0.send(b"again").await.unwrap();
    assert_eq!(receive(&server).await, (b"again".to_vec(), peers[1].1));

    forwarder.apply(&Plan::default()).await;
    drop(UdpSocket::bind(host).await.unwrap());
}

#[tokio::test]
async fn a_udp_port_in_use_is_a_conflict() {
    let other = UdpSocket::bind((HOST, 0)).await.unwrap();
    let taken = other.local_addr().unwrap();
    let port = GuestPort::socket(Protocol::Udp, ([127, 0, 0, 1], taken.port()).into());
    let mut forwarder = Forwarder::new(Datagrams);
    let changes = forwarder.apply(&to(&[HOST]).plan([&port])).await;
    assert!(
        matches!(&changes[..], [Change::Conflict(conflict)]
            if matches!(conflict.cause, Cause::InUse { .. })),
        "{changes:?}"
    );
}
