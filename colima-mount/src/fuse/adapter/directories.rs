//! Listings as the kernel wants them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, sync::Arc, time::Duration};

use bytes::Bytes;
use fuser::{FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::values::{attributes, file_type, generation};
use crate::{
    fuse::{inodes::Trust, volume::Volume},
    sftp::{Errno, Metadata},
};

/// Fills an answer with names.
pub(super) async fn fill(
    volume: &Arc<Volume>,
    handle: u64,
    offset: u64,
    reply: &mut ReplyDirectory,
) -> Result<(), Errno> {
    list(volume, handle, offset, |position, ino, name, found| {
        let kind = found.map_or(FileType::RegularFile, |(entry, _)| file_type(entry.kind()));
        Ok(reply.add(INodeNo(ino), position, kind, OsStr::from_bytes(name)))
    })
    .await
}

/// Fills an answer with names and metadata, which the kernel knows of from then on.
pub(super) async fn fill_with_metadata(
    volume: &Arc<Volume>,
    handle: u64,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<(), Errno> {
    let parent = volume.directory(handle)?.lock().await.ino;
    list(volume, handle, offset, |position, ino, name, found| {
        let called = OsStr::from_bytes(name);
        let Some((metadata, trust)) = found.filter(|_| !is_dots(name)) else {
            // Told without being known of.
            let nothing = Metadata {
                mode: found.map_or(0, |(metadata, _)| metadata.mode),
                ..Metadata::default()
            };
            let attributes = attributes(ino, &nothing);
            return Ok(reply.add(
                INodeNo(0),
                position,
                called,
                &Duration::ZERO,
                &attributes,
                Generation(0),
            ));
        };
        let name = Bytes::copy_from_slice(name);
        let entry = volume.with(|inodes| inodes.found(parent, &name, metadata, trust));
        let full = reply.add(
            INodeNo(entry.ino),
            position,
            called,
            &entry.valid.min(entry.name_valid),
            &attributes(entry.ino, &metadata),
            generation(&metadata),
        );
        if full {
            volume.forget(entry.ino, 1);
        }
        Ok(full)
    })
    .await
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Gives entries of a directory from `offset` on to `add`, until it says that it is full.
async fn list(
    volume: &Arc<Volume>,
    handle: u64,
    offset: u64,
    mut add: impl FnMut(u64, u64, &[u8], Option<(Metadata, Trust)>) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    let directory = volume.directory(handle)?;
    let mut directory = directory.lock().await;
    directory.seek(offset);
    loop {
        let Some((found, trust)) = directory.entry(volume).await? else {
            return Ok(());
        };
        let mut metadata = found.metadata;
        if let Some(known) = &mut metadata {
            let behind = volume.with(|inodes| {
                let ino = inodes.by_id(known.id)?;
                inodes
                    .get(ino)
                    .ok()
                    .filter(|inode| inode.is_behind())
                    .map(|_| ino)
            });
            // Listed while it is being written here: the size is older than what the kernel knows.
            if let Some(ino) = behind {
                match volume.metadata(ino).await {
                    Ok((newer, _)) => *known = newer,
                    Err(_) => metadata = None,
                }
            }
        }
        let ino = metadata.map_or(u64::MAX, |metadata| {
            volume
                .with(|inodes| inodes.by_id(metadata.id))
                .unwrap_or(metadata.id.inode)
        });
        let told = metadata.map(|metadata| (metadata, trust));
        if add(found.cookie, ino, &found.name, told)? {
            return Ok(());
        }
        directory.advance();
        // What is at hand goes first: the kernel asks again for the rest.
        if !directory.has_next() {
            return Ok(());
        }
    }
}
