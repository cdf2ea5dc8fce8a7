//! The real docker command line through the relay: images built, moved, pushed and pulled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    command::{PATIENCE, Run},
    world::{Form, IMAGE, World, random_bytes},
};

const SECRET: &str = "not for the image";

pub(crate) fn the_classic_builder(world: &World) {
    world.machine_runs();
    let context = build_context(
        world,
        "FROM busybox:e2e\nCOPY greeting /greeting\nRUN wc -c < /greeting > /length\n",
    );
    let directory = context.to_string_lossy();
    world
        .docker(["build", "--tag", "built:classic", &directory])
        .env("DOCKER_BUILDKIT", "0")
        .limit(2 * PATIENCE)
        .ok();
    let run = [
        "run",
        "--rm",
        "built:classic",
        "cat",
        "/greeting",
        "/length",
    ];
    assert_eq!(world.docker(run).ok().text(), "hello\n6");
}

pub(crate) fn buildkit_with_a_secret(world: &World) {
    world.machine_runs();
    let context = build_context(
        world,
        "FROM busybox:e2e\n\
         RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\n\
         COPY greeting /greeting\n",
    );
    let token = world.scratch.join("token");
    fs::write(&token, SECRET).expect("scratch can be written");
    let secret = format!("id=token,src={}", token.display());
    let directory = context.to_string_lossy();
    let build = [
        "buildx",
        "build",
        "--load",
        "--progress",
        "plain",
        "--secret",
        &secret,
    ];
    world
        .docker(build)
        .args(["--tag", "built:buildkit", &directory])
        .limit(2 * PATIENCE)
        .ok();
    let script = "cat /greeting /length; ls /run/secrets/token";
    let run = ["run", "--rm", "built:buildkit", "sh", "-c", script];
    let finished = world.docker(run).exits(1);
    assert_eq!(finished.text(), format!("hello\n{}", SECRET.len()));
    let history = ["history", "--no-trunc", "built:buildkit"];
    assert!(!world.docker(history).ok().text().contains(SECRET));
}

/// A layer that nothing can compress goes to the host and back and is the same layer.
pub(crate) fn save_and_load_keep_the_digests(world: &World) {
    world.machine_runs();
    let mib = match world.form {
        Form::Short => 32,
        Form::Long => 100,
    };
    let layer = world.scratch.join("layer");
    fs::create_dir_all(&layer).expect("scratch can be written");
    fs::write(layer.join("random"), random_bytes(mib << 20)).expect("scratch can be written");
    let archive = Run::new("tar")
        .args(["-C"])
        .args([&layer])
        .args(["-cf", "-", "."])
        .ok();
    let limit = 5 * PATIENCE;
    let import = world
        .docker(["import", "-", "large:e2e"])
        .stdin(archive.stdout);
    import.limit(limit).ok();
    let before = digests(world, "large:e2e");
    let saved = world.docker(["save", "large:e2e"]).limit(limit).ok();
    assert!(
        saved.stdout.len() > mib << 20,
        "{} bytes saved",
        saved.stdout.len()
    );
    world.docker(["rmi", "large:e2e"]).ok();
    world.docker(["load"]).stdin(saved.stdout).limit(limit).ok();
    assert_eq!(digests(world, "large:e2e"), before);
    world.docker(["rmi", "large:e2e"]).ok();
}

/// Against a registry on the host's loopback, which the guest reaches at its gateway.
pub(crate) fn push_and_pull(world: &World) {
    world.machine_runs();
    let registry = Registry::start(world, world.registry_port, None);
    let name = format!("{}/e2e/busybox:1", world.registry());
    world.docker(["tag", IMAGE, &name]).ok();
    let before = digests(world, &name);
    world
        .docker(["push", "--quiet", &name])
        .limit(2 * PATIENCE)
        .ok();
    world.docker(["rmi", &name]).ok();
    world
        .docker(["pull", "--quiet", &name])
        .limit(2 * PATIENCE)
        .ok();
    assert_eq!(digests(world, &name), before);
    world.docker(["rmi", &name]).ok();
    drop(registry);
}

/// Debian's registry, running on the host for as long as this lives.
pub(super) struct Registry(super::command::Running);

impl Registry {
    /// With certificate and key it speaks TLS.
    pub(super) fn start(world: &World, port: u16, tls: Option<[&Path; 2]>) -> Self {
        let directory = world.scratch.join("registry");
        fs::create_dir_all(&directory).expect("scratch can be written");
        let mut config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": directory } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        if let Some([certificate, key]) = tls {
            config["http"]["tls"] = serde_json::json!({ "certificate": certificate, "key": key });
        }
        // JSON is YAML.
        let path = world.scratch.join(format!("registry-{port}.yml"));
        fs::write(&path, config.to_string()).expect("scratch can be written");
        let program = std::env::var_os("COLIMA_TEST_REGISTRY").expect("looked at before");
        let mut running = Run::new(program).args(["serve"]).args([path]).spawn();
        running.wait_for_stderr("listening on");
        Self(running)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.process().kill();
    }
}

fn build_context(world: &World, dockerfile: &str) -> PathBuf {
    let directory = world.scratch.join("context");
    fs::create_dir_all(&directory).expect("scratch can be written");
    fs::write(directory.join("Dockerfile"), dockerfile).expect("scratch can be written");
    fs::write(directory.join("greeting"), "hello\n").expect("scratch can be written");
    directory
}

/// The image's own digest and those of its layers.
fn digests(world: &World, image: &str) -> String {
    let format = "{{.Id}} {{json .RootFS.Layers}}";
    let inspect = ["image", "inspect", "--format", format, image];
    world.docker(inspect).ok().text().to_owned()
}
