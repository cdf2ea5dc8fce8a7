//! Process 1 of the initramfs: from a bare kernel to systemd.
//!
//! The steps run in order; each that fails ends the boot with a line on the console, with two
//! exceptions. A data disk that is missing, foreign or broken keeps the container runtime from
//! starting and nothing else, and a clock that cannot be set is only logged.

mod certificates;
mod console;
mod data_disk;
mod files;
mod handover;
mod kernel_modules;
mod network;
mod rehearsal;
mod restarting;
mod root_disk;
mod root_program;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use colima_core::boot::{BootConfig, CONFIG_PATH, DATA_DISK_SERIAL, ROOT_DISK_SERIAL};
use rustix::{
    mount::MountFlags,
    system::RebootCommand,
    time::{ClockId, Timespec, clock_settime},
};

use crate::{
    GuestError, accounts,
    device_events::Watch,
    guest_files::{self, DataDisk},
    status::{InitStatus, STATUS_PATH, Stage, uptime},
};
use console::Console;

pub(crate) use kernel_modules::load_one as load_module;
pub use rehearsal::{ROLE as REHEARSAL_ROLE, rehearse};
pub use root_program::{ROLE, exec_in as exec_in_root};

/// Where the root file system is mounted until it becomes the root.
const SYSROOT: &str = "/sysroot";

/// Longest wait for the root disk; probing is done in milliseconds, so this is for a slow host.
const ROOT_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for a device that is there as soon as the root disk is, unless it is not there at all.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Boots the guest; ends in systemd, or with the power off.
///
/// Whatever goes wrong, panics included, ends with `colima-init: FATAL: ...` on the console and the
/// power off, so that the host sees at once that there is nothing to wait for.
pub fn run() -> ! {
    let mut console = Console::new();
    std::panic::set_hook(Box::new(|panic| {
        power_off(&mut Console::new(), &format!("a defect in init: {panic}"))
    }));
    let Err(error) = boot(&mut console);
    power_off(&mut console, &error.chain())
}

fn power_off(console: &mut Console, what: &str) -> ! {
    console.fatal(what);
    rustix::fs::sync();
    loop {
        // Fails only without CAP_SYS_BOOT, which process 1 has.
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
        std::thread::park();
    }
}

fn boot(console: &mut Console) -> Result<Infallible, GuestError> {
    let mut stages = vec![Stage::now("init")];
    mount_kernel_file_systems(Path::new("/"))?;
    console.open();
    console.say("started");
    let config = read_config(Path::new(CONFIG_PATH))?;
    kernel_modules::load(Path::new("/"))?;
    console.say("modules loaded");

    let mut devices = Watch::new()?;
    let root = devices.disk(ROOT_DISK_SERIAL, ROOT_DEADLINE)?;
    let sysroot = Path::new(SYSROOT);
    root_disk::mount(&root, sysroot)?;
    mount_kernel_file_systems(sysroot)?;
    files::mount_run(sysroot)?;
    files::mount_tmp(sysroot)?;
    rehearsal::begin(sysroot, config.runtime);
    root_disk::grow(console, &root, sysroot)?;
    console.say("root mounted");
    stages.push(Stage::now("root"));

    let failure = devices
        .disk(DATA_DISK_SERIAL, DEVICE_DEADLINE)
        .and_then(|disk| data_disk::prepare(console, &disk, sysroot, &config))
        .err();
    let (data, failure) = match failure {
        None => (DataDisk::Mounted, None),
        Some(error) => {
            let reason = error.chain();
            console.say(&format!("data disk unusable: {reason}"));
            (DataDisk::Unusable, Some(reason))
        }
    };
    console.say("data disk done");
    stages.push(Stage::now("data"));

    let interface = devices.network_interface(DEVICE_DEADLINE)?;
    network::configure(&interface, &config.network)?;
    set_clock(console, config.clock_unix_nanos);
    rustix::system::sethostname(config.host_name.as_bytes()).map_err(|error| {
        GuestError::Kernel {
            step: "set the host name",
            source: error.into(),
        }
    })?;
    drop(devices);

    files::configure(sysroot, &config, data)?;
    certificates::configure(sysroot, &config)?;
    for key in guest_files::unwritable(&config.env) {
        console.say(&format!(
            "left out the variable {key:?}: its name or value cannot be written"
        ));
    }
    console.say("configured");
    stages.push(Stage::now("configured"));
    let status = InitStatus {
        version: InitStatus::VERSION,
        runtime: config.runtime,
        failure,
        stages,
    };
    let record = serde_json::to_vec(&status).map_err(|error| GuestError::Config {
        what: error.to_string(),
    })?;
    files::write(&in_root(sysroot, STATUS_PATH), &record, 0o600)?;
    console.say("handing over to systemd");
    handover::switch_root(sysroot, Path::new("/sbin/init"))
}

