//! Follows docker's containers.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::publishes::{self, ContainerEvent, Described};
use crate::agent::{docker_api, log};

/// Before docker is asked anew after it broke off: it is going down, and systemd holds the next request
/// until it is up again.
const PAUSE: Duration = Duration::from_millis(500);

/// How long docker may take to describe a container.
const PATIENCE: Duration = Duration::from_secs(10);

/// What docker tells.
#[derive(Debug)]
pub(super) enum News {
    /// These containers run, and no others.
    All(Vec<Described>),
    /// One container, as it is now.
    Container(Described),
    /// A container ended.
    Ended(String),
}

/// Tells of all containers and then of every change, for as long as somebody listens.
pub(super) async fn follow(socket: &Path, news: mpsc::Sender<News>) {
    let mut told = false;
    loop {
        if let Err(error) = follow_once(socket, &news).await
            && !told
        {
            // Once, and not for every attempt: docker may be stopped for good.
            told = true;
            log(&format!("docker's events cannot be followed: {error}"));
        }
        if news.is_closed() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(socket: &Path, news: &mpsc::Sender<News>) -> io::Result<()> {
    // First the events, then the state: what changes in between is told twice and not missed.
    let mut events = docker_api::follow(socket, publishes::EVENTS).await?;
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let body = docker_api::get(socket, "/containers/json").await?;
    let ids = publishes::ids(&body).ok_or(io::ErrorKind::InvalidData)?;
    let all = describe_all(socket, ids).await;
    news.send(News::All(all)).await.map_err(|_| gone())?;
    while let Some(line) = events.line().await? {
        let message = match publishes::event(line) {
            Some(ContainerEvent::Started(id)) => match describe(socket, &id).await {
                Ok(described) => News::Container(described),
                // Gone again.
                Err(_) => News::Ended(id),
            },
            Some(ContainerEvent::Ended(id)) => News::Ended(id),
            None => continue,
        };
        news.send(message).await.map_err(|_| gone())?;
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn describe_all(socket: &Path, ids: BTreeSet<String>) -> Vec<Described> {
    let mut all = Vec::new();
    for id in ids {
        // One that ended meanwhile has nothing to tell.
        all.extend(describe(socket, &id).await.ok());
    }
    all
}

/// Asks about one container, by id or name.
pub(super) async fn describe(socket: &Path, reference: &str) -> io::Result<Described> {
    if !publishes::is_reference(reference) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = format!("/containers/{reference}/json");
    let body = timeout(PATIENCE, docker_api::get(socket, &path)).await??;
    publishes::describe(&body).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
