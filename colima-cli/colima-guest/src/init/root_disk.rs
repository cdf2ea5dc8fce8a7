//! The root file system: mounted, and grown to its disk.

use std::{fs::File, path::Path};

use rustix::mount::MountFlags;

use super::{console::Console, files, root_program};
use crate::{
    GuestError,
    disk_content::{Disk as _, FileDisk},
    ext4::{LENGTH, OFFSET, Superblock},
};

/// Mounts the root disk. A journal left by a killed machine is replayed by the kernel.
pub(super) fn mount(disk: &Path, sysroot: &Path) -> Result<(), GuestError> {
    files::make_directory(sysroot, 0o755)?;
    rustix::mount::mount(disk, sysroot, "ext4", MountFlags::NOATIME, None).map_err(|error| {
        GuestError::Mount {
            what: disk.display().to_string(),
            target: sysroot.to_owned(),
            source: error.into(),
        }
    })
}

/// Grows the mounted file system when its disk has room.
pub(super) fn grow(console: &mut Console, disk: &Path, sysroot: &Path) -> Result<(), GuestError> {
    let read = |source| GuestError::ReadFile {
        path: disk.to_owned(),
        source,
    };
    let device = FileDisk::new(File::open(disk).map_err(read)?).map_err(read)?;
    let mut block = [0; LENGTH];
    device.read_at(OFFSET, &mut block).map_err(read)?;
    let Some(superblock) = Superblock::parse(&block) else {
        return Ok(());
    };
    if superblock.can_grow_on(device.size()) {
        console.say(&format!("growing {} to {}", disk.display(), device.size()));
        resize(disk, sysroot)?;
    }
    Ok(())
}

/// Grows the file system on `disk`, which is mounted, to the disk's size.
pub(super) fn resize(disk: &Path, sysroot: &Path) -> Result<(), GuestError> {
    let disk = disk.to_string_lossy();
    root_program::run(sysroot, "resize2fs", &[&disk], |code| code == 0)
}