/// Mounts `/dev`, `/proc` and `/sys` below `root`.
fn mount_kernel_file_systems(root: &Path) -> Result<(), GuestError> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (kind, directory, flags) in [
        ("devtmpfs", "dev", MountFlags::NOSUID),
        ("proc", "proc", safe),
        ("sysfs", "sys", safe),
    ] {
        let target = root.join(directory);
        files::make_directory(&target, 0o755)?;
        match rustix::mount::mount(kind, &target, kind, flags, None) {
            // The kernel may have mounted devtmpfs itself (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => {
                return Err(GuestError::Mount {
                    what: kind.to_owned(),
                    target,
                    source: error.into(),
                });
            }
        }
    }
    Ok(())
}

/// Reads the configuration and refuses what this program does not know.
fn read_config(path: &Path) -> Result<BootConfig, GuestError> {
    let text = std::fs::read(path).map_err(|source| GuestError::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    parse_config(&text).map_err(|what| GuestError::Config { what })
}

fn parse_config(text: &[u8]) -> Result<BootConfig, String> {
    let config: BootConfig = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if config.version != BootConfig::VERSION {
        return Err(format!(
            "its version is {}, this program knows {}",
            config.version,
            BootConfig::VERSION
        ));
    }
    if !accounts::is_valid(&config.user) {
        return Err(format!(
            "no account can be made for the user {:?}",
            config.user.name
        ));
    }
    if config.network.prefix > 32 {
        return Err(format!(
            "the network's prefix is {} bits long",
            config.network.prefix
        ));
    }
    if let Some(mount) = config.mounts.iter().find(|mount| !mount.is_valid()) {
        return Err(format!("{:?} cannot be mounted", mount.path));
    }
    let host_name = &config.host_name;
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if host_name.is_empty() || host_name.len() > 64 || !host_name.chars().all(label) {
        return Err(format!("{host_name:?} is no host name"));
    }
    Ok(config)
}

/// Sets the clock when it is certainly wrong.
fn set_clock(console: &mut Console, unix_nanos: u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let Some(wanted) = clock_to_set(now, Duration::from_nanos(unix_nanos), uptime()) else {
        return;
    };
    let Ok(tv_sec) = i64::try_from(wanted.as_secs()) else {
        return;
    };
    let time = Timespec {
        tv_sec,
        tv_nsec: i64::from(wanted.subsec_nanos()),
    };
    match clock_settime(ClockId::Realtime, time) {
        Ok(()) => console.say("clock set"),
        Err(error) => console.say(&format!("the clock cannot be set: {error}")),
    }
}

/// The time to set, or `None` where the machine's own clock can be right.
///
/// The host wrote its time some seconds before this kernel started, so the right time lies after
/// that, and not much after that plus our uptime. A clock within those bounds is the better one.
fn clock_to_set(now: Duration, written: Duration, uptime: Duration) -> Option<Duration> {
    const SLACK: Duration = Duration::from_secs(1);
    const SLOWEST_LAUNCH: Duration = Duration::from_secs(120);
    let right = now + SLACK >= written && now <= written + uptime + SLOWEST_LAUNCH;
    (!right).then_some(written + uptime)
}

/// `path` of the booted system, as seen before it is the root.
fn in_root(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edit: impl FnOnce(&mut serde_json::Value)) -> Result<BootConfig, String> {
        let mut value = serde_json::json!({
            "version": 1,
            "host_name": "colima",
            "user": {"name": "ada", "uid": 1000, "gid": 1000, "home": "/home/ada"},
            "ssh_host_key": "", "ssh_authorized_keys": [],
            "network": {"address": "10.0.2.15", "prefix": 24, "gateway": "10.0.2.2", "dns": []},
            "runtime": "docker", "docker_daemon_json": "{}", "env": {}, "clock_unix_nanos": 0,
        });
        edit(&mut value);
        parse_config(value.to_string().as_bytes())
    }

    #[test]
    fn a_clock_is_set_only_when_it_is_wrong() {
        let at = Duration::from_secs;
        let set = |now| clock_to_set(at(now), at(1_000_000), at(9));
        assert_eq!(
            set(1_000_012),
            None,
            "the time since the host wrote is not an error"
        );
        assert_eq!(set(999_999), None);
        assert_eq!(set(999_990), Some(at(1_000_009)), "in the past");
        assert_eq!(set(0), Some(at(1_000_009)), "no clock at all");
        assert_eq!(set(1_003_600), Some(at(1_000_009)), "a clock in local time");
    }

    #[test]
    fn what_the_host_wrote_is_looked_at() {
        assert!(config(|_| {}).is_ok());
        let refused = |edit: fn(&mut serde_json::Value)| config(edit).unwrap_err();
        insta::assert_snapshot!(refused(|v| v["version"] = 9.into()), @"its version is 9, this program knows 1");
        insta::assert_snapshot!(refused(|v| v["user"]["name"] = "a:b".into()), @r#"no account can be made for the user "a:b""#);
        insta::assert_snapshot!(refused(|v| v["network"]["prefix"] = 33.into()), @"the network's prefix is 33 bits long");
        insta::assert_snapshot!(refused(|v| v["host_name"] = "a\nb".into()), @r#""a\nb" is no host name"#);
        assert!(refused(|v| v["surprise"] = 1.into()).contains("surprise"));
    }
}
