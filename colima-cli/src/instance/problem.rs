//! [`Problem`]: what does not work, and what to do.

use std::{fmt, fs};

use colima_core::ProfileName;
use serde::{Deserialize, Serialize};

use crate::command_error::naming;

/// Something of a running instance that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What, with its cause, in one sentence.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// A problem and the next step.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// One of what is tried again without anybody's help.
    pub(crate) fn retried(what: impl Into<String>) -> Self {
        let hint = "it is tried again by itself; what was tried is in: colima logs";
        Self::new(what, hint)
    }

    /// Names the profile in the commands of both.
    #[must_use]
    pub fn for_profile(&self, profile: &ProfileName) -> Self {
        Self::new(naming(&self.what, profile), naming(&self.hint, profile))
    }
}

/// In one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

/// Whether a signal keeps a process of ours from running: the state `T` of proc(5). A process that is gone, or
/// cannot be looked at, is not stopped.
pub(crate) fn is_stopped(pid: impl fmt::Display) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it is the program's to choose, parentheses included.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| state.starts_with('T'))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_is_stopped() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        assert!(!is_stopped(child.id()));
        kill_process(pid, Signal::STOP).unwrap();
        // Returns once it has stopped.
        let options = rustix::process::WaitOptions::UNTRACED;
        rustix::process::waitpid(Some(pid), options).unwrap();
        assert!(is_stopped(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(child.id()));
    }

    #[test]
    fn the_next_step_names_the_profile() {
        let problem = Problem::new("it hangs", "end it: colima stop --force");
        let work = "work".parse().unwrap();
        assert_eq!(
            problem.for_profile(&work).to_string(),
            "it hangs; end it: colima stop --profile work --force"
        );
    }
}
