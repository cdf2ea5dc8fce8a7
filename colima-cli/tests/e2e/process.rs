//! Processes of the profiles under test, held by descriptors, so that a number is never another's.

use std::{
    fs,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// A process, alive or not.
pub(crate) struct Process {
    pub(crate) pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// `None` when there is none of that number any more.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let descriptor = pidfd_open(number, PidfdFlags::empty()).ok()?;
        Some(Self { pid, descriptor })
    }

    /// Sends a signal; a process that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        assert!(
            self.ends_within(Duration::from_secs(60)),
            "KILL was not enough"
        );
    }

    /// Waits for its end; whether it came.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a few minutes");
            let mut ends = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut ends, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.count("fd")
    }

    /// How many threads it has.
    pub(crate) fn tasks(&self) -> usize {
        self.count("task")
    }

    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.pid)).map_or(0, Iterator::count)
    }
}

/// The daemons of `profile` whose state is below `home`.
pub(crate) fn daemons(home: &Path, profile: &str) -> Vec<Process> {
    let arguments = ["daemon", "run", "--profile", profile];
    find(home, |command| {
        command.get(1..) == Some(&arguments.map(str::to_owned))
    })
}

/// The virtual machines of `profile` whose state is below `home`.
pub(crate) fn machines(home: &Path, profile: &str) -> Vec<Process> {
    let disk = home.join(profile).join("root.qcow2");
    let disk = disk.to_string_lossy().into_owned();
    find(home, |command| {
        let qemu = command
            .first()
            .is_some_and(|program| program.contains("qemu-system"));
        qemu && command.iter().any(|word| word.contains(&disk))
    })
}

/// What serves a directory to a machine.
pub(crate) fn workers(location: &str) -> Vec<Process> {
    let arguments = ["mount-worker", "--", location].map(str::to_owned);
    matching(|_, command| command.get(1..) == Some(&arguments))
}

/// Everything that runs for any profile below `home`: daemons, machines, and whatever else they started.
pub(crate) fn of_home(home: &Path) -> Vec<String> {
    let all = find(home, |command| {
        let daemon = command.get(1).is_some_and(|word| word == "daemon");
        let ours = home.to_string_lossy();
        daemon || command.iter().any(|word| word.contains(&*ours))
    });
    all.iter()
        .map(|process| format!("{} {}", process.pid, command_line(process.pid).join(" ")))
        .collect()
}

/// Processes by their command line; a daemon tells its home only in its environment.
fn find(home: &Path, wanted: impl Fn(&[String]) -> bool) -> Vec<Process> {
    matching(|pid, command| wanted(command) && belongs_to(pid, command, home))
}

fn matching(wanted: impl Fn(u32, &[String]) -> bool) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    pids.filter(|pid: &u32| *pid != own)
        .filter_map(|pid| {
            // Opened before it is looked at: what is found is what is held.
            let process = Process::open(pid)?;
            let command = command_line(pid);
            wanted(pid, &command).then_some(process)
        })
        .collect()
}

fn command_line(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn belongs_to(pid: u32, command: &[String], home: &Path) -> bool {
    let home = home.to_string_lossy();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variable = format!("COLIMA_HOME={home}");
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == variable.as_bytes())
        || command.iter().any(|word| word.contains(&*home))
}
