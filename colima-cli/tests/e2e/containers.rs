//! The real docker command line through the relay: containers and what streams to and from them.

use std::fs;

use super::{
    command::{PATIENCE, Run},
    world::{IMAGE, World, random_bytes},
};

pub(crate) fn version(world: &World) {
    world.machine_runs();
    let format = "{{.Server.Os}} {{.Server.Version}}";
    let finished = world.docker(["version", "--format", format]).ok();
    assert!(finished.text().starts_with("linux "), "{finished}");
}

pub(crate) fn import(world: &World) {
    world.machine_runs();
    world.docker(["rmi", "--force", IMAGE]).finish();
    let imported = world.import_busybox();
    let id = imported.text();
    let format = ["image", "inspect", "--format", "{{.Id}}", IMAGE];
    assert_eq!(world.docker(format).ok().text(), id);
}

pub(crate) fn run_has_two_streams_and_a_code(world: &World) {
    world.machine_runs();
    let script = "echo out; echo err >&2; exit 3";
    let finished = world
        .docker(["run", "--rm", IMAGE, "sh", "-c", script])
        .exits(3);
    assert_eq!(finished.text(), "out");
    assert_eq!(finished.complaint(), "err\n");
}

/// The end of the input arrives in the container, and its output still comes back afterwards.
pub(crate) fn exec_sees_the_end_of_its_input(world: &World) {
    world.machine_runs();
    world.idle_container("idle");
    let input = random_bytes(1 << 20);
    let script = "cat; echo the end >&2";
    let exec = world.docker(["exec", "--interactive", "idle", "sh", "-c", script]);
    let finished = exec.stdin(input.clone()).ok();
    assert!(
        finished.stdout == input,
        "{} bytes came back",
        finished.stdout.len()
    );
    assert_eq!(finished.complaint(), "the end\n");
}

/// script(1) is the terminal on the host's side.
pub(crate) fn an_interactive_terminal(world: &World) {
    world.machine_runs();
    world.idle_container("idle");
    let shell = "stty rows 31 cols 97; exec docker exec --interactive --tty idle sh";
    let terminal = Run::new("script")
        .args(["--quiet", "--return", "--command", shell, "/dev/null"])
        .env("DOCKER_CONFIG", &world.docker_config)
        .without_env("DOCKER_HOST")
        .without_env("DOCKER_CONTEXT")
        .stdin("tty; stty size; echo $((6 * 7)); exit 5\n")
        .exits(5);
    let lines: Vec<&str> = terminal.text().lines().map(str::trim_end).collect();
    for wanted in ["/dev/pts/", "31 97", "42"] {
        assert!(
            lines.iter().any(|line| line.starts_with(wanted)),
            "{wanted}: {terminal}"
        );
    }
}

pub(crate) fn logs_follow_to_the_end_of_the_container(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", "talker"]).finish();
    let script = "mkfifo /go; echo one; cat /go; echo three";
    world
        .docker([
            "run", "--detach", "--name", "talker", IMAGE, "sh", "-c", script,
        ])
        .ok();
    let mut follower = world.docker(["logs", "--follow", "talker"]).spawn();
    follower.wait_for_stdout("one\n");
    world
        .docker(["exec", "talker", "sh", "-c", "echo two > /go"])
        .ok();
    follower.wait_for_stdout("three\n");
    let finished = follower.finish(PATIENCE);
    assert!(finished.status.success(), "{finished}");
    assert_eq!(finished.text(), "one\ntwo\nthree");
    world.docker(["rm", "talker"]).ok();
}

/// A client that is killed closes its stream; the container does not notice, others go on.
pub(crate) fn a_killed_client_is_only_its_own_trouble(world: &World) {
    world.machine_runs();
    world.idle_container("idle");
    let mut follower = world
        .docker(["exec", "idle", "sh", "-c", "echo there; exec sleep 1000000"])
        .spawn();
    follower.wait_for_stdout("there\n");
    follower.process().kill();
    drop(follower);
    world.docker(["exec", "idle", "true"]).ok();
}

pub(crate) fn copies_go_both_ways(world: &World) {
    world.machine_runs();
    world.idle_container("idle");
    let there = world.scratch.join("there");
    fs::create_dir_all(there.join("deeper")).expect("scratch can be written");
    let bytes = random_bytes(3 << 20);
    fs::write(there.join("deeper/bytes"), &bytes).expect("scratch can be written");
    let back = world.scratch.join("back");
    let _ = fs::remove_dir_all(&back);
    let (there, back) = (there.to_string_lossy(), back.to_string_lossy());
    world.docker(["cp", &there, "idle:/tmp/copied"]).ok();
    world.docker(["cp", "idle:/tmp/copied", &back]).ok();
    let came_back = fs::read(format!("{back}/deeper/bytes")).expect("copied back");
    assert!(came_back == bytes, "{} bytes came back", came_back.len());
}

pub(crate) fn events_arrive_as_they_happen(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", "seen"]).finish();
    let filter = [
        "events",
        "--since",
        "1",
        "--filter",
        "container=seen",
        "--format",
        "{{.Action}}",
    ];
    let mut events = world.docker(filter).spawn();
    world
        .docker(["run", "--rm", "--name", "seen", IMAGE, "true"])
        .ok();
    for action in ["create\n", "start\n", "die\n", "destroy\n"] {
        events.wait_for_stdout(action);
    }
    events.process().kill();
}
