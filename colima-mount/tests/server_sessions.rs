//! One client and its requests: order, limits, back-pressure, hostile bytes.

use std::time::Duration;

use bytes::Bytes;
use colima_mount::{
    Access, Client, Root, Server,
    server::{Limits, ServeError},
    sftp::{Attributes, Creation, Errno, NewNode, OpenFlags, Reply, Request, Target},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peers::{self, Raw};

const NEW: Creation = Creation {
    mode: 0o644,
    owner: None,
};

type Expected = fn(&ServeError) -> bool;

/// Longer than anything here takes, so that a hang fails instead of hanging.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} does not come"),
    }
}

#[test]
fn requests_on_one_file_keep_their_order_and_others_pass() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        // None of these waits for the answer of the one before.
        for round in 0..200 {
            let name = format!("d{round}");
            let path = |rest: &str| Bytes::from(format!("{name}{rest}"));
            let mkdir = client.call(&Request::Make {
                path: path(""),
                node: NewNode::Directory,
                creation: Creation {
                    mode: 0o755,
                    owner: None,
                },
            });
            let make = client.call(&Request::Make {
                path: path("/f"),
                node: NewNode::Regular,
                creation: NEW,
            });
            let rename = client.call(&Request::PosixRename {
                from: path(""),
                to: path("-new"),
            });
            let look = client.call(&Request::Look {
                target: Target::Path(path("-new/f")),
            });
            let gone = client.call(&Request::Look {
                target: Target::Path(path("/f")),
            });
            let results = soon("an answer", async {
                tokio::join!(mkdir, make, rename, look, gone)
            })
            .await;
            assert!(results.0.is_ok() && results.1.is_ok() && results.2.is_ok());
            assert!(results.3.is_ok(), "{:?}", results.3);
            assert_eq!(results.4, Err(Errno::NotFound));
        }
    });
}

#[test]
fn writes_that_nobody_waits_for_are_in_what_is_asked_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::APPEND;
        let file = client.open(b"log", flags, Some(NEW)).await.unwrap();
        for number in 0..500u64 {
            let write = Request::Write {
                handle: file.handle().clone(),
                offset: 0,
                data: Bytes::from(format!("{number}\n")),
            };
            drop(client.call(&write));
        }
        let found = soon("metadata", client.metadata(b"log")).await.unwrap();
        let expected: String = (0..500).map(|number| format!("{number}\n")).collect();
        assert_eq!(found.size, expected.len() as u64);
        let content = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(content, expected);
    });
}

#[test]
fn an_open_beyond_the_budget_waits_for_a_close() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), b"x").unwrap();
    peers::runtime().block_on(async {
        let mut limits = Limits::default();
        limits.handles = 10;
        let root = Root::open(directory.path()).unwrap();
        let (stream, _) = peers::serve(root, Access::ReadOnly, limits);
        let client = Client::connect(stream).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(client.open(b"f", OpenFlags::READ, None).await.unwrap());
        }
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.open(b"f", OpenFlags::READ, None).await }
        });
        // Others are served meanwhile: an answer proves that the open was read before.
        client.metadata(b"f").await.unwrap();
        assert!(!waiting.is_finished());
        drop(held.pop());
        held.push(soon("the open", waiting).await.unwrap().unwrap());
        // When nobody closes anything it fails in the end.
        let refused = soon("a refusal", client.open(b"f", OpenFlags::READ, None)).await;
        assert_eq!(refused.unwrap_err(), Errno::TooManyFiles);
    });
}

#[test]
fn an_abandoned_open_leaves_no_handle() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), b"x").unwrap();
    peers::runtime().block_on(async {
        let mut limits = Limits::default();
        limits.handles = 4;
        let root = Root::open(directory.path()).unwrap();
        let (stream, _) = peers::serve(root, Access::ReadOnly, limits);
        let client = Client::connect(stream).await.unwrap();
        for _ in 0..30 {
            let request = Request::OpenFile {
                path: Bytes::from_static(b"f"),
                flags: OpenFlags::READ,
                creation: None,
                first: 0,
            };
            drop(client.call(&request));
        }
        for _ in 0..20 {
            let file = soon("an open", client.open(b"f", OpenFlags::READ, None))
                .await
                .unwrap();
            file.close().await.unwrap();
        }
    });
}

