use proptest::prelude::*;

use super::*;

/// A connection whose gates are opened at once, or not at all.
struct Connection {
    exchange: Exchange,
    out: Vec<u8>,
    asked: Vec<String>,
    started: Vec<String>,
}

impl Connection {
    fn new() -> Self {
        Self {
            exchange: Exchange::new(),
            out: Vec::new(),
            asked: Vec::new(),
            started: Vec::new(),
        }
    }

    fn send(&mut self, mut bytes: &[u8]) {
        loop {
            let (taken, asked) = self.exchange.sent(bytes);
            bytes = &bytes[taken..];
            match asked {
                Some(container) => self.asked.push(container),
                None => return assert!(bytes.is_empty(), "stopped without a reason"),
            }
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        loop {
            let (taken, started) = self.exchange.received(bytes, &mut self.out);
            bytes = &bytes[taken..];
            match started {
                Some(container) => {
                    self.started.push(container);
                    self.exchange.release(&mut self.out);
                }
                None => return assert!(bytes.is_empty(), "stopped without a reason"),
            }
        }
    }
}

fn pieces<'b>(bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn targets() {
    for (target, expected) in [
        ("/v1.45/containers/4a1b/start", Some("4a1b")),
        ("/containers/web-1/start?detachKeys=ctrl-a", Some("web-1")),
        ("/v1.45/containers/web/restart?t=1", Some("web")),
        ("/v1.45/containers/web/start/", None),
        ("/v1.45/containers//start", None),
        ("/v1.45/exec/4a1b/start", None),
        ("/v1.45/containers/a%2fb/start", None),
        ("/v1.45/images/containers/x/start", None),
        ("containers/x/start", None),
        ("/vfoo/containers/x/start", None),
    ] {
        assert_eq!(started(target).as_deref(), expected, "{target}");
    }
}

#[test]
fn an_answer_is_held_and_replaced() {
    let mut connection = Connection::new();
    let start =
        b"POST /v1.45/containers/web/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n";
    connection.send(start);
    let answer = b"HTTP/1.1 204 No Content\r\nServer: Docker\r\n\r\nHTTP/1.1";
    let (taken, started) = connection.exchange.received(answer, &mut connection.out);
    assert_eq!(started.as_deref(), Some("web"));
    assert_eq!(
        &answer[taken..],
        b"HTTP/1.1",
        "what follows is not looked at"
    );
    assert_eq!(connection.out, b"");
    connection.exchange.replace(b"other", &mut connection.out);
    assert_eq!(connection.out, b"other");
    assert!(!connection.exchange.is_opaque());
}

#[test]
fn what_is_not_a_start_that_succeeded_is_not_held() {
    for answer in [
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/2.0 204 x\r\n\r\n",
        "HTTP/1.1 204\r\n bad\r\n\r\n",
        "\x00\x01\x02",
    ] {
        let mut connection = Connection::new();
        connection
            .exchange
            .sent(b"POST /containers/web/start HTTP/1.1\r\n\r\n");
        connection.receive(answer.as_bytes());
        // Of an incomplete head the beginning is held until it ends; at the connection's end it goes.
        connection.exchange.release(&mut connection.out);
        assert_eq!(String::from_utf8_lossy(&connection.out), answer);
        assert_eq!(connection.started, [""; 0], "{answer:?}");
    }
}

/// A stream that looks like a start inside a connection that was upgraded, or in a body.
#[test]
fn only_requests_are_requests() {
    let start = "POST /containers/web/start HTTP/1.1\r\n\r\n";
    let no_content = "HTTP/1.1 204 No Content\r\n\r\n";
    let attach = "POST /containers/web/attach?stream=1 HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
    let upgraded = "HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n";
    let hijacked = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
    let length = start.len();
    let put =
        format!("PUT /containers/web/archive HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{start}");
    let old_attach = "POST /containers/web/attach HTTP/1.1\r\n\r\n";
    let refused = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
    for (sent, received, starts) in [
        (
            format!("{attach}{start}"),
            format!("{upgraded}{no_content}"),
            0,
        ),
        (
            format!("{old_attach}{start}"),
            format!("{hijacked}{no_content}"),
            0,
        ),
        (
            format!("{put}{start}"),
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{no_content}"),
            1,
        ),
        // Before the answer it cannot be told from the other protocol.
        (
            format!("{attach}{start}"),
            format!("{refused}{no_content}"),
            0,
        ),
    ] {
        let mut connection = Connection::new();
        connection.send(sent.as_bytes());
        connection.receive(received.as_bytes());
        assert_eq!(connection.started.len(), starts, "{sent:?}");
        assert_eq!(connection.out, received.as_bytes());
    }
}

