//! What survives what: stops, deletes, kills, and two commands at once.

use rustix::process::Signal;

use super::{
    command::{PATIENCE, Run},
    process,
    resources::{Setting, boot_id},
    world::{BOOT, IMAGE, OTHER_PROFILE, PROFILE, World, free_port},
};

const KEPT_CONTAINER: &str = "kept";

/// A container, an image and a volume with something in each.
pub(crate) fn leave_something(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", KEPT_CONTAINER]).finish();
    let script = "echo volume > /volume/file; echo container > /file; exec sleep 1000000";
    let run = [
        "run",
        "--detach",
        "--init",
        "--restart",
        "always",
        "--name",
        KEPT_CONTAINER,
    ];
    world
        .docker(run)
        .args(["--volume", "kept-volume:/volume", IMAGE, "sh", "-c", script])
        .ok();
    world.docker(["tag", IMAGE, "kept:image"]).ok();
}

/// All of it is still there, and the container runs by itself.
pub(crate) fn it_is_still_there(world: &World) {
    world.machine_runs();
    let format = "{{.State.Running}}";
    let running = ["container", "inspect", "--format", format, KEPT_CONTAINER];
    assert_eq!(world.docker(running).ok().text(), "true");
    let files = ["exec", KEPT_CONTAINER, "cat", "/file", "/volume/file"];
    assert_eq!(world.docker(files).ok().text(), "container\nvolume");
    world.docker(["image", "inspect", "kept:image"]).ok();
}

/// Machine and containers do not notice, and the next command brings the relay back.
pub(crate) fn a_killed_daemon_is_replaced(world: &World) {
    world.machine_runs();
    world.idle_container("idle");
    let started = [
        "container",
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        "idle",
    ];
    let before = (
        boot_id(world, PROFILE),
        world.docker(started).ok().text().to_owned(),
        world.qemu(PROFILE).pid,
    );
    let daemon = world.daemon(PROFILE);
    daemon.kill();
    assert!(
        !world.docker(["version"]).finish().status.success(),
        "who relays?"
    );
    let status = world
        .colima(["status", "--json"])
        .limit(PATIENCE)
        .ok()
        .json();
    assert_eq!(status["state"], "running", "{status}");
    let after = (
        boot_id(world, PROFILE),
        world.docker(started).ok().text().to_owned(),
        world.qemu(PROFILE).pid,
    );
    assert_eq!(after, before);
    assert_ne!(world.daemon(PROFILE).pid, daemon.pid);
    world.docker(["exec", "idle", "true"]).ok();
}

/// What was typed while it ran counts from the next boot on.
pub(crate) fn a_restart_is_a_new_boot(world: &World) {
    world.machine_runs();
    let before = boot_id(world, PROFILE);
    world.colima(["start", "--cpus", "2"]).ok();
    let mut events = world.colima(["events"]).spawn();
    events.wait_for_stdout("running");
    world.colima(["restart"]).ok();
    for state in ["stopping", "stopped", "starting"] {
        events.wait_for_stdout(state);
    }
    events.process().signal(Signal::INT);
    let told = events.finish(PATIENCE);
    assert_eq!(told.text().matches("running").count(), 2, "{told}");
    assert_ne!(boot_id(world, PROFILE), before);
    assert_eq!(world.guest(PROFILE, "nproc"), "2");
    it_is_still_there(world);
}

/// The truth is told about a machine that died, its docker context is taken back, and it starts again;
/// this time in the foreground, where Ctrl-C stops it as `stop` does.
pub(crate) fn a_killed_machine_is_told_and_starts_again(world: &World) {
    world.machine_runs();
    world.qemu(PROFILE).kill();
    world.colima(["status"]).exits(3);
    world.colima(["stop"]).ok();
    super::command_line::is_stopped(world);
    let mut foreground = world.colima(["start", "--foreground"]).spawn();
    foreground.wait_for_stderr("in the foreground");
    assert_eq!(world.current_context(), "colima");
    it_is_still_there(world);
    foreground.process().signal(Signal::INT);
    let ended = foreground.finish(BOOT);
    assert!(ended.status.success(), "{ended}");
    assert!(ended.complaint().contains("suspended colima"), "{ended}");
    super::command_line::is_stopped(world);
}

/// Two starts of one profile are one machine, and both succeed.
pub(crate) fn two_starts_are_one_machine(world: &World, setting: &Setting) {
    let begin = || setting.start_command(world, PROFILE).spawn();
    let (first, second) = (begin(), begin());
    for started in [first.finish(BOOT), second.finish(BOOT)] {
        assert!(started.status.success(), "{started}");
    }
    assert_eq!(process::machines(&world.home, PROFILE).len(), 1);
    assert_eq!(process::daemons(&world.home, PROFILE).len(), 1);
}

/// A machine with a port of loopback for any ssh client, which finds the key that was pinned for it; its server is no
/// port of the machine's that appears on the host.
pub(crate) fn a_port_for_ssh(world: &World, setting: &Setting) {
    let port = free_port().to_string();
    let start = setting.start_command(world, OTHER_PROFILE);
    start.args(["--ssh-port", &port]).ok();
    let directory = world.home.join(OTHER_PROFILE);
    let known = format!(
        "UserKnownHostsFile={}",
        directory.join("ssh_known_hosts").display()
    );
    let user = world
        .colima(["ssh", "--profile", OTHER_PROFILE, "--", "id", "-un"])
        .ok();
    let ssh = Run::new("ssh")
        .args([
            "-F",
            "/dev/null",
            "-p",
            &port,
            "-l",
            user.text(),
            "-o",
            &known,
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "HostKeyAlias=colima-small",
            "-i",
        ])
        .args([world.home.join("_ssh/id_ed25519")])
        .args(["127.0.0.1", "cat", "/etc/hostname"]);
    assert_eq!(ssh.ok().text(), "colima-small");
    let ports = world
        .colima(["port", "list", "--profile", OTHER_PROFILE])
        .ok();
    assert!(!ports.text().contains("61022"), "{ports}");
    // It is asked for by the file from now on.
    let started = world.colima(["start", "--profile", OTHER_PROFILE]).ok();
    assert!(!started.complaint().contains("ssh-port"), "{started}");
}

/// Two machines, each with its own docker; the one that was started last is current.
pub(crate) fn profiles_are_apart(world: &World) {
    assert_eq!(world.current_context(), format!("colima-{OTHER_PROFILE}"));
    assert_ne!(boot_id(world, PROFILE), boot_id(world, OTHER_PROFILE));
    let images = |context| {
        let list = [
            "--context",
            context,
            "image",
            "ls",
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ];
        world.docker(list).ok().text().to_owned()
    };
    assert!(images("colima").contains("kept:image"));
    assert_eq!(images(&format!("colima-{OTHER_PROFILE}")), "");
    let listed = world.colima(["list", "--json"]).ok();
    assert_eq!(listed.text().matches("\"Running\"").count(), 2, "{listed}");
}
