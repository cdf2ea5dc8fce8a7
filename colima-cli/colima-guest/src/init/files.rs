//! Writes the configuration into the root file system.
//!
//! A file is written only when its content changes: a boot with the same configuration leaves the
//! root disk's overlay as it is.

use std::{
    ffi::{CStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
        symlink,
    },
    path::Path,
};

use colima_core::{
    boot::{BootConfig, CONFIG_PATH, GUEST_PROGRAM, Provision, ProvisionMode, SshListen, User},
    mounts::GuestMount,
};
use rustix::mount::MountFlags;

use super::{in_root, restarting};
use crate::{
    GuestError,
    accounts::{AccountFiles, with_user},
    guest_files::{
        DataDisk, MASK_DIRECTORY, RUNTIME_ENVIRONMENT, Restarting, agent_unit, environment, hosts,
        masked_units, mount_order, mount_unit, provision_unit, resolv_conf, runtime_environment,
        ssh_port, sudoers, with_block,
    },
    mount_records, provision,
};

/// Mounts the `/run` that systemd will find.
pub(super) fn mount_run(sysroot: &Path) -> Result<(), GuestError> {
    mount_tmpfs(&sysroot.join("run"), c"mode=0755,size=20%")
}

/// Mounts `/tmp` as Debian's `tmp.mount` would, which then need not run a program to do it. A unit of
/// that name in `/etc`, a mask for one, means that the user wants it otherwise.
pub(super) fn mount_tmp(sysroot: &Path) -> Result<(), GuestError> {
    let target = sysroot.join("tmp");
    let is_ours = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let changed = fs::symlink_metadata(in_root(sysroot, "/etc/systemd/system/tmp.mount")).is_ok();
    if changed || !is_ours(&target) {
        return Ok(());
    }
    mount_tmpfs(&target, c"mode=1777,size=50%,nr_inodes=1m")
}

fn mount_tmpfs(target: &Path, options: &CStr) -> Result<(), GuestError> {
    make_directory(target, 0o755)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", target, "tmpfs", flags, Some(options)).map_err(|error| {
        GuestError::Mount {
            what: "tmpfs".into(),
            target: target.to_owned(),
            source: error.into(),
        }
    })
}

/// Writes everything that the configuration says.
pub(super) fn configure(
    sysroot: &Path,
    config: &BootConfig,
    data: DataDisk,
) -> Result<(), GuestError> {
    let at = |path: &str| in_root(sysroot, path);
    make_directory(&at("/run/colima"), 0o755)?;
    copy_program(&at(GUEST_PROGRAM))?;
    copy(Path::new(CONFIG_PATH), &at("/run/colima/boot.json"), 0o600)?;
    write(
        &at(RUNTIME_ENVIRONMENT),
        runtime_environment(&config.env).as_bytes(),
        0o600,
    )?;

    let units = at("/run/systemd/system");
    make_directory(&units.join("sysinit.target.wants"), 0o755)?;
    write(
        &units.join("colima-agent.service"),
        agent_unit().as_bytes(),
        0o644,
    )?;
    link(
        "../colima-agent.service",
        &units.join("sysinit.target.wants/colima-agent.service"),
    )?;
    if config.ssh_listen == SshListen::Port {
        let drop_ins = units.join("colima-sshd.socket.d");
        make_directory(&drop_ins, 0o755)?;
        write(
            &drop_ins.join("port.conf"),
            ssh_port(&config.network).as_bytes(),
            0o644,
        )?;
    }
    write_mounts(sysroot, &units, &config.mounts)?;
    let early = |script: &Provision| script.mode != ProvisionMode::Ready;
    if config.provision.iter().any(early) {
        make_directory(&units.join("multi-user.target.wants"), 0o755)?;
        write(
            &units.join(provision::UNIT),
            provision_unit().as_bytes(),
            0o644,
        )?;
        link(
            &format!("../{}", provision::UNIT),
            &units.join("multi-user.target.wants").join(provision::UNIT),
        )?;
    }
    let masks = at(MASK_DIRECTORY);
    for unit in masked_units(config.runtime, data) {
        make_directory(&masks, 0o755)?;
        link("/dev/null", &masks.join(unit))?;
    }

    write(
        &at("/etc/hostname"),
        format!("{}\n", config.host_name).as_bytes(),
        0o644,
    )?;
    write_machine_id(&at("/etc/machine-id"))?;
    write_block(
        &at("/etc/hosts"),
        &hosts(&config.host_name, &config.network, &config.hosts),
    )?;
    replace_link(&at("/etc/resolv.conf"))?;
    write(
        &at("/etc/resolv.conf"),
        resolv_conf(&config.network).as_bytes(),
        0o644,
    )?;
    write_block(&at("/etc/environment"), &environment(&config.env))?;
    make_directory(&at("/etc/docker"), 0o755)?;
    write(
        &at("/etc/docker/daemon.json"),
        config.docker_daemon_json.as_bytes(),
        0o644,
    )?;
    make_directory(&at("/etc/ssh"), 0o755)?;
    write(
        &at("/etc/ssh/colima_host_key"),
        with_newline(&config.ssh_host_key).as_bytes(),
        0o600,
    )?;
    let keys: String = config
        .ssh_authorized_keys
        .iter()
        .map(|key| with_newline(key))
        .collect();
    write(
        &at("/etc/ssh/colima_authorized_keys"),
        keys.as_bytes(),
        0o644,
    )?;
    write_user(sysroot, &config.user)
}

