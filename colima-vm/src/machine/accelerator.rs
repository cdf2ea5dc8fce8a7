//! What the guest's processors run on: proven, not assumed.
//!
//! `/dev/kvm` can be there, open, and create machines whose guests never execute an instruction (nested
//! virtualization does this). So a candidate counts when it has run a kernel before a deadline. The
//! verdict holds until the host boots again or QEMU changes, and is kept as JSON where the caller says.

use std::{fmt, fs, path::Path, time::Duration};

use colima_core::{Arch, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    command_line::Firmware,
    error::{Error, Result},
    handle::Machine,
    launch::Qemu,
    process::host_boot_id,
    qemu::QemuVersion,
    record::replace_file,
    spec::{Boot, Kernel, MachineSpec, Network},
};

/// What the guest's processors run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Accelerator {
    /// Linux's KVM.
    Kvm,
    /// macOS's Hypervisor framework.
    Hvf,
    /// QEMU's emulation: slow, runs everywhere, and no isolation boundary (QEMU's own security policy
    /// covers virtualization only).
    Tcg,
}

impl Accelerator {
    /// What is worth trying on this host for a guest of architecture `guest`, best first.
    #[must_use]
    pub fn candidates(guest: Arch) -> &'static [Self] {
        if Arch::host() != Some(guest) {
            &[Self::Tcg]
        } else if cfg!(target_os = "linux") {
            &[Self::Kvm, Self::Tcg]
        } else if cfg!(target_os = "macos") {
            &[Self::Hvf, Self::Tcg]
        } else {
            &[Self::Tcg]
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Tcg => "tcg",
        })
    }
}

/// How long a candidate gets by default.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(8);

/// What happened when a candidate was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It ran the kernel.
    Works,
    /// The guest never got anywhere.
    Hangs {
        /// How long it was waited for, in milliseconds.
        limit_ms: u64,
    },
    /// QEMU refused it.
    Fails {
        /// QEMU's last line, or what the system said.
        reason: String,
    },
    /// Taken without a trial: emulation needs nothing of the host.
    Untried,
}

/// A candidate and what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The candidate.
    pub accelerator: Accelerator,
    /// What happened.
    pub outcome: Outcome,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accelerator = self.accelerator;
        match &self.outcome {
            Outcome::Works => write!(f, "{accelerator} works"),
            Outcome::Hangs { limit_ms } => write!(
                f,
                "{accelerator} hangs: no kernel ran within {:?}",
                Duration::from_millis(*limit_ms)
            ),
            Outcome::Fails { reason } => write!(f, "{accelerator} fails: {reason}"),
            Outcome::Untried => write!(f, "{accelerator} needs no trial"),
        }
    }
}

/// Which accelerator to use, and how that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`Verdict::VERSION`].
    pub version: u32,
    /// The one to use.
    pub accelerator: Accelerator,
    /// Everything that was tried for it, in order.
    pub trials: Vec<Trial>,
    /// Architecture of the guests it is about.
    pub guest: Arch,
    /// Boot of the host in which it was found out.
    pub host_boot_id: String,
    /// QEMU with which it was found out.
    pub qemu: QemuVersion,
}

impl Verdict {
    /// The version this program writes and reads.
    pub const VERSION: u32 = 1;

    /// Whether the verdict still holds. Pure.
    #[must_use]
    pub fn holds(&self, guest: Arch, host_boot_id: &str, qemu: QemuVersion) -> bool {
        self.version == Self::VERSION
            && self.guest == guest
            && self.host_boot_id == host_boot_id
            && self.qemu == qemu
    }

    /// Why this one: every trial in a sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        describe(&self.trials)
    }
}

fn describe(trials: &[Trial]) -> String {
    let trials: Vec<String> = trials.iter().map(Trial::to_string).collect();
    trials.join("; ")
}

