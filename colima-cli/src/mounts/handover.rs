//! What a worker is given over the socket that is its standard input: two descriptors and a letter.
//!
//! Nothing else of the daemon's is open in a worker, and nothing has to keep a number over an exec.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use colima_core::mounts::MountAccess;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// What a worker works with.
#[derive(Debug)]
pub(super) struct Handover {
    /// The directory that it serves.
    pub(super) root: OwnedFd,
    /// The connected stream of the port.
    pub(super) stream: OwnedFd,
    /// How the guest may use it.
    pub(super) access: MountAccess,
}

#[cfg(not(target_vendor = "apple"))]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
/// A worker starts no program.
#[cfg(target_vendor = "apple")]
const RECEIVE: RecvFlags = RecvFlags::empty();

impl Handover {
    /// Hands over. The message is small enough never to wait.
    pub(super) fn send(&self, control: &UnixStream) -> io::Result<()> {
        let letter: &[u8] = match self.access {
            MountAccess::ReadOnly => b"r",
            MountAccess::ReadWrite => b"w",
        };
        let descriptors = [self.root.as_fd(), self.stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = [IoSlice::new(letter)];
        match sendmsg(control, &bytes, &mut ancillary, SendFlags::empty())? {
            1 => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Waits for it.
    pub(super) fn receive(control: &UnixStream) -> io::Result<Self> {
        let mut letter = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            control,
            &mut [IoSliceMut::new(&mut letter)],
            &mut ancillary,
            RECEIVE,
        )?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
            _ => Vec::new(),
        });
        let access = match &letter {
            b"r" => MountAccess::ReadOnly,
            b"w" => MountAccess::ReadWrite,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        match (descriptors.next(), descriptors.next()) {
            (Some(root), Some(stream)) => Ok(Self {
                root,
                stream,
                access,
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn descriptors_arrive() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("here"), "yes").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let given = Handover {
            root: std::fs::File::open(directory.path()).unwrap().into(),
            stream: far.into(),
            access: MountAccess::ReadWrite,
        };
        given.send(&ours).unwrap();
        drop(given);
        let got = Handover::receive(&theirs).unwrap();
        assert_eq!(got.access, MountAccess::ReadWrite);
        let flags = rustix::fs::OFlags::RDONLY;
        let here = rustix::fs::openat(&got.root, "here", flags, rustix::fs::Mode::empty());
        let mut text = String::new();
        std::fs::File::from(here.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "yes");
        near.write_all(b"x").unwrap();
        let mut byte = [0];
        UnixStream::from(got.stream).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_daemon_that_is_gone_hands_nothing_over() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        let error = Handover::receive(&theirs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"r").unwrap();
        let error = Handover::receive(&theirs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
