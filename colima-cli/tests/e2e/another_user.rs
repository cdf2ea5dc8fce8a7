//! The same as a user who is not root: this program again, with that user's number and a home of its own.

use std::{env, fs, path::PathBuf, time::Duration};

use super::{
    command::Run,
    world::{Form, World},
};

/// What an ordinary user has to be able to do. The long form is everything there is, and the image is
/// built by that user as well.
const SHORT: [&str; 9] = [
    "command_line::first_start",
    "containers::import",
    "containers::run_has_two_streams_and_a_code",
    "command_line::ssh_is_the_hosts_user",
    "mounts::guest_and_host",
    "mounts::containers_have_them",
    "hygiene::everything_is_the_owners_alone",
    "command_line::stop",
    "hygiene::delete_leaves_nothing",
];

pub(crate) fn may_do_the_same(world: &World) {
    world.machine_is_stopped();
    let user = User::add();
    // Not below the checkout, which may be in a directory that is closed to others.
    let copied = [
        ("colima", world.program.clone()),
        ("docker", found_in_path("docker")),
        ("e2e", env::current_exe().expect("it runs")),
    ];
    let guest = format!("colima-guest-{}", env::consts::ARCH);
    let beside = world.program.with_file_name(&guest);
    let bin = user.home.join("bin");
    for (name, from) in copied
        .iter()
        .map(|(name, from)| (*name, from))
        .chain([(&*guest, &beside)])
    {
        fs::copy(from, bin.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let plugins = user.home.join("docker-config/cli-plugins");
    let optional = [
        (
            env::var_os("COLIMA_TEST_REGISTRY").map(PathBuf::from),
            bin.join("docker-registry"),
        ),
        (
            Some(world.docker_config.join("cli-plugins/docker-buildx")),
            plugins.join("docker-buildx"),
        ),
    ];
    let mut registry = None;
    for (from, to) in optional {
        if from.is_some_and(|from| fs::copy(from, &to).is_ok()) && to.starts_with(&bin) {
            registry = Some(to);
        }
    }
    let busybox = user.home.join("busybox");
    Run::new("cp")
        .args(["-a"])
        .args([world.busybox_root(), busybox.clone()])
        .ok();
    if world.form == Form::Short {
        let images = [world.home.join("_images"), user.home.join("state")];
        Run::new("cp").args(["-a"]).args(images).ok();
    }
    user.owns_its_home();

    let path = env::var("PATH").expect("it is set");
    let mut variables = vec![
        ("HOME", user.home.clone().into_os_string()),
        ("USER", user.name.clone().into()),
        ("PATH", format!("{}:{path}", bin.display()).into()),
        ("COLIMA_HOME", user.home.join("state").into()),
        ("COLIMA_CACHE_HOME", user.home.join("cache").into()),
        ("DOCKER_CONFIG", user.home.join("docker-config").into()),
        ("COLIMA_TEST_PROGRAM", bin.join("colima").into()),
        ("COLIMA_TEST_BUSYBOX", busybox.into()),
    ];
    variables.push(("COLIMA_E2E_TRANSPORT", world.transport.clone().into()));
    if let Some(registry) = registry {
        variables.push(("COLIMA_TEST_REGISTRY", registry.into()));
    }
    let mut run = Run::new("setpriv")
        .args([
            "--reuid",
            &user.name,
            "--regid",
            &user.name,
            "--init-groups",
            "--",
        ])
        .args([bin.join("e2e")])
        .without_all_env();
    for (name, value) in variables {
        run = run.env(name, value);
    }
    let (form, words): (_, &[&str]) = match world.form {
        Form::Short => ("1", &SHORT),
        Form::Long => ("long", &[]),
    };
    let finished = run
        .env("COLIMA_E2E", form)
        .args(words)
        .limit(Duration::from_secs(3600))
        .finish();
    let own = |line: &&str| line.starts_with("test ") && !line.contains(" begins ");
    for line in finished.text().lines().filter(own) {
        println!("    {}: {}", user.name, line.trim_start_matches("test "));
    }
    assert!(finished.status.success(), "{finished}");
}

/// A user who exists as long as this value.
struct User {
    name: String,
    home: PathBuf,
}

impl User {
    fn add() -> Self {
        let name = format!("colima-e2e-{}", std::process::id());
        let home = PathBuf::from("/var/tmp").join(&name);
        let add = [
            "--no-create-home",
            "--user-group",
            "--shell",
            "/bin/sh",
            "--home-dir",
        ];
        Run::new("useradd")
            .args(add)
            .args([&home])
            .args([&name])
            .ok();
        let user = Self { name, home };
        for directory in ["bin", "state", "cache", "docker-config/cli-plugins"] {
            fs::create_dir_all(user.home.join(directory)).expect("/var/tmp can be written");
        }
        user
    }

    fn owns_its_home(&self) {
        let owner = format!("{}:", self.name);
        Run::new("chown")
            .args(["--recursive", &owner])
            .args([&self.home])
            .ok();
        let private = ["--recursive", "u=rwX,go="];
        Run::new("chmod")
            .args(private)
            .args([self.home.join("state")])
            .ok();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // What a failed run left must not outlive its user.
        Run::new("pkill")
            .args(["--signal", "KILL", "--uid", &self.name])
            .finish();
        Run::new("userdel").args([&self.name]).finish();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn found_in_path(program: &str) -> PathBuf {
    let path = env::var_os("PATH").expect("it is set");
    let mut places = env::split_paths(&path).map(|place| place.join(program));
    places
        .find(|place| place.is_file())
        .expect("docker is here")
}
