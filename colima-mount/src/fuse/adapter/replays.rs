//! Requests of the thread that replays: answered here and now, never forwarded.

use std::ffi::OsStr;

use fuser::INodeNo;

use super::{Adapter, values::bytes};
use crate::{
    fuse::{
        inodes::Entry,
        replay::{Place, Replays},
    },
    sftp::{Child, Errno},
};

pub(super) fn at(parent: INodeNo, name: &OsStr) -> Place {
    Place {
        parent: parent.0,
        name: bytes(name),
    }
}

impl Adapter {
    /// What answers a request, if it is of the replaying thread.
    pub(super) fn replaying(&self, request: &fuser::Request) -> Option<&Replays> {
        let replays = self.volume.replays.as_ref()?;
        replays.is_of(request.pid()).then_some(replays)
    }

    pub(super) fn replayed_look(
        &self,
        request: &fuser::Request,
        place: &Place,
    ) -> Option<Result<Entry, Errno>> {
        let replays = self.volume.replays.as_ref()?;
        if let Some(outside) = replays.find(request.pid(), place.parent, &place.name) {
            return Some(Ok(outside));
        }
        let replays = self.replaying(request)?;
        Some(self.volume.with(|inodes| replays.look(inodes, place)))
    }

    pub(super) fn replayed_make(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
    ) -> Option<Result<Entry, Errno>> {
        let replays = self.replaying(request)?;
        let place = at(parent, name);
        Some(self.volume.with(|inodes| replays.make(inodes, &place)))
    }

    pub(super) fn replayed_remove(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        child: Child,
    ) -> Option<Result<(), Errno>> {
        let replays = self.replaying(request)?;
        let place = at(parent, name);
        let removed = |inodes: &mut _| replays.remove(inodes, &place, child);
        Some(self.volume.with(removed))
    }
}
