//! Published ports on the host.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    command::Finished,
    world::{Form, IMAGE, PROFILE, World, eventually},
};

/// A web server that says hello, as one argument of `sh -c`.
const SERVER: &str = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

/// How long a server inside may take until it answers, under emulation.
const SERVER_STARTS: Duration = Duration::from_secs(120);

const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];

/// `docker run -d -p` and at once a connection: the host never refuses it. `docker rm -f` gives the port
/// back.
pub(crate) fn published_ports_take_connections_at_once(world: &World) {
    world.machine_runs();
    let rounds = if world.form == Form::Long { 20 } else { 3 };
    for _ in 0..rounds {
        let port = free_port();
        run_server(world, "web", &[&format!("{port}:80")]).succeeds();
        for loopback in LOOPBACKS {
            connect(at(loopback, port)).unwrap_or_else(|error| panic!("{loopback}: {error}"));
        }
        for loopback in LOOPBACKS {
            assert_eq!(hello(at(loopback, port)), "hello\n", "{loopback}");
        }
        world.docker(["rm", "--force", "web"]).ok();
        let removed = Instant::now();
        eventually("the port is free", Duration::from_secs(60), || {
            TcpListener::bind(at("0.0.0.0", port)).is_ok()
        });
        println!("    free {} ms after rm", removed.elapsed().as_millis());
    }
}

/// The same for a container that is restarted.
pub(crate) fn a_restarted_container_is_there_at_once(world: &World) {
    world.machine_runs();
    let port = free_port();
    run_server(world, "again", &[&format!("{port}:80")]).succeeds();
    let rounds = if world.form == Form::Long { 100 } else { 2 };
    for _ in 0..rounds {
        world.docker(["restart", "--time", "0", "again"]).ok();
        connect(at("127.0.0.1", port)).expect("never refused");
    }
    assert_eq!(hello(at("127.0.0.1", port)), "hello\n");
    world.docker(["rm", "--force", "again"]).ok();
}

/// An address that was asked for is the one, and no other; what only the container hears stays inside.
pub(crate) fn addresses_are_those_that_were_asked_for(world: &World) {
    world.machine_runs();
    let [four, six, all] = [free_port(), free_port(), free_port()];
    let publish = [
        format!("127.0.0.1:{four}:80"),
        format!("[::1]:{six}:80"),
        format!("0.0.0.0:{all}:80"),
    ];
    run_server(world, "asked", &[&publish[0], &publish[1], &publish[2]]).succeeds();
    for (address, port, expected) in [
        ("127.0.0.1", four, true),
        ("::1", four, false),
        ("127.0.0.1", six, false),
        ("::1", six, true),
        ("127.0.0.1", all, true),
        // Every address of the host, without the network that a test host may lack.
        ("127.1.2.3", all, true),
        ("127.1.2.3", four, false),
        ("::1", all, false),
    ] {
        let connected = connect(at(address, port));
        assert_eq!(
            connected.is_ok(),
            expected,
            "{address} {port}: {connected:?}"
        );
    }
    assert_eq!(hello(at("::1", six)), "hello\n");

    let listed = world.colima(["port", "list", "--json"]).ok();
    let mut hosts: Vec<String> = listed
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|port| port["container"] == "asked")
        .map(|port| port["host"].as_str().expect("a text").to_owned())
        .collect();
    hosts.sort_unstable();
    let mut expected = [
        format!("127.0.0.1:{four}"),
        format!("[::1]:{six}"),
        format!("0.0.0.0:{all}"),
    ];
    expected.sort_unstable();
    assert_eq!(hosts, expected, "{listed}");
    assert!(!listed.text().contains(":80\""), "{listed}");
    let status = world.status().expect("it runs");
    let ports = status["ports"].as_array().expect("a list");
    assert!(ports.len() >= 3, "{status}");
    world.docker(["rm", "--force", "asked"]).ok();
}

/// An address that only the host has: the guest is lent it before docker needs it.
pub(crate) fn an_address_of_the_host_alone(world: &World, address: IpAddr) {
    world.machine_runs();
    let port = free_port();
    let place = SocketAddr::new(address, port);
    run_server(world, "outward", &[&format!("{place}:80")]).succeeds();
    assert_eq!(hello(place), "hello\n");
    for loopback in LOOPBACKS {
        let error = connect(at(loopback, port)).expect_err("not asked for");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{loopback}");
    }
    world.docker(["rm", "--force", "outward"]).ok();
}

