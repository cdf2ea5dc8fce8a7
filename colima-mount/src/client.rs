//! The client: any number of requests in flight over any byte stream.

mod connection;
mod file;

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use file::File;

use crate::sftp::{
    Attributes, Creation, Errno, Field, Metadata, NewNode, OpenFlags, Opened, Rename, Reply,
    Request, Statvfs, Target, Update,
};
use connection::Connection;

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

/// How long a client that reconnects waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// How long an operation waits for a connection before it fails with [`Errno::Io`].
    pub operations: Duration,
    /// How long a new stream may take until it serves; it is dropped then.
    pub handshake: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            operations: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
        }
    }
}

/// A connection to a server. Clones share it.
///
/// When the last clone and the last [`File`] are dropped the stream is closed. When the stream ends
/// everything that waits, and everything after, fails with [`Errno::NotConnected`].
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
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
        let connection = Connection::open(stream).await?;
        Ok(Self { connection })
    }

    /// As [`Client::over_with`], with the patience of everybody.
    ///
    /// # Errors
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

    /// Shakes hands over the first stream that `dial` gives.
    ///
    /// # Errors
    ///
    /// There is no SFTP server behind the stream.
    pub async fn over_with<D, F, S>(mut dial: D, _: Patience) -> Result<Self, ClientError>
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let stream = dial()
            .await
            .map_err(|source| ClientError::Stream { source })?;
        Self::connect(stream).await
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_open()
    }

    /// Whether the server has the extensions of this crate.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        self.connection.has_ours()
    }

    /// Completes when the stream has ended.
    pub async fn closed(&self) {
        self.connection.closed().await;
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
        self.connection.call(request)
    }

    /// As [`Client::call`], for requests that are answered with a structure.
    ///
    /// # Errors
    ///
    /// As there, or the answer is none.
    pub async fn ask<T: Field>(&self, request: &Request) -> Result<T, Errno> {
        match self.call(request).await? {
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
        match self.call(request).await? {
            Reply::Status { status: 0, .. } => Ok(()),
            _ => Err(Errno::BadMessage),
        }
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
        let opened = self.open_with(path, flags, creation, 0).await?;
        Ok(File::new(self.clone(), opened, |_| {}))
    }

    pub(crate) async fn open_with(
        &self,
        path: &[u8],
        flags: OpenFlags,
        creation: Option<Creation>,
        first: u32,
    ) -> Result<Opened, Errno> {
        let path = Bytes::copy_from_slice(path);
        if self.has_ours() {
            let request = Request::OpenFile {
                path,
                flags,
                creation,
                first,
            };
            return self.ask(&request).await;
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
