//! What is in files that are open.

use std::{os::fd::AsFd as _, sync::Arc};

use bytes::Bytes;
use rustix::io::Errno as Raw;

use super::{Served, eof, with_fd};
use crate::{
    server::{
        handles::OpenFile,
        session::{Dialect, Session},
    },
    sftp::{Errno, MAX_PAYLOAD, MAX_STOCK_PAYLOAD, Metadata, Reply},
};

pub(super) fn read(session: &Session, handle: &Bytes, offset: u64, length: u32) -> Served {
    let file = session.handles.file(handle)?;
    let limit = match session.dialect {
        Dialect::Stock => MAX_STOCK_PAYLOAD,
        Dialect::Ours => MAX_PAYLOAD,
    };
    let length = (length as usize).min(limit);
    if offset > i64::MAX as u64 {
        return Err(Errno::Invalid);
    }
    let data = read_at(&file, offset, length)?;
    if data.is_empty() && length > 0 {
        return Ok(eof());
    }
    Ok(Reply::Data(data.into()))
}

pub(super) fn read_at(file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    // Zeros of a large size come from the kernel as they are touched.
    let mut data = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let position = offset.saturating_add(filled as u64);
        match rustix::io::pread(&file.fd, &mut data[filled..], position) {
            Err(Raw::INTR) => {}
            Err(error) if filled == 0 => return Err(error.into()),
            // What was read before the error is told now, the error when it is met again.
            Err(_) | Ok(0) => break,
            Ok(got) => filled += got,
        }
    }
    data.truncate(filled);
    Ok(data)
}

pub(super) fn write(
    session: &Session,
    handle: &Bytes,
    offset: u64,
    data: &[u8],
) -> Result<(Arc<OpenFile>, Metadata), Errno> {
    let writable = session.share.writable()?;
    let file = session.handles.file(handle)?;
    if offset
        .checked_add(data.len() as u64)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Errno::TooBig);
    }
    let before = writable.write(file.fd.as_fd(), offset, data)?;
    Ok((file, before))
}

pub(super) fn fsync(session: &Session, handle: &Bytes) -> Served {
    with_fd(session, handle, |fd| Ok(rustix::fs::fsync(fd)?))?;
    if let Some(beside) = session.share.beside() {
        beside.sync()?;
    }
    Ok(Reply::ok())
}
