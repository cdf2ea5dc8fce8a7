//! The data disk: formatted when blank, checked when it was left dirty, mounted, grown.

use std::{fs::File, path::Path};

use colima_core::boot::{BootConfig, DATA_MOUNT};
use rustix::mount::MountFlags;

use super::{console::Console, files, in_root, root_disk, root_program};
use crate::{
    GuestError,
    disk_content::{Content, DATA_LABEL, Disk as _, FileDisk, examine},
    ext4::{Condition, Superblock},
    guest_files::{Presence, data_directories},
};

/// Makes the data disk ready below `sysroot`.
pub(super) fn prepare(
    console: &mut Console,
    disk: &Path,
    sysroot: &Path,
    config: &BootConfig,
) -> Result<(), GuestError> {
    let read = |source| GuestError::ReadFile {
        path: disk.to_owned(),
        source,
    };
    let device = FileDisk::new(File::open(disk).map_err(read)?).map_err(read)?;
    let size = device.size();
    let content = examine(&device).map_err(read)?;
    drop(device);
    let grows = match &content {
        Content::Foreign(what) => {
            return Err(GuestError::DataDiskForeign {
                what: (*what).to_owned(),
            });
        }
        Content::Blank => {
            console.say(&format!("the data disk is blank: formatting {size}"));
            format(disk, sysroot)?;
            false
        }
        Content::Ours(superblock) => {
            check(console, superblock, disk, sysroot)?;
            superblock.can_grow_on(size)
        }
    };
    let target = in_root(sysroot, DATA_MOUNT);
    files::make_directory(&target, 0o711)?;
    // With discard, what containers delete shrinks the file on the host.
    let options = Some(c"discard");
    rustix::mount::mount(disk, &target, "ext4", MountFlags::NOATIME, options).map_err(|error| {
        GuestError::Mount {
            what: disk.display().to_string(),
            target: target.clone(),
            source: error.into(),
        }
    })?;
    if grows {
        console.say(&format!("growing the data disk to {size}"));
        root_disk::resize(disk, sysroot)?;
    }
    bind_directories(&target, sysroot, config)
}

fn format(disk: &Path, sysroot: &Path) -> Result<(), GuestError> {
    let disk = disk.to_string_lossy();
    // No -F: mke2fs has a last look of its own and refuses what it recognises. Nothing is reserved
    // for root, because everything here is root's.
    let args = [
        "-q",
        "-L",
        DATA_LABEL,
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        &disk,
    ];
    root_program::run(sysroot, "mkfs.ext4", &args, |code| code == 0)
}

/// Repairs what can be repaired without a question, when the disk was not unmounted in order.
fn check(
    console: &mut Console,
    superblock: &Superblock,
    disk: &Path,
    sysroot: &Path,
) -> Result<(), GuestError> {
    match superblock.condition {
        Condition::Clean => return Ok(()),
        Condition::JournalPending => console.say("the data disk was not unmounted: checking it"),
        Condition::Errors => console.say("the data disk has errors on record: checking it"),
    }
    // e2fsck(8): 0 is clean, 1 is repaired; 2 and above want a reboot or a person.
    let disk = disk.to_string_lossy();
    root_program::run(sysroot, "e2fsck", &["-p", &disk], |code| code <= 1)
}

/// Puts the runtimes' directories on the data disk.
fn bind_directories(data: &Path, sysroot: &Path, config: &BootConfig) -> Result<(), GuestError> {
    for (name, presence) in data_directories(config.runtime) {
        let target = sysroot.join("var/lib").join(name);
        match presence {
            Presence::IfThere if !target.is_dir() => continue,
            Presence::IfThere | Presence::Made => files::make_directory(&target, 0o711)?,
        }
        let source = data.join(name);
        files::make_directory(&source, 0o711)?;
        rustix::mount::mount_bind(&source, &target).map_err(|error| GuestError::Mount {
            what: source.display().to_string(),
            target,
            source: error.into(),
        })?;
    }
    Ok(())
}
