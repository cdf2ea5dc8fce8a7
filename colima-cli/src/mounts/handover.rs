//! What a worker is given over the socket that is its standard input: descriptors, and what it has to keep to.
//!
//! Nothing else of the daemon's is open in a worker, and nothing has to keep a number over an exec.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
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
use serde::{Deserialize, Serialize};

use super::{protect::Guarding, walls::Confine};

/// What a worker works with.
#[derive(Debug)]
pub(super) struct Handover {
    /// The directory that it serves.
    pub(super) root: OwnedFd,
    /// The connected stream of the port.
    pub(super) stream: OwnedFd,
    /// Where it keeps what files cannot carry; a share that cannot be written to has none.
    pub(super) records: Option<OwnedFd>,
    /// What it has to keep to.
    pub(super) terms: Terms,
}

/// What a worker has to keep to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    /// The directory, as its user knows it.
    pub(super) location: String,
    /// How the guest may use it.
    pub(super) access: MountAccess,
    /// The guest's user, who owns there what on the host is the worker's own.
    pub(super) user: u32,
    /// And the group.
    pub(super) group: u32,
    /// What of it the guest may not change.
    pub(super) guarding: Guarding,
    /// Whether it is to confine itself.
    pub(super) confine: Confine,
}

/// Bytes of terms at most; a hundred long paths are less.
const LONGEST: u32 = 1 << 20;

#[cfg(not(target_vendor = "apple"))]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
/// A worker starts no program.
#[cfg(target_vendor = "apple")]
const RECEIVE: RecvFlags = RecvFlags::empty();

impl Handover {
    /// Hands over. Waits where the terms are longer than a socket holds, until the worker reads.
    pub(super) fn send(&self, mut control: &UnixStream) -> io::Result<()> {
        let terms = serde_json::to_vec(&self.terms)?;
        let length = u32::try_from(terms.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut descriptors = vec![self.root.as_fd(), self.stream.as_fd()];
        descriptors.extend(self.records.as_ref().map(|records| records.as_fd()));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = [IoSlice::new(&length)];
        if sendmsg(control, &bytes, &mut ancillary, SendFlags::empty())? != length.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        control.write_all(&terms)
    }

    /// Waits for it.
    pub(super) fn receive(mut control: &UnixStream) -> io::Result<Self> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            control,
            &mut [IoSliceMut::new(&mut length)],
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
        let (Some(root), Some(stream)) = (descriptors.next(), descriptors.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let records = descriptors.next();
        let expected = u32::from_be_bytes(length);
        if received.bytes != length.len() || expected > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut terms = vec![0; expected as usize];
        control.read_exact(&mut terms)?;
        Ok(Self {
            root,
            stream,
            records,
            terms: serde_json::from_slice(&terms)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn terms() -> Terms {
        Terms {
            location: "/a \u{e9}".to_owned(),
            access: MountAccess::ReadWrite,
            user: 501,
            group: 20,
            guarding: Guarding {
                protected: vec![".ssh".into(); 20_000],
                hidden: vec![std::ffi::OsString::from_vec(b"a\xff/b".to_vec())],
            },
            confine: Confine::Try,
        }
    }

    #[test]
    fn descriptors_arrive() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("here"), "yes").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let given = Handover {
            root: std::fs::File::open(directory.path()).unwrap().into(),
            stream: far.into(),
            records: None,
            terms: terms(),
        };
        let sends = std::thread::spawn(move || given.send(&ours));
        let got = Handover::receive(&theirs).unwrap();
        sends.join().unwrap().unwrap();
        assert_eq!(got.terms, terms());
        assert!(got.records.is_none());
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
