//! The client: any number of requests in flight over any byte stream.

mod connection;
mod file;
pub(crate) mod recovery;

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use file::File;

use crate::sftp::{
    Attributes, Creation, Errno, Field, Metadata, NewNode, OpenFlags, Opened, Rename, Reply,
    Request, Statvfs, Target, Update,
};
use connection::Connection;
use recovery::Line;
pub(crate) use recovery::doubt::Known;
#[cfg(feature = "fuse")]
pub(crate) use recovery::{Follow, doubt::Sending};

/// Why a client cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The other side of the stream does not speak SFTP.
    #[error("the other side did not answer with the hello of an SFTP server")]
    NoHello,
    /// The stream failed before the hellos were exchanged.
    #[error("the stream failed")]
    Stream {
        /// What it said.
        source: io::Error,
    },
    /// The server has not the extensions of this crate.
    #[error("the server is of another kind and has not what this needs")]
    Stock,
}

/// How long a client that reconnects waits, and who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// How long operations wait for a connection before they fail with [`Errno::Io`]. When it has been away
    /// for longer than this, they fail at once.
    pub operations: Duration,
    /// How long a new stream may take until it serves; it is dropped then.
    pub handshake: Duration,
    /// How long a server may answer nothing of what it was asked, over a stream that stands. It is asked then for
    /// something that needs no disk, for a slow one is not silent; after as long again without any answer the
    /// stream is given up, as if it were lost.
    pub silence: Duration,
    /// The name by which a server knows the client: it answers a new stream when nothing that an earlier one of
    /// the name has begun is running any more. Processes that follow each other have the same; `None` is a
    /// random one.
    pub client: Option<u128>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            operations: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            client: None,
        }
    }
}

/// A client of a server. Clones share its connection.
///
/// When the last clone and the last [`File`] are dropped the stream is closed.
///
/// * One of [`Client::connect`] ends with its stream: everything that waits, and everything after, fails
///   with [`Errno::NotConnected`].
/// * One of [`Client::over`] gets another stream. Files that were open are opened again, and are
///   [`Errno::Stale`] when they are not there any more, as every open directory is. Requests that were not
///   answered are sent again if that is no other than once, and those that may have been done already fail
///   with [`Errno::Io`]; so do all that have waited too long ([`Patience`]).
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Once(Connection),
    Again(Line),
}

