//! Both ends of a stream for the other tests: our server, and requests as bytes.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use colima_mount::{
    Access, Client, Root, Server,
    server::Limits,
    sftp::{Hello, Reply, Request, Side},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Serves a directory on one end of a stream, and gives the other.
pub(crate) fn serve(
    root: Root,
    access: Access,
    limits: Limits,
) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
    let (here, there) = tokio::io::duplex(1 << 20);
    let server = Server::new(root, access).limits(limits);
    let session = tokio::spawn(async move {
        // A session that its client broke is the business of the test.
        let _ = server.serve(there).await;
    });
    (here, session)
}

/// A client of a directory that may be changed.
pub(crate) async fn client(directory: &Path) -> Client {
    let root = Root::open(directory).unwrap();
    let (stream, _) = serve(root, Access::ReadWrite, Limits::default());
    Client::connect(stream).await.unwrap()
}

/// A runtime of several threads, as programs have.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A client that sends what it is told, and waits for each answer.
pub(crate) struct Raw<R, W> {
    read: R,
    write: W,
    buffer: BytesMut,
    next: u32,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Raw<R, W> {
    pub(crate) async fn stock(read: R, write: W) -> Self {
        Self::connect(read, write, Vec::new()).await
    }

    async fn connect(read: R, write: W, extensions: Vec<(Bytes, Bytes)>) -> Self {
        let mut raw = Self {
            read,
            write,
            buffer: BytesMut::new(),
            next: 0,
        };
        let hello = Hello {
            version: 3,
            extensions,
        };
        let (head, _) = hello.encode(Side::Client).into_parts();
        raw.write.write_all(&head).await.unwrap();
        let answer = raw.frame().await.unwrap();
        assert_eq!(Hello::decode(Side::Server, answer).unwrap().version, 3);
        raw
    }

    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let whole = 4 + u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= whole {
                    return Some(self.buffer.split_to(whole).freeze().slice(4..));
                }
            }
            if self.read.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn send(&mut self, request: &Request) -> u32 {
        self.next += 1;
        let (mut bytes, tail) = request.encode(self.next).into_parts();
        bytes.extend_from_slice(&tail);
        self.write.write_all(&bytes).await.unwrap();
        self.write.flush().await.unwrap();
        self.next
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> Reply {
        let id = self.send(request).await;
        let frame = self.frame().await.expect("an answer");
        let (answered, reply) = Reply::decode(frame).unwrap();
        assert_eq!(answered, id);
        reply
    }
}
