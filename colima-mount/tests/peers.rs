//! Both ends of a stream for the other tests: our server, and requests as bytes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use colima_mount::{
    Access, Client, Root, Server,
    server::Limits,
    sftp::{Hello, Reply, Request, Side},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::oneshot,
};

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

/// Names, modes and content of everything beneath a directory.
pub(crate) fn everything_in(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            if found.is_dir() {
                directories.push(path.clone());
            }
            let content = fs::read(&path).unwrap_or_default();
            all.insert(path, (found.mode(), content));
        }
    }
    all
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
        frame(&mut self.read, &mut self.buffer).await
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

/// The next frame without its length; what was read of it is in the buffer when this is dropped.
async fn frame(read: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Bytes> {
    loop {
        if let Some(length) = buffer.first_chunk::<4>() {
            let whole = 4 + u32::from_be_bytes(*length) as usize;
            if buffer.len() >= whole {
                return Some(buffer.split_to(whole).freeze().slice(4..));
            }
        }
        if read.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Stops one request before it reaches its server; dropping it lets the request pass.
pub(crate) struct Gate {
    stopped: mpsc::Receiver<()>,
    _open: oneshot::Sender<()>,
}

impl Gate {
    /// Waits until the request is here.
    pub(crate) fn wait(&self) {
        let limit = Duration::from_secs(60);
        self.stopped
            .recv_timeout(limit)
            .expect("the request that is stopped");
    }
}

/// A way to a server on which the first request that `stops` names waits at a gate.
pub(crate) fn gated(
    server: tokio::io::DuplexStream,
    stops: fn(&Request) -> bool,
) -> (tokio::io::DuplexStream, Gate) {
    let (here, there) = tokio::io::duplex(1 << 20);
    let (stopped, waiting) = mpsc::channel();
    let (open, mut opened) = oneshot::channel::<()>();
    let (mut from_client, mut to_client) = tokio::io::split(there);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        let (mut held, mut done) = (None, false);
        loop {
            let frame = tokio::select! {
                _ = &mut opened, if held.is_some() => {
                    done = true;
                    held.take()
                }
                frame = frame(&mut from_client, &mut buffer) => match frame {
                    None => return,
                    Some(frame) => {
                        let request = Request::decode(frame.clone());
                        if !done && held.is_none() && request.is_ok_and(|(_, it)| stops(&it)) {
                            held = Some(frame);
                            let _ = stopped.send(());
                            None
                        } else {
                            Some(frame)
                        }
                    }
                },
            };
            if let Some(frame) = frame {
                let length = u32::try_from(frame.len()).unwrap();
                if to_server.write_u32(length).await.is_err()
                    || to_server.write_all(&frame).await.is_err()
                {
                    return;
                }
            }
        }
    });
    let gate = Gate {
        stopped: waiting,
        _open: open,
    };
    (here, gate)
}
