//! What the cases work with: the programs, the directories, and the machine they share.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    certificates::Authorities,
    command::{Finished, PATIENCE, Run},
    process::{self, Process},
};

/// A boot under emulation, on a host that does something else as well.
pub(crate) const BOOT: Duration = Duration::from_secs(600);

/// The profile that most cases share.
pub(crate) const PROFILE: &str = "default";

/// A small one beside it.
pub(crate) const OTHER_PROFILE: &str = "small";

/// The image that containers are made from.
pub(crate) const IMAGE: &str = "busybox:e2e";

/// How much is to be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As part of `make test`.
    Short,
    /// With `COLIMA_E2E=long`: larger, and what takes minutes.
    Long,
}

/// What the cases work with.
pub(crate) struct World {
    pub(crate) form: Form,
    pub(crate) program: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) docker_config: PathBuf,
    /// For files of the cases.
    pub(crate) scratch: PathBuf,
    pub(crate) registry_port: u16,
    /// What carries the streams of every machine of the run.
    pub(crate) transport: String,
    pub(crate) certificates: Authorities,
}

impl World {
    /// Takes the directories from the environment that `make test` sets.
    ///
    /// # Panics
    ///
    /// Where one is missing: what the tests delete must not be anybody's own.
    pub(crate) fn from_environment(form: Form) -> Self {
        let needed = |name: &str| -> PathBuf {
            let value = env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
            std::path::absolute(value).expect("the current directory exists")
        };
        let home = needed("COLIMA_HOME");
        let scratch = home.with_file_name("scratch");
        // Of the run before this one.
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).expect("the directory of the tests can be written");
        let built = env!("CARGO_BIN_EXE_colima");
        let program = env::var_os("COLIMA_TEST_PROGRAM").unwrap_or_else(|| built.into());
        Self {
            form,
            program: program.into(),
            cache: needed("COLIMA_CACHE_HOME"),
            docker_config: needed("DOCKER_CONFIG"),
            home,
            scratch,
            registry_port: free_port(),
            certificates: Authorities {
                trusted_by_all: free_port(),
                trusted_by_docker: free_port(),
                trusted_by_none: free_port(),
            },
            transport: env::var("COLIMA_E2E_TRANSPORT").unwrap_or_else(|_| "auto".to_owned()),
        }
    }

    /// A home without profiles, whatever an earlier run left, and with a registry that is trusted. Images
    /// stay: to build one takes minutes.
    pub(crate) fn prepare(&self) {
        self.clear();
        let profile = self.home.join(PROFILE);
        fs::create_dir_all(&profile).expect("the home of the tests can be written");
        let shared = super::mounts::config(&self.shared());
        let config = super::provision::config(&self.registry()) + &shared;
        super::mounts::prepare(self);
        let templates = self.home.join("_templates");
        fs::create_dir_all(&templates).expect("the home of the tests can be written");
        own(&templates, 0o700);
        let template = format!("transport: {}\n", self.transport);
        fs::write(templates.join("default.yaml"), &template).expect("a new file");
        own(&templates.join("default.yaml"), 0o600);
        let authority = self.certificates.prepare(self);
        let config = format!(
            "{config}{template}certificates: [\"{}\"]\n",
            authority.display()
        );
        let file = profile.join("colima.yaml");
        fs::write(&file, config).expect("a new file");
        own(&file, 0o600);
    }

    /// The directory of this host that the shared machine has.
    pub(crate) fn shared(&self) -> PathBuf {
        self.scratch.join("shared")
    }

    /// The home directory of the host's user, as far as the program is told.
    pub(crate) fn host_home(&self) -> PathBuf {
        self.scratch.join("host-home")
    }

    /// Deletes the profiles and everything of theirs.
    pub(crate) fn clear(&self) {
        for profile in [PROFILE, OTHER_PROFILE] {
            let delete = ["delete", "--data", "--force", "--profile", profile];
            self.colima(delete).finish();
        }
    }

    /// The registry on the host's loopback, as the guest names it.
    pub(crate) fn registry(&self) -> String {
        format!("10.0.2.2:{}", self.registry_port)
    }

    /// `colima` with these arguments, for the home of the tests.
    pub(crate) fn colima<const N: usize>(&self, arguments: [&str; N]) -> Run {
        Run::new(&self.program)
            .args(arguments)
            .env("COLIMA_HOME", &self.home)
            .env("COLIMA_CACHE_HOME", &self.cache)
            .env("DOCKER_CONFIG", &self.docker_config)
            // Nobody's own home is shared with a machine of the tests.
            .env("HOME", self.host_home())
            .without_env("COLIMA_PROFILE")
            .without_env("DOCKER_HOST")
            .without_env("DOCKER_CONTEXT")
            .limit(BOOT)
    }

    /// `docker` with these arguments: it finds the machine by the current context, as for everybody.
    pub(crate) fn docker<const N: usize>(&self, arguments: [&str; N]) -> Run {
        Run::new("docker")
            .args(arguments)
            .env("DOCKER_CONFIG", &self.docker_config)
            .without_env("DOCKER_HOST")
            .without_env("DOCKER_CONTEXT")
    }

    /// What a script prints that runs as root in the guest of a profile.
    pub(crate) fn guest(&self, profile: &str, script: &str) -> String {
        let ssh = [
            "ssh",
            "--profile",
            profile,
            "--",
            "sudo",
            "sh",
            "-c",
            script,
        ];
        let run = self.colima(ssh);
        run.limit(PATIENCE).ok().text().to_owned()
    }

    /// The shared machine, started if it does not run, with the image that containers are made from.
    pub(crate) fn machine_runs(&self) {
        if self
            .status()
            .is_none_or(|status| status["state"] != "running")
        {
            self.colima(["start"]).ok();
        }
        if !self
            .docker(["image", "inspect", IMAGE])
            .finish()
            .status
            .success()
        {
            self.import_busybox();
        }
    }

    /// The shared machine is stopped.
    pub(crate) fn machine_is_stopped(&self) {
        self.colima(["stop", "--force"]).ok();
    }

    /// `colima status --json`, `None` where nothing runs.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        self.status_of(PROFILE)
    }

    /// The same of another profile.
    pub(crate) fn status_of(&self, profile: &str) -> Option<serde_json::Value> {
        let finished = self
            .colima(["status", "--json", "--profile", profile])
            .finish();
        finished.status.success().then(|| finished.json())
    }

    /// A container that does nothing, under this name; an older one of that name is gone.
    pub(crate) fn idle_container(&self, name: &str) {
        let running = self
            .docker([
                "container",
                "inspect",
                "--format",
                "{{.State.Running}}",
                name,
            ])
            .finish();
        if running.status.success() && running.text() == "true" {
            return;
        }
        self.docker(["rm", "--force", name]).finish();
        self.docker([
            "run", "--detach", "--init", "--name", name, IMAGE, "sleep", "1000000",
        ])
        .ok();
    }

    /// `docker import` of a root file system with nothing but busybox.
    pub(crate) fn import_busybox(&self) -> Finished {
        let archive = fs::read(self.busybox_archive()).expect("just made");
        self.docker(["import", "-", IMAGE]).stdin(archive).ok()
    }

    /// A directory that is unpacked like the package.
    pub(crate) fn busybox_root(&self) -> PathBuf {
        self.busybox_archive();
        self.scratch.join("busybox")
    }

    fn busybox_archive(&self) -> PathBuf {
        let archive = self.scratch.join("busybox.tar");
        if archive.exists() {
            return archive;
        }
        let root = self.scratch.join("busybox");
        let (bin, etc) = (root.join("bin"), root.join("etc"));
        for directory in [&bin, &etc, &root.join("tmp")] {
            fs::create_dir_all(directory).expect("scratch can be written");
        }
        let busybox = bin.join("busybox");
        fs::copy(busybox_program(), &busybox).expect("COLIMA_TEST_BUSYBOX has a busybox");
        let applets = Run::new(&busybox).args(["--list"]).ok();
        for applet in applets.text().lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a new name");
        }
        fs::write(etc.join("passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a new file");
        let owners = ["--owner=0", "--group=0", "--numeric-owner", "-cf"];
        let run = Run::new("tar").args(["-C"]).args([&root]).args(owners);
        run.args([&archive]).args(["."]).ok();
        archive
    }

    /// The one daemon of a profile.
    pub(crate) fn daemon(&self, profile: &str) -> Process {
        let mut found = process::daemons(&self.home, profile);
        assert_eq!(found.len(), 1, "daemons of {profile}");
        found.remove(0)
    }

    /// The one QEMU of a profile.
    pub(crate) fn qemu(&self, profile: &str) -> Process {
        let mut found = process::machines(&self.home, profile);
        assert_eq!(found.len(), 1, "machines of {profile}");
        found.remove(0)
    }

    /// The name of the current docker context.
    pub(crate) fn current_context(&self) -> String {
        self.docker(["context", "show"]).ok().text().to_owned()
    }

    pub(crate) fn docker_socket(&self, profile: &str) -> PathBuf {
        self.home.join(profile).join("docker.sock")
    }
}

/// Gives a file of ours its mode.
fn own(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

/// Waits for something that tells nobody when it happens, such as an entry in /proc going away.
pub(crate) fn eventually(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Random bytes, which nothing on their way can make smaller.
pub(crate) fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut source = fs::File::open("/dev/urandom").expect("every Linux has it");
    std::io::Read::read_exact(&mut source, &mut bytes).expect("it has no end");
    bytes
}

fn busybox_program() -> PathBuf {
    let unpacked = env::var_os("COLIMA_TEST_BUSYBOX").unwrap_or_else(|| "/".into());
    let places = ["usr/bin/busybox", "bin/busybox"];
    let found = places.map(|place| Path::new(&unpacked).join(place));
    let found = found.into_iter().find(|path| path.is_file());
    found.expect("COLIMA_TEST_BUSYBOX names the unpacked package busybox-static")
}

/// A port that nobody listens on now. The registry's, which has to be known before it runs.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback is up");
    listener.local_addr().expect("bound").port()
}
