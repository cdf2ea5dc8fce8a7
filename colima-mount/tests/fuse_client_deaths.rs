//! A mount whose serving process is killed again and again, under the same mount.

use std::{
    fs,
    io::{IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Instant,
};

use colima_mount::{
    Client,
    fuse::{self, Keeper, MountOptions},
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::{
    child_processes::{Helper, bound, dial, mountpoint, new_place},
    fuse_server_deaths::more,
    mounted, peers,
};

/// Starts a process that serves the mount, and waits until it does.
fn start(keeper: &Keeper, place: &Path) -> Helper {
    let mut helper = Helper::start("mount", place);
    let descriptors = [keeper.device(), keeper.journal()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = [IoSlice::new(b"d")];
    sendmsg(&helper.stream, &bytes, &mut rights, SendFlags::empty()).unwrap();
    helper.hear(b'm');
    helper
}

/// The process that serves the mount, until it is killed.
pub(crate) fn serve_the_kernel(mut stream: UnixStream, place: &Path) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let (mut byte, flags) = ([0], RecvFlags::CMSG_CLOEXEC);
    recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut byte)],
        &mut rights,
        flags,
    )
    .unwrap();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    let (journal, device) = (descriptors.pop().unwrap(), descriptors.pop().unwrap());
    peers::runtime().block_on(async {
        let at = place.to_owned();
        let client = Client::over(move || dial(at.clone())).await.unwrap();
        let serving = fuse::resume(client, device, journal).await.unwrap();
        stream.write_all(b"m").unwrap();
        serving.ended().await;
    });
}

#[test]
fn a_mount_outlives_the_processes_that_serve_it() {
    if !mounted::is_possible("a_mount_outlives_the_processes_that_serve_it") {
        return;
    }
    let _watchdog = mounted::watchdog();
    let (place, _servers) = new_place();
    let keeper = Keeper::mount(mountpoint(place.path()), &MountOptions::default()).unwrap();
    let mut serving = start(&keeper, place.path());
    // As a container has it.
    fs::create_dir(bound(place.path())).unwrap();
    rustix::mount::mount_bind(mountpoint(place.path()), bound(place.path())).unwrap();
    let mut work = Helper::start("work", place.path());
    let began = Instant::now();
    let mut killed = 0;
    while more(killed, began) {
        work.ask(b'p');
        drop(serving);
        killed += 1;
        serving = start(&keeper, place.path());
        // Through the bind mount, which is alive.
        work.ask(b'n');
    }
    work.ask(b'e');
    drop(work);
    let none = rustix::mount::UnmountFlags::empty();
    rustix::mount::unmount(bound(place.path()), none).unwrap();
    keeper.close().unwrap();
    drop(serving);
}
