//! Results as answers to the kernel.

use std::time::Duration;

use bytes::Bytes;
use fuser::{ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};

use super::values::{attributes, error, generation};
use crate::{
    fuse::inodes::Entry,
    sftp::{Errno, Metadata},
};

pub(super) fn entry(reply: ReplyEntry, result: Result<Entry, Errno>) {
    match result {
        Ok(entry) => reply.entry_with_ttls(
            &entry.valid,
            &entry.name_valid,
            &attributes(entry.ino, &entry.metadata),
            generation(&entry.metadata),
        ),
        Err(errno) => reply.error(error(errno)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(error(errno)),
    }
}

pub(super) fn attr(reply: ReplyAttr, ino: u64, result: Result<(Metadata, Duration), Errno>) {
    match result {
        Ok((metadata, valid)) => reply.attr(&valid, &attributes(ino, &metadata)),
        Err(errno) => reply.error(error(errno)),
    }
}

pub(super) fn xattr(reply: ReplyXattr, size: u32, result: Result<Bytes, Errno>) {
    match result {
        Err(errno) => reply.error(error(errno)),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(error(Errno::Range)),
        },
    }
}
