//! Starts QEMU with exactly the descriptors it is meant to have. The unsafe code of the machine is
//! here and nowhere else.
#![expect(
    unsafe_code,
    reason = "only code between fork and exec can pass chosen descriptors without a race"
)]

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

/// What to start, and what it inherits.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [OsString],
    pub(super) directory: &'a Path,
    pub(super) log: fs::File,
    /// Kept open under their own numbers.
    pub(super) inherited: &'a [BorrowedFd<'a>],
    /// One of `inherited`; gets the new process's pid as text before the program starts.
    pub(super) lock: BorrowedFd<'a>,
}

/// Starts the program in a session of its own: no terminal, no signal meant for our group reaches it.
///
/// The descriptors keep their numbers, because moving them could overwrite the pipe on which the
/// standard library reports a failed exec. Every other descriptor is closed by exec, also those that
/// some foreign code in this process left open without the flag.
///
/// The environment is empty: QEMU needs none of it, and a guest that breaks out learns nothing.
pub(super) fn spawn(launch: Launch<'_>) -> io::Result<Child> {
    let inherited: Vec<RawFd> = launch.inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let lock = launch.lock.as_raw_fd();
    let mut command = Command::new(launch.program);
    command
        .args(launch.arguments)
        .env_clear()
        .current_dir(launch.directory)
        .stdin(Stdio::null())
        .stdout(launch.log.try_clone()?)
        .stderr(launch.log);
    let between_fork_and_exec = move || {
        rustix::process::setsid()?;
        close_all_on_exec();
        for fd in &inherited {
            // SAFETY: the descriptors are borrowed for the whole of `spawn`, so they are open.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        let mut digits = [0_u8; 11];
        let pid = decimal(
            rustix::process::getpid().as_raw_pid().unsigned_abs(),
            &mut digits,
        );
        // SAFETY: as above.
        let lock = unsafe { BorrowedFd::borrow_raw(lock) };
        rustix::io::pwrite(lock, pid, 0)?;
        Ok(())
    };
    // SAFETY: the closure makes only system calls that are async-signal-safe, and neither allocates
    // nor takes a lock.
    unsafe { command.pre_exec(between_fork_and_exec) };
    command.spawn()
}

/// Marks everything above standard error close-on-exec.
fn close_all_on_exec() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: changes only the close-on-exec flag (Linux 5.11; close_range(2)).
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3_u32,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        if done == 0 {
            return;
        }
    }
    // SAFETY: asks for a limit.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for fd in 3..RawFd::try_from(limit.clamp(256, 65_536)).unwrap_or(256) {
        // SAFETY: sets a flag of a descriptor of this process; fails harmlessly where there is none.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Decimal text without allocating.
fn decimal(mut number: u32, digits: &mut [u8; 11]) -> &[u8] {
    let mut start = digits.len() - 1;
    digits[start] = b'\n';
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn decimal_text() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut digits = [0; 11];
            assert_eq!(
                decimal(number, &mut digits),
                format!("{number}\n").as_bytes()
            );
        }
    }
}