/// Writes the records of mounts, and the units that mount them.
fn write_mounts(sysroot: &Path, units: &Path, mounts: &[GuestMount]) -> Result<(), GuestError> {
    write(
        &units.join("colima-mount@.service"),
        mount_unit().as_bytes(),
        0o644,
    )?;
    let records = in_root(sysroot, mount_records::DIRECTORY);
    make_directory(&records, 0o700)?;
    let restarting = match mounts {
        [] => Restarting::None,
        _ => restarting::look(sysroot),
    };
    for mount in mounts {
        let record = serde_json::to_vec(mount).map_err(|error| GuestError::Config {
            what: error.to_string(),
        })?;
        write(&mount_records::record(&records, mount.port), &record, 0o600)?;
        let unit = mount_records::unit(mount.port);
        link(
            "../colima-mount@.service",
            &units.join("sysinit.target.wants").join(&unit),
        )?;
    }
    if let Some(order) = mount_order(restarting) {
        let directory = units.join("colima-mount@.service.d");
        make_directory(&directory, 0o755)?;
        write(&directory.join("order.conf"), order.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

fn write_user(sysroot: &Path, user: &User) -> Result<(), GuestError> {
    let at = |path: &str| in_root(sysroot, path);
    let before = AccountFiles {
        passwd: read_or_empty(&at("/etc/passwd"))?,
        group: read_or_empty(&at("/etc/group"))?,
        shadow: read_or_empty(&at("/etc/shadow"))?,
    };
    let after = with_user(&before, user);
    // The shadow file keeps Debian's owner, root:shadow.
    write(&at("/etc/group"), after.group.as_bytes(), 0o644)?;
    write(&at("/etc/shadow"), after.shadow.as_bytes(), 0o640)?;
    write(&at("/etc/passwd"), after.passwd.as_bytes(), 0o644)?;
    make_directory(&at("/etc/sudoers.d"), 0o750)?;
    write(
        &at("/etc/sudoers.d/colima"),
        sudoers(&user.name).as_bytes(),
        0o440,
    )?;
    make_home(sysroot, user)
}

/// Makes the home directory with the files that new accounts get; one that is there stays as it is.
fn make_home(sysroot: &Path, user: &User) -> Result<(), GuestError> {
    let home = in_root(sysroot, &user.home);
    if home.is_dir() {
        return Ok(());
    }
    make_directory(&home, 0o755)?;
    let own = |path: &Path| {
        chown(path, Some(user.uid), Some(user.gid)).map_err(|source| GuestError::WriteFile {
            path: path.to_owned(),
            source,
        })
    };
    let skeleton = fs::read_dir(sysroot.join("etc/skel"));
    for entry in skeleton.into_iter().flatten().flatten() {
        let target = home.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            copy(&entry.path(), &target, 0o644)?;
            own(&target)?;
        }
    }
    // Last: a home that has its owner is complete.
    own(&home)
}

/// Writes `content` with these permissions unless the file has both already.
///
/// The new content replaces the old at once, and an existing file keeps its owner.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), GuestError> {
    let failed = |source| GuestError::WriteFile {
        path: path.to_owned(),
        source,
    };
    let existing = fs::symlink_metadata(path).ok();
    if let Some(metadata) = &existing
        && metadata.is_file()
        && metadata.mode() & 0o7777 == mode
        && metadata.len() == content.len() as u64
        && fs::read(path).is_ok_and(|found| found == content)
    {
        return Ok(());
    }
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".colima-new");
    let new = path.with_file_name(name);
    let replace = || -> io::Result<()> {
        let _ = fs::remove_file(&new); // left by a boot that was cut short
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        if let Some(metadata) = &existing {
            std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    replace().map_err(failed)
}

pub(super) fn write_block(path: &Path, block: &str) -> Result<(), GuestError> {
    let old = read_or_empty(path)?;
    write(path, with_block(&old, block).as_bytes(), 0o644)
}

fn read_or_empty(path: &Path) -> Result<String, GuestError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(GuestError::ReadFile {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Gives the installation its identity (machine-id(5)): once, so that it stays the same from boot to boot.
fn write_machine_id(path: &Path) -> Result<(), GuestError> {
    if read_or_empty(path)?.trim_end().len() == 32 {
        return Ok(());
    }
    let random = Path::new("/proc/sys/kernel/random/uuid");
    write(path, machine_id(&read_or_empty(random)?).as_bytes(), 0o444)
}

/// A UUID without its dashes is what that file holds.
fn machine_id(uuid: &str) -> String {
    uuid.replace('-', "")
}

/// Removes a link, such as Debian's `/etc/resolv.conf`, that would lead our file elsewhere.
fn replace_link(path: &Path) -> Result<(), GuestError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if is_link {
        fs::remove_file(path).map_err(|source| GuestError::WriteFile {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Makes a directory, its parents with the usual permissions, and leaves an existing one alone.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), GuestError> {
    let failed = |source| GuestError::WriteFile {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(failed)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed),
    }
}

fn link(target: &str, path: &Path) -> Result<(), GuestError> {
    symlink(target, path).map_err(|source| GuestError::WriteFile {
        path: path.to_owned(),
        source,
    })
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), GuestError> {
    let content = fs::read(from).map_err(|source| GuestError::ReadFile {
        path: from.to_owned(),
        source,
    })?;
    write(to, &content, mode)
}

/// Copies this program onto the tmpfs, where the agent runs it after the initramfs is gone.
fn copy_program(to: &Path) -> Result<(), GuestError> {
    let failed = |source| GuestError::WriteFile {
        path: to.to_owned(),
        source,
    };
    let mut own = File::open("/proc/self/exe").map_err(failed)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .map_err(failed)?;
    io::copy(&mut own, &mut file).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine-id");
        for empty in ["", "uninitialized\n"] {
            fs::write(&path, empty).unwrap();
            write_machine_id(&path).unwrap();
            let id = fs::read_to_string(&path).unwrap();
            assert!(id.ends_with('\n'));
            assert_eq!(id.trim_end().len(), 32);
            assert!(id.trim_end().chars().all(|c| c.is_ascii_hexdigit()));
            write_machine_id(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), id);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn the_same_content_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"one", 0o640).unwrap();
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.mode() & 0o7777, 0o640);
        write(&path, b"one", 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino(), "untouched");
        write(&path, b"two", 0o640).unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), first.ino(), "replaced");
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing left beside it"
        );
    }
}
