//! containerd as the runtime: its socket on the host, its data on the disk that survives, and a nerdctl of the user's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    command::{PATIENCE, Run},
    resources::Setting,
    world::{IMAGE, OTHER_PROFILE, World},
};

/// What stands in for a nerdctl: it asks the same containerd.
const NERDCTL: &str = "#!/bin/sh\nexec ctr \"$@\"\n";

/// An archive of the image that docker has, as `docker save` writes it.
fn archive(world: &World) -> PathBuf {
    let archive = world.scratch.join("busybox-image.tar");
    if !archive.exists() {
        world.machine_runs();
        let path = archive.to_string_lossy();
        world.docker(["save", "--output", &path, IMAGE]).ok();
    }
    archive
}

/// `ctr` of the host at the profile's socket, or that of the machine where the host has none.
fn ctr(world: &World, arguments: &[&str]) -> Run {
    if !has_ctr() {
        let inside = ["ssh", "--profile", OTHER_PROFILE, "--", "sudo", "ctr"];
        return world.colima(inside).args(arguments).limit(PATIENCE);
    }
    let socket = world.home.join(OTHER_PROFILE).join("containerd.sock");
    Run::new("ctr")
        .args(["--address"])
        .args([socket])
        .args(arguments)
}

pub(crate) fn has_ctr() -> bool {
    Run::new("sh")
        .args(["-c", "command -v ctr"])
        .finish()
        .status
        .success()
}

/// The one image, as containerd names it.
fn image(world: &World) -> String {
    let list = ctr(world, &["images", "list", "--quiet"]).ok();
    let mut names = list.text().lines();
    let name = names.next().expect("an image");
    assert!(name.ends_with(IMAGE), "{list}");
    assert_eq!(names.next(), None, "{list}");
    name.to_owned()
}

/// What a container of it prints.
fn run(world: &World, image: &str, words: &[&str]) -> String {
    let inside = [
        "ssh",
        "--profile",
        OTHER_PROFILE,
        "--",
        "sudo",
        "ctr",
        "run",
        "--rm",
    ];
    let run = world.colima(inside).args([image, "once"]).args(words);
    run.limit(PATIENCE).ok().text().to_owned()
}

pub(crate) fn the_socket_is_the_hosts(world: &World, setting: &Setting) {
    let archive = archive(world);
    world
        .colima(["delete", "--data", "--force", "--profile", OTHER_PROFILE])
        .finish();
    let context = world.current_context();
    let started = setting
        .start_command(world, OTHER_PROFILE)
        .args(["--runtime", "containerd"]);
    started.ok();
    assert_eq!(world.current_context(), context, "containerd is no docker");
    let status = world
        .colima(["status", "--json", "--profile", OTHER_PROFILE])
        .ok()
        .json();
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(status["runtime"], "containerd");
    let socket = world.home.join(OTHER_PROFILE).join("containerd.sock");
    assert_eq!(
        status["containerd_socket"],
        format!("unix://{}", socket.display())
    );
    assert_eq!(status.get("docker_socket"), None);
    assert!(!world.docker_socket(OTHER_PROFILE).exists());
    let version = world.colima(["version", "--profile", OTHER_PROFILE]).ok();
    assert!(version.text().contains("containerd: "), "{version}");
    let units = world.guest(
        OTHER_PROFILE,
        "systemctl is-active docker.service docker.socket || true",
    );
    assert_eq!(units, "inactive\ninactive");

    // By its standard input: the machine need not share the directory.
    let bytes = std::fs::read(&archive).expect("it was saved");
    ctr(world, &["images", "import", "-"]).stdin(bytes).ok();
    let image = image(world);
    assert_eq!(
        run(world, &image, &["echo", "from containerd"]),
        "from containerd"
    );
    let place = world.guest(
        OTHER_PROFILE,
        "findmnt --noheadings --output TARGET --target /var/lib/containerd",
    );
    assert_eq!(place, "/var/lib/containerd", "not on the data disk");
}

/// A program that is not the one that was named is not put into the machine; the right one is, once.
pub(crate) fn a_nerdctl_of_the_users(world: &World) {
    let none = world
        .colima(["nerdctl", "--profile", OTHER_PROFILE, "--", "version"])
        .exits(4);
    assert!(none.complaint().contains("nerdctl.path"), "{none}");
    let path = world.scratch.join("nerdctl");
    fs::write(&path, NERDCTL).expect("scratch can be written");
    let digest = Run::new("sha256sum").args([&path]).ok();
    let digest = digest
        .text()
        .split(' ')
        .next()
        .expect("a digest")
        .to_owned();
    configure(world, &path, &digest.chars().rev().collect::<String>());
    let refused = world.colima(["restart", OTHER_PROFILE]).exits(2);
    assert!(refused.complaint().contains(&digest), "{refused}");
    configure(world, &path, &digest);
    world.colima(["restart", OTHER_PROFILE]).ok();
    let listed = world
        .colima([
            "nerdctl",
            "--profile",
            OTHER_PROFILE,
            "--",
            "images",
            "list",
            "--quiet",
        ])
        .ok();
    assert!(listed.text().ends_with(IMAGE), "{listed}");
}

fn configure(world: &World, path: &Path, digest: &str) {
    let file = world.home.join(OTHER_PROFILE).join("colima.yaml");
    let text = fs::read_to_string(&file).expect("the profile has one");
    let (before, _) = text.split_once("\nnerdctl:").unwrap_or((&text, ""));
    let text = format!(
        "{before}\nnerdctl:\n  path: {}\n  digest: \"{digest}\"\n",
        path.display()
    );
    fs::write(&file, text).expect("our own file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own file");
}

/// Images outlive the machine, and the other runtime, which sees nothing of them.
pub(crate) fn what_it_has_is_kept(world: &World, setting: &Setting) {
    let image = image(world);
    world.colima(["stop", OTHER_PROFILE]).ok();
    let socket = world.home.join(OTHER_PROFILE).join("containerd.sock");
    assert!(!socket.exists(), "the socket is left");
    let docker = setting
        .start_command(world, OTHER_PROFILE)
        .args(["--runtime", "docker"])
        .ok();
    assert!(
        docker.complaint().contains("the runtime was containerd"),
        "{docker}"
    );
    let list = ["--context", "colima-small", "image", "ls", "--quiet"];
    assert_eq!(world.docker(list).ok().text(), "");
    let running = setting
        .start_command(world, OTHER_PROFILE)
        .args(["--runtime", "containerd"])
        .ok();
    assert!(
        running.complaint().contains("applies the new runtime"),
        "{running}"
    );
    world.colima(["restart", OTHER_PROFILE]).ok();
    assert_eq!(self::image(world), image);
    assert_eq!(run(world, &image, &["echo", "again"]), "again");
    world
        .colima(["delete", "--data", "--force", "--profile", OTHER_PROFILE])
        .ok();
}