#[test]
fn a_client_that_reads_no_replies_holds_up_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("big"), vec![7; 1 << 20]).unwrap();
    peers::runtime().block_on(async {
        let server = Server::new(Root::open(directory.path()).unwrap(), Access::ReadOnly);
        let (mut lazy, there) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(there).await }
        });
        let hello = b"\0\0\0\x05\x01\0\0\0\x03";
        lazy.write_all(hello).await.unwrap();
        let open = Request::Open {
            path: Bytes::from_static(b"big"),
            flags: OpenFlags::READ,
            attributes: Attributes::default(),
        };
        lazy.write_all(&open.encode(0).into_parts().0)
            .await
            .unwrap();
        let read = Request::Read {
            handle: Bytes::from_static(&[0; 8]),
            offset: 0,
            length: 250_000,
        };
        let bytes = read.encode(1).into_parts().0;
        // Far more than the server keeps in memory; it stops reading instead.
        let flood = async {
            for _ in 0..100_000 {
                lazy.write_all(&bytes).await.unwrap();
            }
        };
        let stuck = tokio::time::timeout(Duration::from_millis(500), flood).await;
        assert!(
            stuck.is_err(),
            "the server took 25 GB of replies upon itself"
        );

        let (other, there) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { server.serve(there).await });
        let client = Client::connect(other).await.unwrap();
        soon("another client", client.metadata(b"big"))
            .await
            .unwrap();
        drop(lazy);
        let _ = soon("the end", serving).await.unwrap();
    });
}

#[test]
fn bytes_that_are_no_packets_end_the_session_or_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let server = Server::new(Root::open(directory.path()).unwrap(), Access::ReadWrite);
        let mut over = Vec::new();
        over.extend(b"\0\0\0\x05\x01\0\0\0\x03");
        over.extend(u32::MAX.to_be_bytes());
        let cases: [(&[u8], Expected); 4] = [
            (b"GET / HTTP/1.1\r\n\r\n", |e| {
                matches!(e, ServeError::FrameLength { .. })
            }),
            (b"\0\0\0\x05\x02\0\0\0\x03", |e| {
                matches!(e, ServeError::NoHello)
            }),
            (&over, |e| {
                matches!(e, ServeError::FrameLength { length: u32::MAX })
            }),
            (b"\0\0\0\x05\x01", |e| {
                matches!(e, ServeError::Stream { .. })
            }),
        ];
        for (bytes, expected) in cases {
            let (mut here, there) = tokio::io::duplex(1024);
            here.write_all(bytes).await.unwrap();
            here.shutdown().await.unwrap();
            let error = soon("the end", server.serve(there)).await.unwrap_err();
            assert!(expected(&error), "{error:?}");
        }
        // A packet that is cut short is answered, and the session goes on.
        let (here, there) = tokio::io::duplex(1024);
        tokio::spawn({
            let server = server.clone();
            async move { server.serve(there).await }
        });
        let (read, mut write) = tokio::io::split(here);
        write
            .write_all(b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x09\x03\0\0\0\x07\0\0\0\x09")
            .await
            .unwrap();
        write.shutdown().await.unwrap();
        let mut answers = Vec::new();
        soon(
            "answers",
            tokio::io::BufReader::new(read).read_to_end(&mut answers),
        )
        .await
        .unwrap();
        let text = String::from_utf8_lossy(&answers).into_owned();
        assert!(text.contains("bad message"), "{text}");
    });
}

#[test]
fn pipes_and_devices_are_not_opened_and_hold_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        client.make(b"fifo", NewNode::Fifo, NEW).await.unwrap();
        client.make(b"socket", NewNode::Socket, NEW).await.unwrap();
        let mut names = vec!["fifo", "socket"];
        let null = NewNode::CharacterDevice { major: 1, minor: 3 };
        match client.make(b"null", null, NEW).await {
            Ok(_) => names.push("null"),
            Err(error) => assert_eq!(error, Errno::NotPermitted),
        }
        for name in names {
            for flags in [
                OpenFlags::READ,
                OpenFlags::WRITE,
                OpenFlags::READ | OpenFlags::WRITE,
            ] {
                let open = client.open(name.as_bytes(), flags, None);
                let error = soon("a refusal", open).await.unwrap_err();
                assert_eq!(error, Errno::NoDevice, "{name}");
            }
        }
    });
}

#[test]
fn a_stock_client_is_not_served_our_requests() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let root = Root::open(directory.path()).unwrap();
        let (stream, _) = peers::serve(root, Access::ReadWrite, Limits::default());
        let (read, write) = tokio::io::split(stream);
        let mut raw = Raw::stock(read, write).await;
        for request in [
            Request::Look {
                target: Target::Path(Bytes::new()),
            },
            Request::Changes {},
            Request::OpenFile {
                path: Bytes::from_static(b"x"),
                flags: OpenFlags::WRITE,
                creation: Some(NEW),
                first: 0,
            },
        ] {
            let reply = raw.ask(&request).await;
            assert!(
                matches!(reply, Reply::Status { status: 8, .. }),
                "{reply:?}"
            );
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    });
}
