//! A mount whose serving process is killed again and again, under the same mount.

use std::{
    fs,
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileExt as _, MetadataExt as _},
            net::UnixStream,
        },
    },
    path::Path,
    time::Instant,
};

use colima_mount::{
    Client, Patience,
    fuse::{self, Keeper, MountOptions},
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::{
    child_processes::{Helper, bound, dial, mountpoint, new_place, share},
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
        let mut patience = Patience::default();
        patience.client = Some(7);
        let client = Client::over_with(move || dial(at.clone()), patience)
            .await
            .unwrap();
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
    let (place, mut servers) = new_place();
    let keeper = Keeper::mount(mountpoint(place.path()), &MountOptions::default()).unwrap();
    let mut serving = start(&keeper, place.path());
    servers.hear(b's');
    // As a container has it.
    fs::create_dir(bound(place.path())).unwrap();
    rustix::mount::mount_bind(mountpoint(place.path()), bound(place.path())).unwrap();
    let mut work = Helper::start("work", place.path());
    let began = Instant::now();
    let mut killed = 0;
    while more(killed, began) {
        work.ask(b'p');
        // It may be gone only when the next one has answered what it waits for in the kernel.
        serving.kill();
        killed += 1;
        serving = start(&keeper, place.path());
        // What nobody hears is in the way of the next server in the end.
        servers.hear(b's');
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

#[test]
fn what_was_not_flushed_is_told_by_the_next_process() {
    if !mounted::is_possible("what_was_not_flushed_is_told_by_the_next_process") {
        return;
    }
    let _watchdog = mounted::watchdog();
    let (place, _servers) = new_place();
    let at = |name: &str| mountpoint(place.path()).join(name);
    fs::write(share(place.path()).join("gone"), "gone").unwrap();
    let keeper = Keeper::mount(at(""), &MountOptions::default()).unwrap();
    let mut first = start(&keeper, place.path());
    // In a process that starts no other meanwhile: this one has to let go of nothing of the mount.
    let mut user = Helper::start("unflushed", place.path());
    user.hear(b'w');
    fs::remove_file(share(place.path()).join("gone")).unwrap();
    first.kill();
    let second = start(&keeper, place.path());
    drop(first);
    user.ask(b'c');
    drop(user);
    keeper.close().unwrap();
    drop(second);
}

/// Writes, and is told when another process serves the mount.
pub(crate) fn write_without_flush(mut stream: UnixStream, place: &Path) {
    let at = |name: &str| mountpoint(place).join(name);
    let open = |name: &str| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(at(name)).unwrap()
    };
    let error = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    let io_error = Some(rustix::io::Errno::IO.raw_os_error());
    let (flushed, unflushed, gone) = (open("flushed"), open("unflushed"), open("gone"));
    let looked_at = fs::metadata(at("flushed")).unwrap().ino();
    flushed.write_all_at(b"flushed", 0).unwrap();
    flushed.sync_all().unwrap();
    unflushed.write_all_at(b"unflushed", 0).unwrap();
    stream.write_all(b"w").unwrap();
    let mut word = [0];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(error(unflushed.sync_all()), io_error, "it may be lost");
    assert_eq!(
        unflushed.sync_all().map_err(|error| error.to_string()),
        Ok(()),
        "once"
    );
    unflushed.write_all_at(b"again", 0).unwrap();
    unflushed.sync_all().unwrap();
    flushed.write_all_at(b"F", 0).unwrap();
    flushed.sync_all().unwrap();
    assert_eq!(error(gone.write_all_at(b"x", 0)), io_error);
    assert_eq!(fs::metadata(at("flushed")).unwrap().ino(), looked_at);
    assert!(fs::read(at("flushed")).unwrap() == b"Flushed");
    assert!(
        fs::read(share(place).join("unflushed"))
            .unwrap()
            .starts_with(b"again")
    );
    drop((flushed, unflushed, gone));
    stream.write_all(&word).unwrap();
}
