//! What a mount's two processes say to each other, over the socket that is the server's standard input.
//!
//! ```text
//! keeper ── port, name ─────────> server
//!        <───────── CONNECTED ──         the host's worker is there
//!        ── device, journal ────>
//!        <──────────── SERVES ──         the kernel is answered
//!        <── why it could not ──         instead of either, and the end
//! ```

use std::{
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The server has a client, and waits for the device.
pub(super) const CONNECTED: u8 = 1;
/// It answers the kernel.
pub(super) const SERVES: u8 = 2;

/// Bytes of a message with descriptors: the name of the client.
const LENGTH: usize = 16;

/// Sends descriptors, two at most, and a number with them. It is short enough never to wait.
pub(super) fn give(
    control: impl AsFd,
    descriptors: &[BorrowedFd<'_>],
    number: u128,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = number.to_be_bytes();
    match sendmsg(
        control,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )? {
        LENGTH => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Waits for descriptors, as many as are wanted, and the number.
pub(super) fn take<const N: usize>(control: &UnixStream) -> io::Result<([OwnedFd; N], u128)> {
    let mut bytes = [0; LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(
        control,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        flags,
    )?;
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
            _ => Vec::new(),
        })
        .collect();
    match (received.bytes, descriptors.try_into()) {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (LENGTH, Ok(descriptors)) => Ok((descriptors, u128::from_be_bytes(bytes))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says one of the two letters, or why there is none.
pub(super) fn tell(mut control: &UnixStream, what: Result<u8, &str>) -> io::Result<()> {
    match what {
        Ok(letter) => control.write_all(&[letter]),
        Err(why) => control.write_all(why.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_as_many_as_are_wanted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        give(&ours, &[file.as_fd(), file.as_fd()], 1 << 100).unwrap();
        let (_, number) = take::<2>(&theirs).unwrap();
        assert_eq!(number, 1 << 100);
        give(&ours, &[file.as_fd()], 0).unwrap();
        let error = take::<2>(&theirs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(ours);
        let error = take::<1>(&theirs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
