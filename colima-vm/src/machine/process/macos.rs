//! Processes on macOS: kqueue, libproc and sysctl.
#![expect(
    unsafe_code,
    reason = "libproc and sysctl have no safe binding among our dependencies"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        kqueue::{Event, EventFilter, EventFlags, ProcessEvents, kevent, kqueue},
    },
    io::Errno,
    process::{Signal, WaitOptions, kill_process, waitpid},
};

use super::{ExitStatus, Pid};

/// A kqueue with one event: the process ended. Readable from then on, because nobody takes it out.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Handle {
    pub(super) fn open(pid: Pid) -> io::Result<Option<Self>> {
        let queue = kqueue()?;
        let filter = EventFilter::Proc {
            pid: raw(pid)?,
            flags: ProcessEvents::EXIT,
        };
        let event = Event::new(filter, EventFlags::ADD, std::ptr::null_mut());
        // SAFETY: the event refers to a process, not to a descriptor that could be closed.
        match unsafe { kevent(&queue, &[event], &mut [] as &mut [Event; 0], None) } {
            Ok(_) => Ok(Some(Self(queue))),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// There is no signal by handle here; the number is the process's own until its end was reported.
    pub(super) fn kill(&self, pid: Pid) -> io::Result<()> {
        if self.wait_blocking(Duration::ZERO)? {
            return Ok(());
        }
        match kill_process(raw(pid)?, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn wait_blocking(&self, limit: Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut poll = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(rustix::event::poll(&mut poll, Some(&limit))? > 0)
    }

    pub(super) fn reap(&self, pid: Pid) -> io::Result<ExitStatus> {
        match waitpid(Some(raw(pid)?), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, Some(signal)) => ExitStatus::Signal(signal),
                    (None, None) => ExitStatus::Unknown,
                })
            }
            Ok(None) | Err(Errno::CHILD) => Ok(ExitStatus::Unknown),
            Err(error) => Err(error.into()),
        }
    }
}

fn raw(pid: Pid) -> io::Result<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.get()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

pub(super) fn boot_id() -> io::Result<String> {
    let mut text = [0_u8; 64];
    let mut length = text.len();
    // SAFETY: writes at most `length` bytes into `text` and the number written into `length`.
    let result = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let text = &text[..length.min(text.len())];
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// Microseconds since the Unix epoch; `None` when the process is gone.
pub(super) fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    let mut info = std::mem::MaybeUninit::<libc::proc_bsdinfo>::zeroed();
    let size = libc::c_int::try_from(size_of::<libc::proc_bsdinfo>()).map_err(io::Error::other)?;
    // SAFETY: writes at most `size` bytes into `info`.
    let written = unsafe {
        libc::proc_pidinfo(
            pid.get(),
            libc::PROC_PIDTBSDINFO,
            0,
            info.as_mut_ptr().cast(),
            size,
        )
    };
    if written != size {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: all of it was written, and zeroes were valid before.
    let info = unsafe { info.assume_init() };
    Ok(Some(
        info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
    ))
}

/// Not asked here: an orphan stays until somebody ends it by hand.
#[expect(clippy::unnecessary_wraps, reason = "the twin for Linux does I/O")]
pub(super) fn has_open(_pid: Pid, _path: &Path) -> io::Result<bool> {
    Ok(false)
}
