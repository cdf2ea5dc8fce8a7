//! An open directory: its names, as far as somebody asked.

use bytes::Bytes;

use super::{coherence::trust_since, inodes::Trust, volume::Volume};
use crate::sftp::{DirectoryEntry, Errno, Listing, Reply, Request};

/// Bytes of names in one answer.
const BUDGET: u32 = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) ino: u64,
    handle: Option<Bytes>,
    epoch: u64,
    /// What was read, with the trust it had. Positions in it are what the kernel goes on from.
    entries: Vec<DirectoryEntry>,
    complete: bool,
}

impl Directory {
    pub(crate) fn new(ino: u64) -> Self {
        Self {
            ino,
            handle: None,
            epoch: 0,
            entries: Vec::new(),
            complete: false,
        }
    }

    /// The entry at a position, and whether it can be believed; `None` at the end.
    pub(crate) async fn entry(
        &mut self,
        volume: &Volume,
        position: usize,
    ) -> Result<Option<(DirectoryEntry, Trust)>, Errno> {
        while position >= self.entries.len() && !self.complete {
            self.more(volume).await?;
        }
        let trust = volume.with(|inodes| trust_since(inodes, self.ino, self.epoch));
        Ok(self
            .entries
            .get(position)
            .cloned()
            .map(|entry| (entry, trust)))
    }

    /// Whether the entry at a position is here without asking the server.
    pub(crate) fn has(&self, position: usize) -> bool {
        position < self.entries.len() || self.complete
    }

    /// Begins again, as `rewinddir` wants it.
    pub(crate) fn rewind(&mut self, volume: &Volume) {
        if !self.entries.is_empty() {
            self.close(volume);
            *self = Self::new(self.ino);
        }
    }

    async fn more(&mut self, volume: &Volume) -> Result<(), Errno> {
        let handle = match &self.handle {
            Some(handle) => handle.clone(),
            None => {
                let (path, epoch) = volume.with(|inodes| {
                    Ok::<_, Errno>((inodes.path(self.ino)?, inodes.get(self.ino)?.epoch))
                })?;
                self.epoch = epoch;
                let path = path.into();
                let Reply::Handle(handle) = volume.client.call(&Request::Opendir { path }).await?
                else {
                    return Err(Errno::BadMessage);
                };
                self.handle = Some(handle.clone());
                handle
            }
        };
        let budget = BUDGET;
        let listing: Listing = volume.client.ask(&Request::List { handle, budget }).await?;
        if listing.entries.is_empty() {
            self.complete = true;
            self.close(volume);
        }
        self.entries.extend(listing.entries);
        Ok(())
    }

    pub(crate) fn close(&mut self, volume: &Volume) {
        if let Some(handle) = self.handle.take() {
            drop(volume.client.call(&Request::Close { handle }));
        }
    }
}
