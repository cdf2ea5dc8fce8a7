//! The verbs, as people and scripts use them.

use super::{
    command::Run,
    world::{IMAGE, PROFILE, World},
};

/// The docker context that is current before the first start, and has to be again after every stop.
pub(crate) const PREVIOUS_CONTEXT: &str = "before-colima";

pub(crate) fn first_start(world: &World) {
    world
        .docker(["context", "rm", "--force", PREVIOUS_CONTEXT])
        .finish();
    let host = "host=unix:///nonexistent/docker.sock";
    world
        .docker(["context", "create", PREVIOUS_CONTEXT, "--docker", host])
        .ok();
    world.docker(["context", "use", PREVIOUS_CONTEXT]).ok();
    let started = world
        .colima(["start", "--cpus", "2", "--memory", "2", "--disk", "10"])
        .ok();
    assert!(started.stdout.is_empty(), "progress is no data: {started}");
    for stage in ["preparing the disks", "booting", "is ready"] {
        assert!(started.complaint().contains(stage), "{stage}: {started}");
    }
    super::provision::a_failed_script_is_told(started.complaint());
    assert_eq!(world.current_context(), "colima");
}

pub(crate) fn a_second_start_finds_it_running(world: &World) {
    world.machine_runs();
    let qemu = world.qemu(PROFILE).pid;
    let again = world.colima(["start"]).ok();
    assert!(again.complaint().contains("runs already"), "{again}");
    let differing = world
        .colima(["start", "--cpus", "1", "--save-config=false"])
        .ok();
    assert!(differing.complaint().contains("new cpus"), "{differing}");
    assert_eq!(world.qemu(PROFILE).pid, qemu);
}

pub(crate) fn status_and_list(world: &World) {
    world.machine_runs();
    let status = world.colima(["status", "--json"]).ok().json();
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(status["runtime"], "docker");
    assert_eq!(status["cpu"], 2);
    assert_eq!(status["memory"], 2_u64 << 30);
    assert_eq!(status["disk"], 10_u64 << 30);
    let socket = format!("unix://{}", world.docker_socket(PROFILE).display());
    assert_eq!(status["docker_socket"], *socket);
    let people = world.colima(["status"]).ok();
    assert!(people.text().contains(&socket), "{people}");

    let entry = world.colima(["list", "--json"]).ok().json();
    assert_eq!(entry["name"], PROFILE);
    assert_eq!(entry["status"], "Running");
    assert_eq!(entry["disk"], 10_u64 << 30);
    let table = world.colima(["list"]).ok();
    let row = table.text().lines().find(|line| line.starts_with(PROFILE));
    assert!(row.is_some_and(|row| row.contains("Running")), "{table}");
}

pub(crate) fn ssh_passes_code_input_and_arguments(world: &World) {
    world.machine_runs();
    world.colima(["ssh", "--", "sh", "-c", "exit 7"]).exits(7);
    let input = b"piped\nin\n".to_vec();
    let piped = world.colima(["ssh", "--", "cat"]).stdin(input.clone()).ok();
    assert_eq!(piped.stdout, input);
    let awkward = ["a  b", "it's", "\"quoted\"", "$HOME", "*", ""];
    let printed = world
        .colima(["ssh", "--", "printf", "<%s>"])
        .args(awkward)
        .ok();
    assert_eq!(
        printed.text(),
        awkward.map(|word| format!("<{word}>")).concat()
    );
    let streams = world
        .colima(["ssh", "--", "sh", "-c", "echo out; echo err >&2"])
        .ok();
    assert_eq!(streams.text(), "out");
    assert!(streams.complaint().ends_with("err\n"), "{streams}");
}

/// The host's user, but root, who is the ordinary user `colima` inside.
pub(crate) fn ssh_is_the_hosts_user(world: &World) {
    world.machine_runs();
    let uid = rustix::process::getuid().as_raw();
    let (name, uid) = match uid {
        0 => ("colima".to_owned(), 1000),
        uid => (Run::new("id").args(["-un"]).ok().text().to_owned(), uid),
    };
    let inside = |command: &[&str]| {
        let run = world.colima(["ssh", "--"]).args(command);
        run.ok().text().to_owned()
    };
    assert_eq!(inside(&["id", "-un"]), name);
    assert_eq!(inside(&["id", "-u"]), uid.to_string());
    let groups = inside(&["id", "-nG"]);
    assert!(groups.split(' ').any(|group| group == "docker"), "{groups}");
    assert_eq!(inside(&["sudo", "-n", "id", "-u"]), "0");
    let images = inside(&["docker", "image", "inspect", "--format", "{{.Os}}", IMAGE]);
    assert_eq!(images, "linux");
}

pub(crate) fn version_logs_completion(world: &World) {
    world.machine_runs();
    let version = world.colima(["version"]).ok();
    for line in ["colima version ", "image: ", "docker: "] {
        assert!(version.text().contains(line), "{line}: {version}");
    }
    let serial = world.colima(["logs", "--serial", "--lines", "100000"]).ok();
    assert!(
        serial.text().contains("handing over to systemd"),
        "{serial}"
    );
    world.colima(["logs"]).ok();
    let script = world.colima(["completion", "bash"]).ok();
    Run::new("bash").args(["-n"]).stdin(script.stdout).ok();
}

pub(crate) fn an_overriding_variable_is_pointed_out(world: &World) {
    world.machine_runs();
    let elsewhere = world
        .colima(["start"])
        .env("DOCKER_HOST", "unix:///elsewhere.sock")
        .ok();
    assert!(elsewhere.complaint().contains("DOCKER_HOST"), "{elsewhere}");
    let elsewhere = world
        .colima(["start"])
        .env("DOCKER_CONTEXT", "default")
        .ok();
    assert!(
        elsewhere.complaint().contains("DOCKER_CONTEXT"),
        "{elsewhere}"
    );
}

/// The guest powers off by itself when it is asked, and the context of before is current again.
pub(crate) fn stop(world: &World) {
    world.machine_runs();
    let stopped = world.colima(["stop", "--shutdown"]).ok();
    assert!(stopped.complaint().contains("powered off"), "{stopped}");
    assert!(!stopped.complaint().contains("KILL"), "{stopped}");
    is_stopped(world);
    let again = world.colima(["stop"]).ok();
    assert!(again.complaint().contains("is not running"), "{again}");
    world.colima(["ssh", "--", "true"]).exits(3);
    world.colima(["status"]).exits(3);
}

/// Nothing runs, nothing listens, the context is the one of before, and `list` says so.
pub(crate) fn is_stopped(world: &World) {
    assert_eq!(super::process::of_home(&world.home), [""; 0]);
    assert!(
        !world.docker_socket(PROFILE).exists(),
        "docker.sock is left"
    );
    assert_eq!(world.current_context(), PREVIOUS_CONTEXT);
    let entry = world.colima(["list", "--json"]).ok().json();
    assert_eq!(entry["status"], "Stopped", "{entry}");
}
