//! What the host has: accelerator, programs, namespaces, space.

use std::path::PathBuf;

use colima_core::Bytes;

use super::{Finding, Observed};

/// `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// There is none.
    Missing,
    /// It can be opened.
    Opens,
    /// It belongs to a group that the user is not in.
    Forbidden {
        /// The group's name, or its number.
        group: String,
    },
    /// It cannot be opened for another reason.
    Fails(String),
}

/// A program that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The package that has it.
    pub package: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it was found.
    pub found: Option<PathBuf>,
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Without it no machine starts.
    Running,
    /// Without it no image is built.
    Building,
    /// Without it one command does not work.
    Using,
}

pub(super) fn accelerator(kvm: &Kvm, remembered: Option<&(String, String)>) -> Finding {
    const CHECK: &str = "accelerator";
    if let Some((accelerator, why)) = remembered {
        return match accelerator.as_str() {
            "tcg" => Finding::note(CHECK, format!("machines are emulated: {why}"))
                .hint(emulation_hint(kvm)),
            accelerator => Finding::good(CHECK, format!("{accelerator}: {why}")),
        };
    }
    match kvm {
        Kvm::Opens => Finding::good(
            CHECK,
            "/dev/kvm opens; the first start proves that it works",
        ),
        Kvm::Missing => Finding::note(CHECK, "there is no /dev/kvm: machines are emulated, slowly")
            .hint(emulation_hint(kvm)),
        Kvm::Forbidden { group } => Finding::trouble(
            CHECK,
            format!("/dev/kvm is for the group {group}, which you are not in"),
        )
        .hint(emulation_hint(kvm)),
        Kvm::Fails(why) => Finding::trouble(CHECK, format!("/dev/kvm cannot be opened: {why}"))
            .hint(emulation_hint(kvm)),
    }
}

fn emulation_hint(kvm: &Kvm) -> String {
    match kvm {
        Kvm::Forbidden { group } => {
            format!("join it and log in again: sudo usermod --append --groups {group} \"$USER\"")
        }
        Kvm::Missing => {
            "switch virtualization on in the firmware, or nested virtualization where this is a virtual machine itself".to_owned()
        }
        Kvm::Opens | Kvm::Fails(_) => {
            "where this is a virtual machine itself, its own host has to offer nested virtualization"
                .to_owned()
        }
    }
}

pub(super) fn programs(seen: &Observed) -> Vec<Finding> {
    let missing: Vec<Finding> = seen
        .programs
        .iter()
        .filter(|program| program.found.is_none())
        .filter_map(|program| {
            let Program { name, package, .. } = program;
            let finding = match program.purpose {
                Purpose::Running => Finding::trouble("programs", format!("{name} was not found")),
                Purpose::Building if seen.has_image => return None,
                Purpose::Building => Finding::trouble(
                    "programs",
                    format!("{name} was not found, and there is no image yet: none can be built"),
                ),
                Purpose::Using => Finding::note("programs", format!("{name} was not found")),
            };
            Some(finding.hint(match package.as_str() {
                "" => "build it beside colima: make build".to_owned(),
                package => format!("install the package {package}"),
            }))
        })
        .collect();
    if missing.is_empty() {
        return vec![Finding::good(
            "programs",
            "everything that is needed is there",
        )];
    }
    missing
}

pub(super) fn qemu(version: Option<&Result<String, String>>) -> Option<Finding> {
    Some(match version? {
        Ok(version) => Finding::good("QEMU", format!("version {version}")),
        Err(why) => {
            Finding::trouble("QEMU", why).hint("QEMU 7.2 or later is needed: Debian 12 has it")
        }
    })
}

/// Only an ordinary user needs them, and only to build an image.
pub(super) fn user_namespaces(seen: &Observed) -> Finding {
    const CHECK: &str = "user namespaces";
    if seen.is_root {
        return Finding::good(CHECK, "root needs none");
    }
    let (what, hint) = if seen.apparmor_restricts == Some(1) {
        (
            "AppArmor keeps them from ordinary users",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else if seen.unprivileged_clone == Some(0) {
        (
            "the kernel keeps them from ordinary users",
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        )
    } else if seen.most_user_namespaces == Some(0) {
        (
            "they are switched off",
            "sudo sysctl user.max_user_namespaces=10000",
        )
    } else {
        return Finding::good(CHECK, "ordinary users may have them");
    };
    if seen.has_image {
        return Finding::note(CHECK, format!("{what}; only building an image needs them"));
    }
    Finding::trouble(CHECK, format!("{what}, and an image has to be built"))
        .hint(format!("allow them, or build the image as root: {hint}"))
}

/// An image, its packages and the first containers.
const COMFORTABLE: Bytes = Bytes::gib(10);
const TIGHT: Bytes = Bytes::gib(2);

pub(super) fn disk(free: Option<&(Bytes, PathBuf)>) -> Finding {
    const CHECK: &str = "disk space";
    let Some((free, path)) = free else {
        return Finding::note(CHECK, "it cannot be told how much is free");
    };
    let what = format!("{free} are free in {}", path.display());
    if *free < TIGHT {
        Finding::trouble(CHECK, what)
            .hint("make room, or keep the machines elsewhere: export COLIMA_HOME=...")
    } else if *free < COMFORTABLE {
        Finding::note(CHECK, what)
            .hint("what can be downloaded again is deleted by: colima prune --all")
    } else {
        Finding::good(CHECK, what)
    }
}

pub(super) fn resources(
    (cpus, memory): (u32, Option<Bytes>),
    wanted: &Result<(u32, Bytes), String>,
) -> Finding {
    const CHECK: &str = "configuration";
    let (wanted_cpus, wanted_memory) = match wanted {
        Ok(wanted) => *wanted,
        Err(why) => {
            return Finding::trouble(CHECK, why)
                .hint("correct it: colima start --edit, or begin anew: colima template --print");
        }
    };
    if memory.is_some_and(|memory| wanted_memory >= memory) {
        let memory = memory.unwrap_or_default();
        return Finding::trouble(
            CHECK,
            format!("the machine wants {wanted_memory} of memory, and this host has {memory}"),
        )
        .hint("want less: colima start --memory 2");
    }
    if wanted_cpus > cpus {
        return Finding::note(
            CHECK,
            format!("the machine wants {wanted_cpus} processors, and this host has {cpus}"),
        )
        .hint(format!(
            "it is faster with fewer: colima start --cpus {cpus}"
        ));
    }
    Finding::good(
        CHECK,
        format!("{wanted_cpus} processors and {wanted_memory} of memory fit on this host"),
    )
}