/// Decides what to run guests of architecture `guest` on, or remembers it.
///
/// `kernel` is booted without anything else in a directory below `scratch`; the verdict is read from
/// and written to the file `memory`.
///
/// # Errors
///
/// [`Error::NoAccelerator`] when no candidate works; errors of [`QemuVersion::of`]; a verdict that
/// cannot be written is [`Error::Directory`].
///
/// # Cancel safety
///
/// Dropping the future kills what was started; nothing is remembered.
pub async fn choose(
    program: &Path,
    guest: Arch,
    kernel: &Path,
    scratch: &Path,
    memory: &Path,
    limit: Duration,
) -> Result<Verdict> {
    let qemu = QemuVersion::of(program, DEFAULT_LIMIT).await?;
    let host_boot_id = host_boot_id().map_err(Error::directory("read the boot id for", memory))?;
    // A verdict that cannot be read is found out anew.
    if let Ok(text) = fs::read(memory)
        && let Ok(verdict) = serde_json::from_slice::<Verdict>(&text)
        && verdict.holds(guest, &host_boot_id, qemu)
    {
        return Ok(verdict);
    }
    let mut trials = Vec::new();
    for candidate in Accelerator::candidates(guest) {
        let trial = match candidate {
            Accelerator::Tcg => Trial {
                accelerator: Accelerator::Tcg,
                outcome: Outcome::Untried,
            },
            _ => prove(*candidate, program, guest, kernel, scratch, limit).await?,
        };
        let good = matches!(trial.outcome, Outcome::Works | Outcome::Untried);
        trials.push(trial);
        if good {
            let verdict = Verdict {
                version: Verdict::VERSION,
                accelerator: *candidate,
                trials,
                guest,
                host_boot_id,
                qemu,
            };
            let text = serde_json::to_vec_pretty(&verdict).unwrap_or_default();
            replace_file(memory, &text).map_err(Error::directory("write", memory))?;
            return Ok(verdict);
        }
    }
    Err(Error::NoAccelerator {
        trials: describe(&trials),
    })
}

/// Boots `kernel` under a candidate, with no disk and 256 MiB, and sees whether it says a word before
/// `limit`. The machine's directory below `scratch` is removed afterwards.
///
/// # Errors
///
/// Only what keeps the trial from taking place; a candidate that does not work is an [`Outcome`].
///
/// # Cancel safety
///
/// Dropping the future kills QEMU.
pub async fn prove(
    candidate: Accelerator,
    program: &Path,
    guest: Arch,
    kernel: &Path,
    scratch: &Path,
    limit: Duration,
) -> Result<Trial> {
    let directory = scratch.join(format!("prove-{candidate}"));
    let qemu = Qemu {
        program: program.to_owned(),
        accelerator: candidate,
        firmware: Firmware::default(),
    };
    // A trial whose program was killed goes on without it.
    if let Ok(left) = Machine::attach(&directory).await {
        left.kill().await?;
    }
    let spec = trial_spec(guest, kernel);
    let attempt = run_kernel(&spec, &qemu, &directory);
    let outcome = match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome?,
        Err(_) => Outcome::Hangs {
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        },
    };
    // What cannot be removed is reused by the next trial.
    let _ = fs::remove_dir_all(&directory);
    Ok(Trial {
        accelerator: candidate,
        outcome,
    })
}

fn trial_spec(guest: Arch, kernel: &Path) -> MachineSpec {
    // The early console speaks as soon as the kernel is unpacked.
    let console = match guest {
        Arch::X86_64 => "earlyprintk=ttyS0 console=ttyS0",
        Arch::Aarch64 => "earlycon console=ttyAMA0",
    };
    MachineSpec {
        name: "accelerator-trial".to_owned(),
        arch: guest,
        cpus: 1,
        memory: Bytes::mib(256),
        boot: Boot::Kernel(Kernel {
            image: kernel.to_owned(),
            initrd: Vec::new(),
            command_line: format!("{console} panic=-1"),
        }),
        disks: Vec::new(),
        network: Network::None,
    }
}

/// Ends when the kernel has spoken, or when it is clear that it will not.
async fn run_kernel(spec: &MachineSpec, qemu: &Qemu, directory: &Path) -> Result<Outcome> {
    let machine = match Machine::launch(spec, qemu, directory).await {
        Ok(machine) => machine,
        Err(Error::Launch {
            evidence, source, ..
        }) => {
            let reason = evidence.qemu.last().cloned();
            return Ok(Outcome::Fails {
                reason: reason.unwrap_or_else(|| source.to_string()),
            });
        }
        Err(error) => return Err(error),
    };
    let outcome = tokio::select! {
        biased;
        true = machine.console().printed("Linux version") => Outcome::Works,
        exit = machine.exited() => match exit.cause {
            // It panicked for want of a root file system: it ran.
            Some(_) => Outcome::Works,
            None => {
                let reason = machine.evidence().qemu.last().cloned();
                Outcome::Fails { reason: reason.unwrap_or_else(|| exit.to_string()) }
            }
        },
    };
    machine.kill().await?;
    Ok(outcome)
}
