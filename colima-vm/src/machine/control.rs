//! The machine's connection to QMP, made again when it broke or never came about.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::{Mutex, broadcast};

use super::{
    directory::{Directory, Socket},
    qmp::{Client, Command, EVENTS_KEPT, Error, Event, Greeting},
};

/// A QEMU that is stopped or hangs leaves its sockets open, so a connection may have to wait for it.
#[derive(Debug)]
pub(super) struct Control {
    directory: Directory,
    client: Mutex<Option<Client>>,
    events: broadcast::Sender<Event>,
}

impl Control {
    pub(super) fn new(directory: Directory) -> Self {
        Self {
            directory,
            client: Mutex::new(None),
            events: broadcast::Sender::new(EVENTS_KEPT),
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Connects anew.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Greeting, Error> {
        let mut client = self.client.lock().await;
        // QEMU serves one connection at a time.
        *client = None;
        let (fresh, greeting) = self.negotiate(limit).await?;
        *client = Some(fresh);
        Ok(greeting)
    }

    /// The connection there is, or a new one. Waiting for somebody else's attempt counts.
    pub(super) async fn client(&self, limit: Duration) -> Result<Client, Error> {
        let connect = async {
            let mut client = self.client.lock().await;
            if let Some(client) = client.as_ref().filter(|client| !client.is_closed()) {
                return Ok(client.clone());
            }
            let (fresh, _greeting) = self.negotiate(limit).await?;
            *client = Some(fresh.clone());
            Ok(fresh)
        };
        tokio::time::timeout(limit, connect)
            .await
            .unwrap_or(Err(Error::TimedOut {
                command: "the greeting",
                limit,
            }))
    }

    pub(super) async fn execute(&self, command: &Command, limit: Duration) -> Result<Value, Error> {
        self.client(limit).await?.execute(command, limit).await
    }

    /// Waits until everything that QEMU said was handed out.
    pub(super) async fn closed(&self) {
        let client = self.client.lock().await.clone();
        if let Some(client) = client {
            client.closed().await;
        }
    }

    async fn negotiate(&self, limit: Duration) -> Result<(Client, Greeting), Error> {
        let stream = self
            .directory
            .connect(Socket::Qmp)
            .await
            .map_err(|source| Error::Connect {
                source: Arc::new(source),
            })?;
        Client::negotiate_into(stream, limit, self.events.clone()).await
    }
}
