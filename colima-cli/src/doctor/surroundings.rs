//! What stands around the machines: network, docker's settings, the state directory, the other Colima.

use std::path::PathBuf;

use super::{Finding, Observed};
use crate::instance::Problem;

/// An instance of the original Colima in the same home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherColima {
    /// Name of the instance: `colima`, `colima-work`.
    pub instance: String,
    /// The process that supervises it, while it runs.
    pub pid: Option<i32>,
}

/// What the profile's machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileSeen {
    /// Nothing runs.
    Stopped,
    /// It is on its way up or down.
    Changing,
    /// It runs.
    Running {
        /// What does not work.
        problems: Vec<Problem>,
        /// Published ports that are not on the host, a sentence each.
        conflicts: Vec<String>,
    },
    /// It cannot be asked, and why.
    Unusable(Problem),
}

pub(super) fn profile(seen: &ProfileSeen) -> Vec<Finding> {
    const CHECK: &str = "machine";
    let trouble = |problem: &Problem| Finding::trouble(CHECK, &problem.what).hint(&problem.hint);
    let finding = match seen {
        ProfileSeen::Stopped => Finding::good(CHECK, "it does not run"),
        ProfileSeen::Changing => Finding::good(CHECK, "it is on its way"),
        ProfileSeen::Running {
            problems,
            conflicts,
        } if problems.is_empty() && conflicts.is_empty() => {
            Finding::good(CHECK, "it runs, and everything answers")
        }
        ProfileSeen::Running {
            problems,
            conflicts,
        } if problems.is_empty() => {
            let what = format!("ports are not on this host: {}", conflicts.join("; "));
            Finding::note(CHECK, what).hint("end what has them, or publish others")
        }
        ProfileSeen::Running { problems, .. } => return problems.iter().map(trouble).collect(),
        ProfileSeen::Unusable(problem) => trouble(problem),
    };
    vec![finding]
}

pub(super) fn network(seen: &Observed) -> Vec<Finding> {
    const CHECK: &str = "network";
    // QEMU's user network cannot forbid it (its option `restrict` would take the internet away, too).
    let mut findings = vec![Finding::note(
        CHECK,
        "containers reach what listens on this host's loopback, at 10.0.2.2",
    )];
    findings.extend(seen.port_obstacles.iter().map(|obstacle| {
        Finding::trouble(CHECK, obstacle)
            .hint("end what has it, or choose another one: colima start --edit")
    }));
    match seen.first_free_port {
        Some(first) if first > 80 && !seen.is_root => {
            let what = format!("only root may listen on ports below {first}");
            let hint = "to publish port 80: sudo sysctl net.ipv4.ip_unprivileged_port_start=80";
            findings.push(Finding::note(CHECK, what).hint(hint));
        }
        _ => {}
    }
    findings
}

pub(super) fn docker(seen: &Observed) -> Finding {
    const CHECK: &str = "docker";
    if let Some(why) = &seen.docker_config {
        return Finding::trouble(CHECK, why)
            .hint("docker is led there without it: eval \"$(colima env)\"");
    }
    match &seen.docker_override {
        Some(sentence) => Finding::note(CHECK, sentence).hint("unset DOCKER_HOST DOCKER_CONTEXT"),
        None => Finding::good(CHECK, "no variable leads docker elsewhere"),
    }
}

pub(super) fn state(state: &Result<PathBuf, String>) -> Finding {
    const CHECK: &str = "state directory";
    match state {
        Ok(root) => Finding::good(CHECK, root.display().to_string()),
        Err(why) => {
            Finding::trouble(CHECK, why).hint("choose another directory: export COLIMA_HOME=...")
        }
    }
}

pub(super) fn other_colimas(others: &[OtherColima]) -> Finding {
    const CHECK: &str = "other Colima";
    let running: Vec<String> = others
        .iter()
        .filter_map(|other| Some(format!("{} (process {})", other.instance, other.pid?)))
        .collect();
    if !running.is_empty() {
        let what = format!("it runs in the same home: {}", running.join(", "));
        return Finding::note(CHECK, what)
            .hint("it is left alone; start another profile: colima start --profile NAME");
    }
    if others.is_empty() {
        return Finding::good(CHECK, "there is none in this home");
    }
    let names: Vec<&str> = others.iter().map(|other| other.instance.as_str()).collect();
    let what = format!(
        "it has instances here that do not run: {}; their colima.yaml is read, their disks are not touched",
        names.join(", ")
    );
    Finding::note(CHECK, what)
}