#[test]
fn heads_without_end_are_given_up() {
    let mut connection = Connection::new();
    connection
        .exchange
        .sent(b"POST /containers/web/start HTTP/1.1\r\n\r\n");
    let mut endless = b"HTTP/1.1 204 No Content\r\n".to_vec();
    for _ in 0..10_000 {
        endless.extend(b"X-Long: aaaaaaaaaaaaaaaa\r\n");
    }
    for piece in endless.chunks(1000) {
        connection.receive(piece);
    }
    assert!(connection.exchange.is_opaque());
    assert_eq!(connection.out, endless);
    assert_eq!(connection.started, [""; 0]);
}

/// A request with its answer, well-formed.
#[derive(Clone, Debug)]
struct Turn {
    request: Vec<u8>,
    response: Vec<u8>,
    asks: bool,
    starts: bool,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let body = || proptest::collection::vec(any::<u8>(), 0..40);
    let chunked = |head: &str, chunks: &[Vec<u8>]| {
        let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            bytes.extend(format!("{:X};x=y\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nTrailer: t\r\n\r\n");
        bytes
    };
    let with_length = |head: &str, body: &[u8]| {
        let mut bytes = format!("{head}content-length:  {} \r\n\r\n", body.len()).into_bytes();
        bytes.extend(body);
        bytes
    };
    let request = (
        prop_oneof![
            Just("GET /v1.45/containers/json"),
            Just("HEAD /_ping"),
            Just("POST /v1.45/containers/web/start"),
            Just("POST /v1.45/containers/web/restart?t=0"),
            Just("POST /v1.45/containers/create?name=x"),
        ],
        proptest::collection::vec(body(), 0..3),
        any::<bool>(),
    );
    let response = (
        prop_oneof![
            Just(200_u16),
            Just(204),
            Just(204),
            Just(304),
            Just(404),
            Just(500)
        ],
        proptest::collection::vec(body(), 0..3),
        any::<bool>(),
        0_usize..3,
    );
    (request, response).prop_map(
        move |((line, sent, is_chunked), (status, received, answers_chunked, interim))| {
            let head = format!("{line} HTTP/1.1\r\nHost: docker\r\n");
            let request = match is_chunked {
                true => chunked(&head, &sent),
                false => with_length(&head, &sent.concat()),
            };
            let mut response = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(interim);
            let head = format!("HTTP/1.1 {status} Whatever it is\r\nServer: Docker\r\n");
            let has_body = !matches!(status, 204 | 304) && !line.starts_with("HEAD");
            response.extend(match (has_body, answers_chunked) {
                (true, true) => chunked(&head, &received),
                (true, false) => with_length(&head, &received.concat()),
                // A length without a body.
                (false, true) if status != 204 => {
                    format!("{head}Content-Length: 99\r\n\r\n").into_bytes()
                }
                (false, _) => format!("{head}\r\n").into_bytes(),
            });
            Turn {
                request,
                response,
                asks: line.contains("start"),
                starts: status == 204 && line.contains("start"),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Exactly the starts that succeed are held, whatever is around them and however it is cut.
    #[test]
    fn starts_are_found_among_anything_well_formed(
        turns in proptest::collection::vec(any_turn(), 0..8),
        ahead in 1_usize..4,
        sizes in proptest::collection::vec(1_usize..70, 1..5),
    ) {
        let mut connection = Connection::new();
        let mut expected = Vec::new();
        for pipeline in turns.chunks(ahead) {
            let requests: Vec<u8> = pipeline.iter().flat_map(|turn| turn.request.clone()).collect();
            for piece in pieces(&requests, &sizes) {
                connection.send(piece);
            }
            let responses: Vec<u8> = pipeline.iter().flat_map(|turn| turn.response.clone()).collect();
            for piece in pieces(&responses, &sizes) {
                connection.receive(piece);
            }
            expected.extend(responses);
        }
        prop_assert!(!connection.exchange.is_opaque());
        prop_assert_eq!(connection.asked.len(), turns.iter().filter(|turn| turn.asks).count());
        prop_assert_eq!(connection.started.len(), turns.iter().filter(|turn| turn.starts).count());
        prop_assert_eq!(connection.out, expected);
    }

    /// Nothing is lost, added or reordered, whatever comes.
    #[test]
    fn every_byte_passes(
        turns in proptest::collection::vec(any_turn(), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
        at in any::<proptest::sample::Index>(),
        in_request in any::<bool>(),
        sizes in proptest::collection::vec(1_usize..70, 1..5),
    ) {
        let mut requests: Vec<u8> = turns.iter().flat_map(|turn| turn.request.clone()).collect();
        let mut responses: Vec<u8> = turns.iter().flat_map(|turn| turn.response.clone()).collect();
        let disturbed = if in_request { &mut requests } else { &mut responses };
        let at = at.index(disturbed.len() + 1);
        disturbed.splice(at..at, noise);
        let mut connection = Connection::new();
        for piece in pieces(&requests, &sizes) {
            connection.send(piece);
        }
        for piece in pieces(&responses, &sizes) {
            connection.receive(piece);
        }
        connection.exchange.release(&mut connection.out);
        prop_assert_eq!(connection.out, responses);
    }
}
