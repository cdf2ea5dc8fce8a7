//! The host's requests about mounts: records for the mounts' own processes, and systemd, which looks after those.

use std::{fs, io, path::Path, process::Output, time::Duration};

use colima_core::mounts::{GuestMount, MountState};
use rustix::mount::UnmountFlags;
use tokio::{process::Command, sync::Mutex, time::timeout};

use crate::{
    mount_records::{self, DIRECTORY, is_mounted, on_top, record, trouble, unit},
    mount_table,
};

/// Longest wait for systemd. It gives a mount less ([`crate::guest_files::mount_unit`]).
const DEADLINE: Duration = Duration::from_secs(90);

/// One change at a time.
static CHANGE: Mutex<()> = Mutex::const_new(());

/// Mounts, and returns when it is mounted.
pub(super) async fn mount(mount: GuestMount) -> Result<(), String> {
    if !mount.is_valid() {
        return Err(format!("{:?} cannot be mounted", mount.path));
    }
    let _one = CHANGE.lock().await;
    let directory = Path::new(DIRECTORY);
    match mount_records::read(directory, mount.port) {
        Ok(there) if there != mount => {
            return Err(format!("port {} mounts {:?}", mount.port, there.path));
        }
        Ok(_) => {}
        Err(_) => remember(&mount)?,
    }
    if table().await.is_ok_and(|table| is_mounted(&mount, &table)) {
        return Ok(());
    }
    // Waits for a start that is under way.
    let started = systemctl("start", mount.port).await?;
    if started.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&started.stderr);
    let why = fs::read_to_string(trouble(directory, mount.port));
    Err(why.unwrap_or_else(|_| said.trim().to_owned()))
}

/// Writes the record of a mount.
fn remember(mount: &GuestMount) -> Result<(), String> {
    let directory = Path::new(DIRECTORY);
    let text = serde_json::to_vec(mount).map_err(|error| error.to_string())?;
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(record(directory, mount.port), text))
        .map_err(|error| format!("{DIRECTORY}: {error}"))
}

/// Takes a mount away unless somebody uses it.
pub(super) async fn unmount(port: u8) -> Result<(), String> {
    let _one = CHANGE.lock().await;
    let directory = Path::new(DIRECTORY);
    let Ok(mount) = mount_records::read(directory, port) else {
        return Ok(());
    };
    // First: a mount that goes while its record is there comes back.
    let failed = |error: io::Error| format!("{DIRECTORY}: {error}");
    fs::remove_file(record(directory, port)).map_err(failed)?;
    let there = mount.clone();
    let taken = tokio::task::spawn_blocking(move || take_away(&there)).await;
    if let Err(error) = taken.map_err(io::Error::other).flatten() {
        remember(&mount)?;
        return Err(format!("{} is in use: {error}", mount.path));
    }
    // What runs has seen it going; what was trying to mount ends here.
    systemctl("stop", port).await?;
    let _ = fs::remove_file(trouble(directory, port));
    Ok(())
}

/// Tells the mounts.
pub(super) async fn states() -> Result<Vec<MountState>, String> {
    let table = table().await.map_err(|error| error.to_string())?;
    Ok(mount_records::states(Path::new(DIRECTORY), &table))
}

async fn table() -> io::Result<Vec<mount_table::Mounted>> {
    tokio::task::spawn_blocking(|| mount_table::read(mount_table::OWN))
        .await
        .map_err(io::Error::other)?
}

fn take_away(mount: &GuestMount) -> io::Result<()> {
    let table = mount_table::read(mount_table::OWN)?;
    let Some(mounted) = on_top(mount, &table) else {
        return Ok(());
    };
    // The kernel knows of users in this namespace alone; a container has copies of its own.
    if let Some(user) = user_elsewhere(&mounted.device)? {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, user));
    }
    match rustix::mount::unmount(&mount.path, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "a program of the guest has files of it open, or works in it",
        )),
        result => Ok(result?),
    }
}

/// A process of another mount namespace in which this file system is mounted, in words.
fn user_elsewhere(device: &str) -> io::Result<Option<String>> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let mut seen = vec![own];
    for process in fs::read_dir("/proc")?.flatten() {
        let process = process.path();
        // Processes end while they are looked at, and threads of the kernel have nothing.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if seen.contains(&namespace) {
            continue;
        }
        seen.push(namespace);
        let Ok(table) = mount_table::read(&process.join("mountinfo").to_string_lossy()) else {
            continue;
        };
        if table.iter().any(|mounted| mounted.device == device) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let number = process.file_name().unwrap_or_default().to_string_lossy();
            let name = name.trim_end();
            return Ok(Some(format!(
                "process {number} ({name}) of a container has it"
            )));
        }
    }
    Ok(None)
}

async fn systemctl(verb: &str, port: u8) -> Result<Output, String> {
    let unit = unit(port);
    let mut command = Command::new("systemctl");
    command.args([verb, &unit]).kill_on_drop(true);
    match timeout(DEADLINE, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(format!("systemctl: {error}")),
        Err(_) => Err(format!("systemctl {verb} {unit} did not end in time")),
    }
}
