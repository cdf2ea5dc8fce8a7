//! What clients hold open, by numbers that are never used twice.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listing::Cursor;
use crate::sftp::Errno;

/// Something that a client holds open.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// A file.
    File(Arc<OpenFile>),
    /// A directory, and how far it has been listed.
    Directory(Arc<Mutex<Cursor>>),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
}

#[derive(Debug)]
struct Slot {
    held: Held,
    path: Bytes,
    _room: Room,
}

/// The handles of one client.
#[derive(Debug)]
pub(crate) struct Handles {
    slots: Mutex<Slots>,
    budget: Arc<Semaphore>,
}

/// The right to one more handle.
pub(crate) type Room = OwnedSemaphorePermit;

#[derive(Debug, Default)]
struct Slots {
    open: HashMap<u64, Slot>,
    next: u64,
}

impl Handles {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            slots: Mutex::default(),
            budget: Arc::new(Semaphore::new(limit)),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for another handle, if there is some.
    pub(crate) fn room(&self) -> Option<Room> {
        Arc::clone(&self.budget).try_acquire_owned().ok()
    }

    /// Keeps something open for the client.
    pub(crate) fn insert(&self, held: Held, path: Bytes, room: Room) -> Bytes {
        let mut slots = self.slots();
        let number = slots.next;
        slots.next += 1;
        slots.open.insert(
            number,
            Slot {
                held,
                path,
                _room: room,
            },
        );
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    pub(crate) fn file(&self, handle: &Bytes) -> Result<Arc<OpenFile>, Errno> {
        match self.get(handle)? {
            Held::File(file) => Ok(file),
            Held::Directory(_) => Err(Errno::BadHandle),
        }
    }

    pub(crate) fn directory(&self, handle: &Bytes) -> Result<Arc<Mutex<Cursor>>, Errno> {
        match self.get(handle)? {
            Held::Directory(cursor) => Ok(cursor),
            Held::File(_) => Err(Errno::BadHandle),
        }
    }

    pub(crate) fn get(&self, handle: &Bytes) -> Result<Held, Errno> {
        let number = number(handle)?;
        let slots = self.slots();
        let slot = slots.open.get(&number).ok_or(Errno::BadHandle)?;
        Ok(slot.held.clone())
    }

    /// The path that it was opened by, normalised.
    pub(crate) fn path(&self, handle: &Bytes) -> Option<Bytes> {
        let number = number(handle).ok()?;
        Some(self.slots().open.get(&number)?.path.clone())
    }

    pub(crate) fn remove(&self, handle: &Bytes) -> Result<Held, Errno> {
        let number = number(handle)?;
        let slot = self.slots().open.remove(&number).ok_or(Errno::BadHandle)?;
        Ok(slot.held)
    }
}

fn number(handle: &Bytes) -> Result<u64, Errno> {
    let bytes = handle[..].try_into().map_err(|_| Errno::BadHandle)?;
    Ok(u64::from_be_bytes(bytes))
}
