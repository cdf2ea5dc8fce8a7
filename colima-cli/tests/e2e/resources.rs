//! Processors, memory and disk: what was asked for is what is inside, and no more.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use colima_core::Bytes;

use super::{
    command::{PATIENCE, Run},
    world::{IMAGE, OTHER_PROFILE, PROFILE, World},
};

/// What one start asks for.
pub(crate) struct Setting {
    pub(crate) cpus: u32,
    pub(crate) memory: Bytes,
    pub(crate) disk: Bytes,
}

impl Setting {
    /// `colima start` with this setting, for a machine that is stopped.
    pub(crate) fn start(&self, world: &World, profile: &str) {
        self.start_command(world, profile).ok();
    }

    pub(crate) fn start_command(&self, world: &World, profile: &str) -> Run {
        let cpus = self.cpus.to_string();
        let memory = self.memory.to_string();
        let disk = self.disk.to_string();
        let arguments = [
            "start",
            "--profile",
            profile,
            "--cpus",
            &cpus,
            "--memory",
            &memory,
        ];
        world.colima(arguments).args(["--disk", &disk])
    }

    /// The guest sees it: what kernel and file system keep for themselves is at most an eighth.
    pub(crate) fn is_inside(&self, world: &World, profile: &str) {
        let script = "nproc; sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; \
                      df --block-size=1 --output=size /var/lib/docker | tail -n 1";
        let inside = world.guest(profile, script);
        let mut numbers = inside.lines().map(|line| {
            let number: u64 = line.trim().parse().unwrap_or_else(|_| panic!("{inside}"));
            number
        });
        let mut next = || numbers.next().unwrap_or_else(|| panic!("{inside}"));
        assert_eq!(next(), u64::from(self.cpus), "nproc: {inside}");
        let nearly = |wanted: Bytes, found: u64, what: &str| {
            let wanted = wanted.get();
            let range = wanted / 8 * 7..=wanted;
            assert!(range.contains(&found), "{what}: {found} bytes of {wanted}");
        };
        nearly(self.memory, next() * 1024, "MemTotal");
        nearly(self.disk, next(), "/var/lib/docker");
    }
}

/// A container that wants more than there is: the kernel ends it, and nothing else.
pub(crate) fn beyond_memory_only_the_container_dies(world: &World) {
    world.machine_runs();
    world.idle_container("bystander");
    let boot = boot_id(world, PROFILE);
    // One buffer of nearly all the memory there is, which read(2) then really needs. More than all would
    // be refused when it is asked for.
    let script = "total=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
        exec dd if=/dev/zero of=/dev/null count=1 bs=$((total - 1024))K";
    let hungry = world.docker(["run", "--rm", IMAGE, "sh", "-c", script]);
    hungry.limit(2 * PATIENCE).exits(137);
    assert_eq!(boot_id(world, PROFILE), boot);
    let running = [
        "container",
        "inspect",
        "--format",
        "{{.State.Running}}",
        "bystander",
    ];
    assert_eq!(world.docker(running).ok().text(), "true");
    let status = world.status().expect("it runs");
    assert_eq!(status["state"], "running", "{status}");
}

/// A disk that is full is an error inside; its file on the host stays within bounds.
pub(crate) fn a_full_disk_is_an_error_inside(world: &World, setting: &Setting) {
    let fill =
        "dd if=/dev/zero of=/var/lib/docker/full bs=1M 2>&1; stat -c %s /var/lib/docker/full";
    let said = world.guest(OTHER_PROFILE, fill);
    assert!(said.contains("No space left on device"), "{said}");
    let file = data_disk(world, OTHER_PROFILE);
    let allocated = fs::metadata(&file).expect("it is there").blocks() * 512;
    let bound = setting.disk.get() + setting.disk.get() / 8;
    assert!(
        allocated <= bound,
        "{allocated} bytes on the host, {bound} at most"
    );
    world.guest(OTHER_PROFILE, "rm /var/lib/docker/full && sync");
    let status = world
        .colima(["status", "--json", "--profile", OTHER_PROFILE])
        .ok()
        .json();
    assert_eq!(status["state"], "running", "{status}");
}

/// Nothing is changed by asking for a smaller disk than there is, not even what the profile wants.
pub(crate) fn a_shrink_is_refused(world: &World) {
    world.machine_is_stopped();
    let config = world.home.join(PROFILE).join("colima.yaml");
    let state = || {
        let disk = fs::metadata(data_disk(world, PROFILE)).expect("it is there");
        let text = fs::read_to_string(&config).expect("it is there");
        (disk.mtime_nsec(), disk.mtime(), disk.len(), text)
    };
    let before = state();
    let refused = world.colima(["start", "--disk", "5"]).exits(2);
    assert!(refused.complaint().contains("cannot shrink"), "{refused}");
    assert!(super::process::machines(&world.home, PROFILE).is_empty());
    assert_eq!(state(), before);
}

/// Tells one boot from another.
pub(crate) fn boot_id(world: &World, profile: &str) -> String {
    world.guest(profile, "cat /proc/sys/kernel/random/boot_id")
}

fn data_disk(world: &World, profile: &str) -> PathBuf {
    let instance = match profile {
        PROFILE => "colima".to_owned(),
        other => format!("colima-{other}"),
    };
    world.home.join("_disks").join(instance).join("data.qcow2")
}
