//! Makes the root file system the root, and systemd process 1.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::mount::UnmountFlags;

use crate::GuestError;

/// Frees the initramfs, moves `sysroot` to `/` and becomes `program`.
pub(super) fn switch_root(sysroot: &Path, program: &Path) -> Result<Infallible, GuestError> {
    // The new root has mounts of its own for these.
    for directory in ["/dev", "/proc", "/sys"] {
        let _ = rustix::mount::unmount(directory, UnmountFlags::DETACH);
    }
    if let Ok(root) = fs::metadata("/") {
        remove_all_below(Path::new("/"), root.dev());
    }
    let move_root = || -> io::Result<()> {
        rustix::process::chdir(sysroot)?;
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        Ok(rustix::process::chdir("/")?)
    };
    move_root().map_err(|source| GuestError::Mount {
        what: sysroot.display().to_string(),
        target: "/".into(),
        source,
    })?;
    let source = Command::new(program).exec();
    Err(GuestError::RunProgram {
        program: program.display().to_string(),
        source,
    })
}

/// Removes what lies on `device`; what cannot be removed only costs memory.
fn remove_all_below(directory: &Path, device: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            remove_all_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
