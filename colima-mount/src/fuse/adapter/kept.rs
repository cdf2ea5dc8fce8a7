//! Sessions of a device that is kept by another process: fuser begins a session with the kernel's first
//! request, which the kernel sends once per mount.

use std::{
    ffi::CString,
    io,
    mem::ManuallyDrop,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _, net::UnixDatagram},
    },
    path::Path,
    sync::Arc,
};

use fuser::{Config, Filesystem, Session};
use rustix::{
    fs::{Mode, OFlags},
    io::DupFlags,
    mount::MountFlags,
};
use tokio::runtime::Handle;

use super::{Adapter, BackgroundSession, Notifier, acl, operations};
use crate::fuse::{MountOptions, Who, volume::Volume};

/// Agrees with the kernel, and serves nothing.
struct Greeter;

impl Filesystem for Greeter {
    fn init(&mut self, _: &fuser::Request, config: &mut fuser::KernelConfig) -> io::Result<()> {
        operations::agree(config);
        Ok(())
    }
}

fn config(who: Who) -> Config {
    let mut config = Config::default();
    config.acl = acl(who);
    config.n_threads = Some(2);
    // What a process has read from a device of its own would fail with it, instead of being asked again.
    config.clone_fd = false;
    config
}

/// Mounts, and answers the kernel's first request.
pub(in crate::fuse) fn mount_kept(path: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
    // Of linux/fs/fuse/inode.c; what the root is in octal.
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        std::fs::metadata(path)?.mode() & 0o170_000,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.who == Who::Everybody {
        data.push_str(",allow_other");
    }
    let data = CString::new(data)?;
    let name = CString::new(options.name.as_bytes())?;
    let place = CString::new(path.as_os_str().as_bytes())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(&name, &place, c"fuse.colima", flags, data.as_c_str())?;
    let greeted = device.try_clone().and_then(|device| {
        Session::from_fd(Greeter, device, acl(options.who), config(options.who))
    });
    match greeted {
        Ok(session) => drop(session),
        Err(error) => {
            let lazily = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&place, lazily);
            return Err(error);
        }
    }
    Ok(device)
}

/// Serves a device on which the kernel's first request was answered long ago.
pub(in crate::fuse) fn resume(
    volume: Arc<Volume>,
    runtime: Handle,
    device: &OwnedFd,
    who: Who,
) -> io::Result<(BackgroundSession, Notifier)> {
    let adapter = Adapter { volume, runtime };
    let (kernel, begun) = UnixDatagram::pair()?;
    kernel.send(&first_request())?;
    let session = Session::from_fd(adapter, begun.into(), acl(who), config(who))?;
    // From here on the session is the kernel's.
    exchange(&session, device)?;
    let notifier = Notifier::of(&session)?;
    Ok((session.spawn()?, notifier))
}

/// Puts the device in the place of what a session reads and writes.
#[expect(
    unsafe_code,
    reason = "the session owns its descriptor, and has no way to exchange it"
)]
fn exchange<F: Filesystem>(session: &Session<F>, device: &OwnedFd) -> io::Result<()> {
    let place = session.as_fd().as_raw_fd();
    // SAFETY: the session owns the descriptor, which is open for as long as it is borrowed here; the second
    // owner is never dropped.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(place) });
    rustix::io::dup3(device, &mut place, DupFlags::CLOEXEC)?;
    Ok(())
}

/// `FUSE_INIT` as the kernel sends it: `struct fuse_in_header` and `struct fuse_init_in` of linux/fuse.h,
/// with every flag, as nobody asks what was agreed on.
fn first_request() -> Vec<u8> {
    const FUSE_INIT: u32 = 26;
    const LENGTH: u32 = 40 + 64;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(FUSE_INIT.to_ne_bytes());
    request.extend(1u64.to_ne_bytes()); // its number
    request.extend([0; 8 + 4 + 4 + 4 + 4]); // node, user, group, process, padding
    request.extend(7u32.to_ne_bytes());
    request.extend(40u32.to_ne_bytes());
    request.extend((1024u32 * 1024).to_ne_bytes()); // read-ahead
    request.extend(u32::MAX.to_ne_bytes());
    request.resize(LENGTH as usize, 0);
    request
}
