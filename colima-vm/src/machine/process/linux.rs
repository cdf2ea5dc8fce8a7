//! Processes on Linux: pidfd and `/proc`.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};

use super::{ExitStatus, Pid};

/// A pidfd: readable once the process has ended (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Handle {
    pub(super) fn open(pid: Pid) -> io::Result<Option<Self>> {
        let Some(raw) = rustix::process::Pid::from_raw(pid.get()) else {
            return Ok(None);
        };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn kill(&self, _pid: Pid) -> io::Result<()> {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until the process has ended, or says `false` after `limit`.
    pub(super) fn wait_blocking(&self, limit: std::time::Duration) -> io::Result<bool> {
        let limit = rustix::event::Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut poll = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(rustix::event::poll(&mut poll, Some(&limit))? > 0)
    }

    pub(super) fn reap(&self, _pid: Pid) -> io::Result<ExitStatus> {
        use std::os::fd::AsFd as _;

        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.0.as_fd()), options) {
            Ok(Some(status)) => Ok(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitStatus::Code(code),
                (None, Some(signal)) => ExitStatus::Signal(signal),
                (None, None) => ExitStatus::Unknown,
            }),
            // Not a child of ours, or reaped before.
            Ok(None) | Err(Errno::CHILD) => Ok(ExitStatus::Unknown),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Clock ticks between the host's boot and the start of the process; `None` when it is gone.
pub(super) fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_start_time(&stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // ESRCH: it ended between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Field 22 of proc_pid_stat(5). The command in parentheses may itself hold spaces and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    fields.nth(19)?.parse().ok()
}

/// Whether the process has the file open.
pub(super) fn has_open(pid: Pid, path: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed while we look.
        if let Ok(found) = fs::metadata(entry?.path())
            && (found.dev(), found.ino()) == (wanted.dev(), wanted.ino())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_a_hostile_name() {
        let stat = "7 (a) Z 1 (b)) S 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 999 3";
        assert_eq!(parse_start_time(stat), Some(4242));
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn our_own_start_time_is_stable() {
        let me = Pid::new(i32::try_from(std::process::id()).unwrap()).unwrap();
        let first = start_time(me).unwrap();
        assert!(first.is_some());
        assert_eq!(start_time(me).unwrap(), first);
    }
}
