//! What the host changes reaches the kernel.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{
    inodes::{Inodes, Notice, Trust, Watch},
    volume::Volume,
};
use crate::sftp::{
    Change, ChangeSet, Errno, Field as _, FileId, FileKind, Metadata, Reply, Request, Version,
};

/// Asks for changes for as long as there may be a connection and the file system is mounted.
pub(crate) async fn follow(volume: Weak<Volume>) {
    loop {
        // Nothing is held while waiting, so that the last one to go closes the connection.
        let Some(answer) = volume
            .upgrade()
            .map(|volume| volume.client.call(&Request::Changes {}))
        else {
            return;
        };
        let mut body = match answer.await {
            Ok(Reply::Extended(body)) => body,
            Err(Errno::NotConnected) => {
                let Some(again) = volume.upgrade().map(|volume| volume.client.connected()) else {
                    return;
                };
                if again.await {
                    continue;
                }
                return;
            }
            _ => return,
        };
        let (Ok(set), Some(volume)) = (ChangeSet::take(&mut body), volume.upgrade()) else {
            return;
        };
        let later = volume.with(|inodes| take(inodes, set));
        for (ino, now) in later {
            // Our own writes are on their way: what the change was is known when they are answered.
            let volume = Arc::clone(&volume);
            tokio::spawn(async move {
                volume.settle(ino).await;
                volume.with(|inodes| {
                    if let Ok(inode) = inodes.get(ino)
                        && !same(&inode.known, &now)
                    {
                        changed(inodes, ino, &now);
                    }
                });
            });
        }
    }
}

/// Takes what changed in; gives files that are being written.
fn take(inodes: &mut Inodes, set: ChangeSet) -> Vec<(u64, Metadata)> {
    let mut later = Vec::new();
    for directory in set.lost {
        lose(inodes, directory);
    }
    for change in set.changes {
        later.extend(apply(inodes, change));
    }
    later
}

fn apply(inodes: &mut Inodes, change: Change) -> Option<(u64, Metadata)> {
    let Change {
        directory,
        name,
        now,
    } = change;
    let parent = inodes.by_id(directory)?;
    let inode = inodes.get_mut(parent).ok()?;
    inode.epoch += 1;
    if name.is_empty() {
        let now = now?;
        if !same(&inode.known, &now) {
            inodes.doubt(parent);
            inodes.notices.push(Notice::Metadata(parent));
        }
        return None;
    }
    let known = inodes.named(parent, &name);
    match (known, now) {
        // The echo of something that is known.
        (Some(None), None) => None,
        (Some(Some(ino)), Some(now)) if inodes.get(ino).is_ok_and(|inode| inode.id == now.id) => {
            let inode = inodes.get(ino).ok()?;
            if same(&inode.known, &now) {
                return None;
            }
            if inode.is_behind() {
                return Some((ino, now));
            }
            changed(inodes, ino, &now);
            None
        }
        (known, _) => {
            forget(inodes, parent, &name, known.flatten());
            drop_listing(inodes, parent);
            None
        }
    }
}

fn forget(inodes: &mut Inodes, parent: u64, name: &Bytes, child: Option<u64>) {
    inodes.unbind(parent, name);
    inodes.notices.push(Notice::Name(parent, name.clone()));
    if let Some(ino) = child {
        // It may live on under another name, with one name less.
        inodes.doubt(ino);
        inodes.notices.push(Notice::Metadata(ino));
    }
}

fn drop_listing(inodes: &mut Inodes, directory: u64) {
    if let Ok(inode) = inodes.get_mut(directory) {
        inode.listed = false;
        inodes.notices.push(Notice::Content(directory));
    }
}

/// Somebody else has changed a file.
fn changed(inodes: &mut Inodes, ino: u64, now: &Metadata) {
    inodes.doubt(ino);
    let Ok(inode) = inodes.get_mut(ino) else {
        return;
    };
    let content = Version::from(&inode.known) != Version::from(now);
    if content && now.kind() == FileKind::Regular {
        inode.pages = None;
        inode.forget_ahead();
        inodes.notices.push(Notice::Content(ino));
    } else {
        inodes.notices.push(Notice::Metadata(ino));
    }
}

/// Whether two readings are of one state; the last access is nobody's business.
fn same(mine: &Metadata, theirs: &Metadata) -> bool {
    let without = |metadata: &Metadata| Metadata {
        accessed: metadata.modified,
        ..*metadata
    };
    without(mine) == without(theirs)
}

/// Changes in the directory are no longer told: nothing known of it can be believed.
fn lose(inodes: &mut Inodes, directory: FileId) {
    let Some(parent) = inodes.by_id(directory) else {
        return;
    };
    if let Ok(inode) = inodes.get_mut(parent) {
        inode.epoch += 1;
        // One that was asked for is not known to be there: its asker sees the epoch.
        if inode.watch == Watch::Told {
            inode.watch = Watch::Not;
        }
    }
    inodes.doubt(parent);
    drop_listing(inodes, parent);
    for (name, child) in inodes.names_in(parent) {
        match child {
            None => {
                inodes.notices.push(Notice::Name(parent, name.clone()));
                inodes.unbind(parent, &name);
            }
            Some(ino) => {
                inodes.notices.push(Notice::NameDoubted(parent, name));
                inodes.doubt(ino);
                inodes.notices.push(Notice::Metadata(ino));
            }
        }
    }
}

/// What the trust in an answer about something in `directory` is, if the epoch was `epoch` before it was
/// asked for.
pub(crate) fn trust_since(inodes: &Inodes, directory: u64, epoch: u64) -> Trust {
    match inodes.get(directory) {
        Ok(inode) if inode.epoch == epoch => inodes.trust(directory),
        _ => Trust::Guess,
    }
}
