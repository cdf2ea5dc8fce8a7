//! Uses the processor that a boot leaves idle.
//!
//! From the first process until systemd starts its units one processor works and the others wait;
//! afterwards docker's start is what everything waits for. So the programs and modules that it needs are
//! run and loaded once beforehand, beside init: their pages are in memory then and, in an emulated machine,
//! their code is translated, which is most of what a first run costs there. Nothing depends on it.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use colima_core::boot::Runtime;

use super::root_program;

/// First argument of the role.
pub const ROLE: &str = "rehearse";

/// What runs before docker does, in this order. systemd wants the first two modules itself, the others
/// are those that dockerd and its iptables ask for one by one.
const DOCKER: &[&[&str]] = &[
    &[
        "modprobe",
        "--all",
        "--quiet",
        "autofs4",
        "ip_tables",
        "br_netfilter",
        "iptable_filter",
        "iptable_nat",
        "xt_addrtype",
        "xt_conntrack",
        "xt_MASQUERADE",
        "nf_conntrack_netlink",
        "xfrm_user",
    ],
    &["dockerd", "--version"],
    &["containerd", "--version"],
    &["iptables", "--wait", "--list-rules"],
];

/// Begins the rehearsal in the background, unless it would compete with the boot.
///
/// The process belongs to whoever is process 1 when it ends.
pub(super) fn begin(sysroot: &Path, runtime: Runtime) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors == 1 || runtime != Runtime::Docker {
        return;
    }
    let _ = Command::new("/proc/self/exe")
        .arg(ROLE)
        .arg(sysroot)
        .env("PATH", root_program::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

/// The role: runs docker's programs in `root`, one after the other, whatever becomes of them.
///
/// # Errors
///
/// When `root` cannot be entered.
pub fn rehearse(root: &Path) -> io::Result<()> {
    root_program::enter(root)?;
    for program in DOCKER {
        let _ = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::null())
            .status();
    }
    Ok(())
}