/// An address of this host that is not its loopback's: the one it would send from. Nothing is sent.
pub(crate) fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("198.51.100.1", 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A host port that somebody else has fails the start and is left alone.
pub(crate) fn a_port_in_use_fails_the_start_and_names_the_owner(world: &World) {
    world.machine_runs();
    let ours = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is up");
    let port = ours.local_addr().expect("bound").port();
    let refused = run_server(world, "refused", &[&format!("{port}:80")]).finished;
    assert_eq!(refused.status.code(), Some(125), "{refused}");
    let complaint = refused.complaint();
    for wanted in [
        "Ports are not available",
        &format!("127.0.0.1:{port}/tcp is in use by"),
        &format!("(pid {})", std::process::id()),
    ] {
        assert!(complaint.contains(wanted), "{wanted}: {refused}");
    }
    let format = ["inspect", "--format", "{{.State.Running}}", "refused"];
    assert_eq!(world.docker(format).ok().text(), "false");
    // Nobody took it, not even the address that was free.
    TcpListener::bind(at("::1", port)).expect("given back");
    drop(ours);
    world.docker(["start", "refused"]).ok();
    assert_eq!(hello(at("127.0.0.1", port)), "hello\n");
    world.docker(["rm", "--force", "refused"]).ok();
}

/// A server of the machine itself, and one in a container with the machine's network. A conflict of theirs
/// is told by `status`, because nobody waits for an answer.
pub(crate) fn servers_of_the_machine_appear_too(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", "host"]).finish();
    let [port, taken] = [free_port(), free_port()];
    let ours = TcpListener::bind(("127.0.0.1", taken)).expect("free a moment ago");
    let script = format!(
        "echo hello > /tmp/index.html; httpd -p {taken} -h /tmp; exec httpd -f -p {port} -h /tmp"
    );
    world
        .docker([
            "run",
            "--detach",
            "--init",
            "--name",
            "host",
            "--network",
            "host",
            IMAGE,
            "sh",
            "-c",
            &script,
        ])
        .ok();
    eventually("the port appears", SERVER_STARTS, || {
        connect(at("127.0.0.1", port)).is_ok()
    });
    assert_eq!(hello(at("127.0.0.1", port)), "hello\n");
    let status = world.status().expect("it runs");
    let conflict = format!("127.0.0.1:{taken}/tcp is in use by ");
    let conflicts = status["port_conflicts"].to_string();
    assert!(conflicts.contains(&conflict), "{status}");
    assert_eq!(status["state"], "running", "{status}");
    drop(ours);
    world.docker(["rm", "--force", "host"]).ok();
}

/// UDP: every peer gets the answer to its own question. Busybox has no such server, so perl of the machine
/// serves in the container's network.
pub(crate) fn datagrams_find_their_way_back(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", "datagrams"]).finish();
    let port = free_port();
    let publish = format!("{port}:53/udp");
    world
        .docker([
            "run",
            "--detach",
            "--init",
            "--name",
            "datagrams",
            "--publish",
            &publish,
            IMAGE,
            "sleep",
            "1000000",
        ])
        .ok();
    let format = ["inspect", "--format", "{{.State.Pid}}", "datagrams"];
    let pid = world.docker(format).ok().text().to_owned();
    let server = "socket(S, PF_INET, SOCK_DGRAM, 0) or die; \
        bind(S, pack_sockaddr_in(53, INADDR_ANY)) or die; \
        while ($p = recv(S, $m, 65536, 0)) { send(S, \"got $m\", 0, $p); exit if $m eq \"end\" }";
    world.guest(
        PROFILE,
        &format!(
            "nsenter --target {pid} --net perl -MSocket -e '{server}' >/dev/null 2>&1 </dev/null &"
        ),
    );
    let peers = LOOPBACKS.map(|loopback| {
        let peer = UdpSocket::bind(at(loopback, 0)).expect("loopback is up");
        peer.connect(at(loopback, port))
            .expect("no more than a note");
        let limit = Some(Duration::from_millis(500));
        peer.set_read_timeout(limit).expect("not zero");
        (loopback, peer)
    });
    for question in ["first", "second", &"long".repeat(2000)] {
        for (loopback, peer) in &peers {
            let question = format!("{question} of {loopback}");
            let end = Instant::now() + SERVER_STARTS;
            let mut buffer = vec![0; 70_000];
            // Datagrams may be lost, and are as long as the server does not listen.
            let answer = loop {
                peer.send(question.as_bytes())
                    .expect("the host has the port");
                if let Ok(count) = peer.recv(&mut buffer) {
                    break &buffer[..count];
                }
                assert!(Instant::now() < end, "{loopback}: no answer");
            };
            let expected = format!("got {question}");
            assert_eq!(String::from_utf8_lossy(answer), expected);
            // Answers to what was sent again.
            while peer.recv(&mut buffer).is_ok() {}
        }
    }
    peers[0].1.send(b"end").expect("the host has the port");
    world.docker(["rm", "--force", "datagrams"]).ok();
    eventually("the port is free", Duration::from_secs(60), || {
        UdpSocket::bind(at("0.0.0.0", port)).is_ok()
    });
}

/// How `docker run` of a server ended.
struct Ran {
    finished: Finished,
}

impl Ran {
    fn succeeds(self) {
        assert!(self.finished.status.success(), "{}", self.finished);
    }
}

fn run_server(world: &World, name: &str, publish: &[&str]) -> Ran {
    world.docker(["rm", "--force", name]).finish();
    let mut arguments = vec!["run", "--detach", "--init", "--name", name];
    for publish in publish {
        arguments.extend(["--publish", publish]);
    }
    arguments.extend([IMAGE, "sh", "-c", SERVER]);
    Ran {
        finished: world.docker([]).args(arguments).finish(),
    }
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, Duration::from_secs(60))
}

/// What the server behind a port says, as soon as there is one. The host takes every connection; what it
/// does not do is answer for a server that is not there yet.
fn hello(address: SocketAddr) -> String {
    let end = Instant::now() + SERVER_STARTS;
    loop {
        let mut stream = connect(address).expect("never refused");
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("not zero");
        let mut answer = String::new();
        let asked = stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .and_then(|()| stream.read_to_string(&mut answer));
        match (asked, answer.split_once("\r\n\r\n")) {
            (Ok(_), Some((_, body))) => return body.to_owned(),
            // Closed or reset by docker's proxy: the server inside does not listen yet.
            (Ok(_), None) => {}
            (Err(error), _) => assert_ne!(error.kind(), ErrorKind::ConnectionRefused),
        }
        assert!(Instant::now() < end, "{address}: no server behind it");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A port that is free on every address of both families.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("::", 0)).expect("this host has IPv6");
    listener.local_addr().expect("bound").port()
}