impl Client {
    /// Shakes hands over a stream, and starts a task on the caller's runtime that drives it.
    ///
    /// # Errors
    ///
    /// The stream fails, or there is no SFTP server behind it.
    ///
    /// # Panics
    ///
    /// It is polled outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// The stream is dropped.
    pub async fn connect<S>(stream: S) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let way = Way::Once(Connection::open(stream).await?);
        Ok(Self { way })
    }

    /// As [`Client::over_with`], with the patience of everybody.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn over<D, F, S>(dial: D) -> Result<Self, ClientError>
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::over_with(dial, Patience::default()).await
    }

    /// A client that dials again when its stream is gone. Completes when the first server is there,
    /// however long that takes.
    ///
    /// The future that `dial` gives waits for the next stream to the server; when it fails, it is asked
    /// for another after a moment, half a second at most. An earlier stream is dropped before. A stream
    /// has to be new at both ends: what a device keeps of an earlier one is the business of `dial`.
    ///
    /// # Errors
    ///
    /// There is no SFTP server behind the first stream. Later, and for any other failure, there is
    /// another try.
    ///
    /// # Panics
    ///
    /// It is polled outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// The stream is dropped.
    pub async fn over_with<D, F, S>(dial: D, patience: Patience) -> Result<Self, ClientError>
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let way = Way::Again(Line::open(dial, patience).await?);
        Ok(Self { way })
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &self.way {
            Way::Once(connection) => connection.is_open(),
            Way::Again(line) => line.is_serving(),
        }
    }

    /// Whether the server has the extensions of this crate.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        match &self.way {
            Way::Once(connection) => connection.has_ours(),
            Way::Again(line) => line.has_ours(),
        }
    }

    /// Completes when the stream has ended; never for a client that gets another.
    pub async fn closed(&self) {
        match &self.way {
            Way::Once(connection) => connection.closed().await,
            Way::Again(line) => line.closed().await,
        }
    }

    /// Completes when there is a connection; `false` when there will be none. Nothing is held meanwhile.
    #[cfg(feature = "fuse")]
    pub(crate) fn connected(&self) -> impl Future<Output = bool> + Send + use<> {
        let (open, line) = match &self.way {
            Way::Once(connection) => (connection.is_open(), None),
            Way::Again(line) => (false, Some(line.serving())),
        };
        async move {
            match line {
                None => open,
                Some(serving) => serving.await,
            }
        }
    }

    /// Whether it gets another stream when it has lost one.
    #[cfg(feature = "fuse")]
    pub(crate) fn recovers(&self) -> bool {
        matches!(self.way, Way::Again(_))
    }

    /// Has somebody told when the connection is lost.
    #[cfg(feature = "fuse")]
    pub(crate) fn follow(&self, follower: std::sync::Weak<dyn Follow>) {
        if let Way::Again(line) = &self.way {
            line.follow(follower);
        }
    }

    /// Sends a request at once, and gives the reply when it is there. Requests reach the server in the
    /// order of the calls, whenever the futures are polled.
    ///
    /// # Errors
    ///
    /// The server's, or [`Errno::NotConnected`]. The end of a file is no error but a status with
    /// the code 1.
    ///
    /// # Cancel safety
    ///
    /// The request is served all the same. A handle that nobody waits for is closed.
    pub fn call(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Reply, Errno>> + Send + use<> {
        self.call_knowing(request, Known::default())
    }

    /// As [`Client::call`], with what the names of the request are known to be.
    pub(crate) fn call_knowing(
        &self,
        request: &Request,
        known: Known,
    ) -> impl Future<Output = Result<Reply, Errno>> + Send + use<> {
        let answered = match &self.way {
            Way::Once(connection) => connection.call(request),
            Way::Again(line) => line.call(request, known),
        };
        async move {
            let reply = answered.await.map_err(|_| Errno::NotConnected)??;
            match &reply {
                Reply::Status { status: 0 | 1, .. } => Ok(reply),
                Reply::Status { .. } => Err(reply.errno().unwrap_or(Errno::Io)),
                _ => Ok(reply),
            }
        }
    }

    /// As [`Client::command`], with what the names of the request are known to be.
    pub(crate) async fn command_knowing(
        &self,
        request: &Request,
        known: Known,
    ) -> Result<(), Errno> {
        match self.call_knowing(request, known).await? {
            Reply::Status { status: 0, .. } => Ok(()),
            _ => Err(Errno::BadMessage),
        }
    }

    /// As [`Client::call`], for requests that are answered with a structure.
    ///
    /// # Errors
    ///
    /// As there, or the answer is none.
    pub async fn ask<T: Field>(&self, request: &Request) -> Result<T, Errno> {
        self.ask_knowing(request, Known::default()).await
    }

    /// As [`Client::ask`], with what is known of the request.
    pub(crate) async fn ask_knowing<T: Field>(
        &self,
        request: &Request,
        known: Known,
    ) -> Result<T, Errno> {
        match self.call_knowing(request, known).await? {
            Reply::Extended(mut body) => T::take(&mut body).map_err(|_| Errno::BadMessage),
            _ => Err(Errno::BadMessage),
        }
    }

    /// As [`Client::call`], for requests that are answered with success alone.
    ///
    /// # Errors
    ///
    /// As there, or the answer is something else.
    pub async fn command(&self, request: &Request) -> Result<(), Errno> {
        self.command_knowing(request, Known::default()).await
    }

    /// The content of a request that is answered with data.
    ///
    /// # Errors
    ///
    /// As for [`Client::call`]. At the end of a file there is nothing, which is no error.
    pub async fn data(&self, request: &Request) -> Result<Bytes, Errno> {
        match self.call(request).await? {
            Reply::Data(data) => Ok(data),
            Reply::Status { status: 1, .. } => Ok(Bytes::new()),
            _ => Err(Errno::BadMessage),
        }
    }

    /// Metadata of a path; of a link itself.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn metadata(&self, path: &[u8]) -> Result<Metadata, Errno> {
        let target = Target::Path(Bytes::copy_from_slice(path));
        self.ask(&Request::Look { target }).await
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// The server's.
    ///
    /// # Cancel safety
    ///
    /// What was opened meanwhile is closed.
    pub async fn open(
        &self,
        path: &[u8],
        flags: OpenFlags,
        creation: Option<Creation>,
    ) -> Result<File, Errno> {
        let known = Known::default();
        let opened = self.open_with(path, flags, creation, 0, known).await?;
        Ok(File::new(self.clone(), opened, |_| {}))
    }

    pub(crate) async fn open_with(
        &self,
        path: &[u8],
        flags: OpenFlags,
        creation: Option<Creation>,
        first: u32,
        known: Known,
    ) -> Result<Opened, Errno> {
        let path = Bytes::copy_from_slice(path);
        if self.has_ours() {
            let request = Request::OpenFile {
                path,
                flags,
                creation,
                first,
            };
            return self.ask_knowing(&request, known).await;
        }
        let mut flags = flags;
        let mut attributes = Attributes::default();
        if let Some(creation) = creation {
            flags = flags | OpenFlags::CREATE;
            attributes.mode = Some(creation.mode);
        }
        let request = Request::Open {
            path,
            flags,
            attributes,
        };
        match self.call(&request).await? {
            Reply::Handle(handle) => Ok(Opened {
                handle,
                metadata: Metadata::default(),
                first: Bytes::new(),
            }),
            _ => Err(Errno::BadMessage),
        }
    }

    /// Makes a node.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn make(
        &self,
        path: &[u8],
        node: NewNode,
        creation: Creation,
    ) -> Result<Metadata, Errno> {
        let path = Bytes::copy_from_slice(path);
        let request = Request::Make {
            path,
            node,
            creation,
        };
        self.ask(&request).await
    }

    /// Sets attributes of a path; of a link itself.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn set(&self, path: &[u8], update: Update) -> Result<Metadata, Errno> {
        let target = Target::Path(Bytes::copy_from_slice(path));
        self.ask(&Request::Set { target, update }).await
    }

    /// Renames.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn rename(&self, from: &[u8], to: &[u8], rename: Rename) -> Result<(), Errno> {
        let request = Request::Move {
            from: Bytes::copy_from_slice(from),
            to: Bytes::copy_from_slice(to),
            rename,
        };
        self.command(&request).await
    }

    /// Removes a file that is no directory.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn remove(&self, path: &[u8]) -> Result<(), Errno> {
        let path = Bytes::copy_from_slice(path);
        self.command(&Request::Remove { path }).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn remove_directory(&self, path: &[u8]) -> Result<(), Errno> {
        let path = Bytes::copy_from_slice(path);
        self.command(&Request::Rmdir { path }).await
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn read_link(&self, path: &[u8]) -> Result<Bytes, Errno> {
        let path = Bytes::copy_from_slice(path);
        match self.call(&Request::Readlink { path }).await? {
            Reply::Names(mut names) if names.len() == 1 => {
                Ok(names.pop().map(|name| name.name).unwrap_or_default())
            }
            _ => Err(Errno::BadMessage),
        }
    }

    /// Space and limits of the file system of a path.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn space(&self, path: &[u8]) -> Result<Statvfs, Errno> {
        let path = Bytes::copy_from_slice(path);
        self.ask(&Request::Statvfs { path }).await
    }
}
