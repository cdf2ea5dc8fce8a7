//! What keeps machines from starting or working on a host: judged from what was seen, without looking.

use std::path::PathBuf;

use colima_core::Bytes;
use serde_json::{Value, json};

use crate::output::escaped;

mod host;
mod surroundings;

pub use host::{Kvm, Program, Purpose};
pub use surroundings::{OtherColima, ProfileSeen};

/// Everything that was seen of the host. Plain data: the judgement is [`examine`]'s.
#[derive(Clone, Debug)]
pub struct Observed {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// What machines were last proven to run on, and why; `None` before the first start.
    pub remembered: Option<(String, String)>,
    /// The programs that are looked for.
    pub programs: Vec<Program>,
    /// QEMU's version, or what went wrong when it was asked.
    pub qemu: Option<Result<String, String>>,
    /// Whether there is an image already, so that none has to be built.
    pub has_image: bool,
    /// Whether the user is root.
    pub is_root: bool,
    /// `/proc/sys/user/max_user_namespaces`.
    pub most_user_namespaces: Option<u64>,
    /// `/proc/sys/kernel/unprivileged_userns_clone`, which some kernels have.
    pub unprivileged_clone: Option<u64>,
    /// `/proc/sys/kernel/apparmor_restrict_unprivileged_userns`.
    pub apparmor_restricts: Option<u64>,
    /// Bytes that the user may still write where the state is, and where that is.
    pub free: Option<(Bytes, PathBuf)>,
    /// Processors and memory of the host.
    pub host: (u32, Option<Bytes>),
    /// Processors and memory that the profile wants, or why its configuration cannot be used.
    pub wanted: Result<(u32, Bytes), String>,
    /// What keeps ports of the configuration from being opened, a sentence each.
    pub port_obstacles: Vec<String>,
    /// What the profile's machine says.
    pub profile: ProfileSeen,
    /// `/proc/sys/net/ipv4/ip_unprivileged_port_start`.
    pub first_free_port: Option<u64>,
    /// What leads docker elsewhere, in a sentence.
    pub docker_override: Option<String>,
    /// Whether the current docker context cannot be read, and why.
    pub docker_config: Option<String>,
    /// Why the state directory cannot be used.
    pub state: Result<PathBuf, String>,
    /// Instances of the original Colima in the same home.
    pub other_colimas: Vec<OtherColima>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well.
    Good,
    /// It works, and something should be known.
    Note,
    /// Something does not work.
    Trouble,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Trouble => "trouble",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `accelerator`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            check,
            severity,
            what: what.into(),
            hint: None,
        }
    }

    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Good, what)
    }

    fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, what)
    }

    fn trouble(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Trouble, what)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Judges what was seen, at least one finding per check.
#[must_use]
pub fn examine(seen: &Observed) -> Vec<Finding> {
    let mut findings = vec![host::accelerator(&seen.kvm, seen.remembered.as_ref())];
    findings.extend(host::programs(seen));
    findings.extend(host::qemu(seen.qemu.as_ref()));
    findings.push(host::user_namespaces(seen));
    findings.push(host::disk(seen.free.as_ref()));
    findings.push(host::resources(seen.host, &seen.wanted));
    findings.extend(surroundings::profile(&seen.profile));
    findings.extend(surroundings::network(seen));
    findings.push(surroundings::docker(seen));
    findings.push(surroundings::state(&seen.state));
    findings.push(surroundings::other_colimas(&seen.other_colimas));
    findings
}

/// Whether nothing is in trouble.
#[must_use]
pub fn is_well(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.severity < Severity::Trouble)
}

/// Lines for people, each ended.
#[must_use]
pub fn human(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let (severity, check) = (finding.severity.as_str(), finding.check);
        let what = escaped(&finding.what);
        text.push_str(&format!("{severity:9}{check:17}{what}\n"));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("{:26}hint: {}\n", "", escaped(hint)));
        }
    }
    text
}

/// One JSON object on one line.
#[must_use]
pub fn in_json(findings: &[Finding]) -> String {
    let each = findings.iter().map(|finding| {
        json!({
            "check": finding.check,
            "severity": finding.severity.as_str(),
            "what": finding.what,
            "hint": finding.hint,
        })
    });
    let findings_in_json: Value = each.collect();
    let all = json!({ "well": is_well(findings), "findings": findings_in_json });
    format!("{all}\n")
}
