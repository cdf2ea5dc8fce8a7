//! A server of the mount, as its keeper sees it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net,
    },
    process::{Child, Command, Stdio},
};

use colima_mount::fuse::Keeper;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{net::UnixStream, sync::watch};

use super::{control, server};

/// `PIDFD_THREAD` of linux/pidfd.h, since Linux 6.9: of one thread, here the first, and not of all.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0x80);

/// A server that runs, or has died and is not reaped yet.
///
/// **Drop**: it is reaped when it is gone entirely, and not ended.
#[derive(Debug)]
pub(super) struct Server {
    child: Option<Child>,
    control: UnixStream,
    /// Becomes true when its first thread has ended: others may wait in the kernel for the next server.
    ended: watch::Receiver<bool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // Nobody can be told, and this process has nothing else to do with it.
        let _ = std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || child.wait());
    }
}

impl Server {
    /// Starts one, and gives it the port.
    pub(super) fn start(port: &File, name: u128) -> io::Result<Self> {
        let (control, theirs) = net::UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg(server::ROLE)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let first_thread = match pidfd_open(pid, PIDFD_THREAD) {
            // An older kernel, which tells when all of it has ended.
            Err(Errno::INVAL) => pidfd_open(pid, PidfdFlags::empty()),
            opened => opened,
        };
        let server = Self {
            child: Some(child),
            control: UnixStream::from_std(control)?,
            ended: told_of(first_thread?)?,
        };
        control::give(&server.control, &[port.as_fd()], name)?;
        Ok(server)
    }

    /// Gives it what the keeper holds.
    pub(super) fn take_over(&self, keeper: &Keeper) -> io::Result<()> {
        control::give(&self.control, &[keeper.device(), keeper.journal()], 0)
    }

    /// Waits until it says this.
    ///
    /// # Errors
    ///
    /// It ended instead, with what it said of that.
    pub(super) async fn hear(&self, letter: u8) -> io::Result<()> {
        let mut said = Vec::new();
        loop {
            let ended = tokio::select! {
                readable = self.control.readable() => readable.map(|()| false)?,
                ended = self.ended() => ended.map(|()| true)?,
            };
            let mut bytes = [0; 512];
            match self.control.try_read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => said.extend_from_slice(&bytes[..count]),
                // Its other end is open for as long as one of its threads is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && ended => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if said.first() == Some(&letter) {
                return Ok(());
            }
        }
        Err(io::Error::other(match said.is_empty() {
            true => "the server of the mount was killed".into(),
            false => String::from_utf8_lossy(&said),
        }))
    }

    /// Completes when it has died, or its first thread has.
    ///
    /// # Cancel safety
    ///
    /// It can be asked again.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let mut ended = self.ended.clone();
        let told = ended.wait_for(|ended| *ended).await;
        told.map(drop).map_err(io::Error::other)
    }
}

/// Waits on a thread of its own: the end of a process comes once.
fn told_of(pidfd: OwnedFd) -> io::Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    let wait = move || {
        let wait = || poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
        // Without it the keeper ends, and the mount is made anew.
        if rustix::io::retry_on_intr(wait).is_ok() {
            tell.send_replace(true);
        }
    };
    let thread = std::thread::Builder::new().name("watch".into());
    thread.spawn(wait).map(|_| told)
}
