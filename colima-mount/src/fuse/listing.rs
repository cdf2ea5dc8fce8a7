//! An open directory: a piece of its names at a time.
//!
//! Positions are the cookies of the host's file system, which mean the same to every handle: the
//! kernel goes on from a position that another one gave when it forgets its own copy half-way.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{coherence::trust_since, inodes::Trust, volume::Volume};
use crate::sftp::{DirectoryEntry, Errno, Listing, Reply, Request};

/// Bytes of names in one answer.
const BUDGET: u32 = 128 * 1024;

/// Servers in a row that may go away during one request for names.
const ATTEMPTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) ino: u64,
    handle: Option<Bytes>,
    /// The epoch of the directory when what is here was asked for.
    epoch: u64,
    /// The position in front of what is here.
    position: u64,
    entries: VecDeque<DirectoryEntry>,
    /// The position of the server.
    reached: u64,
    complete: bool,
}

impl Directory {
    pub(crate) fn new(ino: u64) -> Self {
        Self {
            ino,
            handle: None,
            epoch: 0,
            position: 0,
            entries: VecDeque::new(),
            reached: 0,
            complete: false,
        }
    }

    /// Goes to a position.
    pub(crate) fn seek(&mut self, position: u64) {
        // From the beginning everything is asked for again, as `rewinddir` wants it.
        if position == 0 || position != self.position {
            self.entries.clear();
            self.position = position;
            self.complete = false;
        }
    }

    /// The next entry, and whether it can be believed; `None` at the end.
    pub(crate) async fn entry(
        &mut self,
        volume: &Volume,
    ) -> Result<Option<(DirectoryEntry, Trust)>, Errno> {
        if self.entries.is_empty() && !self.complete {
            self.more(volume).await?;
        }
        let trust = volume.with(|inodes| trust_since(inodes, self.ino, self.epoch));
        Ok(self.entries.front().cloned().map(|entry| (entry, trust)))
    }

    /// Goes behind the next entry.
    pub(crate) fn advance(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.position = entry.cookie;
        }
    }

    /// Whether the next entry is here without asking the server.
    pub(crate) fn has_next(&self) -> bool {
        !self.entries.is_empty()
    }

    async fn more(&mut self, volume: &Volume) -> Result<(), Errno> {
        let mut listing = self.list(volume).await;
        for _ in 0..ATTEMPTS {
            if listing != Err(Errno::Stale) {
                break;
            }
            // The server that had it open is gone; the next one goes on from the same position.
            self.close(volume);
            listing = self.list(volume).await;
        }
        let listing = listing?;
        match listing.entries.last() {
            Some(last) => self.reached = last.cookie,
            None => self.complete = true,
        }
        self.entries.extend(listing.entries);
        Ok(())
    }

    async fn list(&mut self, volume: &Volume) -> Result<Listing, Errno> {
        let (path, epoch) = volume.with(|inodes| {
            let epoch = inodes.get(self.ino)?.epoch;
            Ok::<_, Errno>((inodes.path(self.ino), epoch))
        })?;
        self.epoch = epoch;
        let handle = match &self.handle {
            Some(handle) => handle.clone(),
            None => {
                let path = path?.into();
                let Reply::Handle(handle) = volume.client.call(&Request::Opendir { path }).await?
                else {
                    return Err(Errno::BadMessage);
                };
                self.handle = Some(handle.clone());
                self.reached = 0;
                handle
            }
        };
        let request = Request::List {
            handle,
            // The beginning is read anew each time.
            from: (self.position == 0 || self.position != self.reached).then_some(self.position),
            budget: BUDGET,
        };
        volume.client.ask(&request).await
    }

    pub(crate) fn close(&mut self, volume: &Volume) {
        if let Some(handle) = self.handle.take() {
            drop(volume.client.call(&Request::Close { handle }));
        }
    }
}
