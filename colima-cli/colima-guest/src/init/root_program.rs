//! Runs programs of the root file system, in a chroot.
//!
//! The initramfs holds no program but ours, and ours is what changes the root directory: it is
//! started once more with [`ROLE`] and becomes the program. That needs no code between fork and exec.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use crate::GuestError;

/// First argument of the role.
pub const ROLE: &str = "exec-in-root";

/// Where programs of the root file system are.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a program's output goes into an error, in bytes.
const KEPT: usize = 600;

/// The role: makes `root` the root directory and becomes the program.
///
/// Returns only when that fails.
pub fn exec_in(root: &Path, program: &str, args: &[String]) -> io::Error {
    match enter(root) {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    }
}

/// Makes `root` the root directory and the working directory.
pub(super) fn enter(root: &Path) -> io::Result<()> {
    rustix::process::chroot(root)?;
    Ok(rustix::process::chdir("/")?)
}

/// Runs a program to its end; any exit code that `accepts` does not accept is an error.
pub(super) fn run(
    root: &Path,
    program: &str,
    args: &[&str],
    accepts: impl Fn(i32) -> bool,
) -> Result<(), GuestError> {
    let output = Command::new("/proc/self/exe")
        .arg(ROLE)
        .arg(root)
        .arg(program)
        .args(args)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| GuestError::RunProgram {
            program: program.to_owned(),
            source,
        })?;
    if output.status.code().is_some_and(accepts) {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let tail = &text[text.len().saturating_sub(KEPT)..];
    Err(GuestError::ProgramFailed {
        program: program.to_owned(),
        status: output.status,
        message: String::from_utf8_lossy(tail).trim().replace('\n', "; "),
    })
}
