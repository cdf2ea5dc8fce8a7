//! One stream at a time of a client that reconnects.
//!
//! What was begun on its earlier stream may still run when the next one is there: a write that was sent
//! again would be done, and the first one after it. So the next waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Held for as long as anything of a stream runs.
pub(crate) type Turn = OwnedSemaphorePermit;

#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<Bytes, Client>>);

#[derive(Debug)]
struct Client {
    turn: Arc<Semaphore>,
    /// Dropped when a newer stream is there.
    _newest: oneshot::Sender<()>,
}

impl Clients {
    /// Ends an earlier stream of the client, and waits until it has. The receiver is told when there is a
    /// newer one.
    pub(crate) async fn enter(&self, name: Bytes) -> (Option<Turn>, oneshot::Receiver<()>) {
        let (newest, superseded) = oneshot::channel();
        let turn = {
            let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            clients.retain(|known, client| *known == name || Arc::strong_count(&client.turn) > 1);
            let turn = (clients.get(&name))
                .map_or_else(|| Arc::new(Semaphore::new(1)), |it| Arc::clone(&it.turn));
            let client = Client {
                turn: Arc::clone(&turn),
                _newest: newest,
            };
            clients.insert(name, client);
            turn
        };
        // It is never closed.
        (turn.acquire_owned().await.ok(), superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_stream_waits_for_what_the_earlier_began() {
        let clients = Clients::default();
        let (turn, superseded) = clients.enter("a".into()).await;
        let (_other, _) = clients.enter("b".into()).await;
        let mut next = Box::pin(clients.enter("a".into()));
        tokio::select! {
            biased;
            _ = &mut next => unreachable!("the turn is not over"),
            told = superseded => assert!(told.is_err()),
        }
        drop(turn);
        assert!(next.await.0.is_some());
    }
}
