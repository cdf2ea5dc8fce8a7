//! The docker CLI's store, with the docker CLI itself where there is one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use colima::docker_context::{DockerContexts, Restored};

const SOCKET: &str = "/s/docker.sock";

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        Self { dir }
    }

    fn contexts(&self) -> DockerContexts {
        DockerContexts::new(self.dir.path())
    }

    fn note(&self, profile: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("{profile}.note"))
    }

    fn publish(&self, name: &str) {
        self.contexts()
            .publish(name, "of a test", Path::new(SOCKET))
            .unwrap();
    }

    fn start(&self, name: &str) {
        self.publish(name);
        self.contexts().activate(name, &self.note(name)).unwrap();
    }

    fn stop(&self, name: &str) -> Restored {
        let (contexts, socket) = (self.contexts(), Path::new(SOCKET));
        let others = ["colima", "colima-work"].map(|name| self.note(name));
        let restored = contexts
            .deactivate(name, socket, &self.note(name), &others)
            .unwrap();
        contexts.remove(name, socket).unwrap();
        restored
    }

    fn current(&self) -> Option<String> {
        self.contexts().current().unwrap()
    }
}

#[test]
fn the_previous_context_comes_back() {
    let config = "{\n\t\"auths\": {},\n\t\"currentContext\": \"theirs\"\n}";
    let home = Home::new(config);
    home.publish("theirs");
    home.start("colima");
    assert_eq!(home.current().as_deref(), Some("colima"));
    // A second start does not note ours as the one before.
    home.start("colima");
    assert_eq!(
        home.stop("colima"),
        Restored::Previous(Some("theirs".to_owned()))
    );
    assert_eq!(
        fs::read_to_string(home.dir.path().join("config.json")).unwrap(),
        config
    );
    assert!(!home.note("colima").exists());
    // Repeated, as after a crash between the steps.
    assert_eq!(home.stop("colima"), Restored::NotOurs);
    assert_eq!(home.current().as_deref(), Some("theirs"));
}

#[test]
fn a_choice_of_the_users_is_kept() {
    let home = Home::new("{}");
    home.start("colima");
    home.publish("theirs");
    home.contexts()
        .activate("theirs", &home.note("theirs"))
        .unwrap();
    assert_eq!(home.stop("colima"), Restored::NotOurs);
    assert_eq!(home.current().as_deref(), Some("theirs"));
}

#[test]
fn a_context_of_another_home_is_left_alone() {
    let home = Home::new("{}");
    home.start("colima");
    let (contexts, theirs) = (home.contexts(), Path::new("/another/docker.sock"));
    let restored = contexts.deactivate("colima", theirs, &home.note("colima"), &[]);
    assert_eq!(restored.unwrap(), Restored::NotOurs);
    contexts.remove("colima", theirs).unwrap();
    assert_eq!(home.current().as_deref(), Some("colima"));
    assert_eq!(home.stop("colima"), Restored::Previous(None));
}

#[test]
fn a_previous_context_that_is_gone_gives_dockers_default() {
    let home = Home::new("{}");
    home.publish("theirs");
    home.contexts()
        .activate("theirs", &home.note("theirs"))
        .unwrap();
    home.start("colima");
    home.contexts().remove("theirs", Path::new(SOCKET)).unwrap();
    assert_eq!(home.stop("colima"), Restored::Previous(None));
    assert_eq!(home.current(), None);
}

#[test]
fn two_profiles_stop_in_either_order() {
    for order in [["colima", "colima-work"], ["colima-work", "colima"]] {
        let home = Home::new("{}");
        home.publish("theirs");
        home.contexts()
            .activate("theirs", &home.note("theirs"))
            .unwrap();
        home.start("colima");
        home.start("colima-work");
        for profile in order {
            home.stop(profile);
        }
        assert_eq!(home.current().as_deref(), Some("theirs"), "{order:?}");
    }
}

#[test]
fn a_config_that_is_not_understood_is_left_alone() {
    let home = Home::new("{ not json");
    let error = home
        .contexts()
        .activate("colima", &home.note("colima"))
        .unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(
        fs::read_to_string(home.dir.path().join("config.json")).unwrap(),
        "{ not json"
    );
    assert!(!home.note("colima").exists());
}

#[test]
fn links_and_modes_are_kept() {
    let home = Home::new("{}");
    let real = home.dir.path().join("dotfiles.json");
    let config = home.dir.path().join("config.json");
    fs::rename(&config, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &config).unwrap();
    home.start("colima");
    assert!(config.symlink_metadata().unwrap().is_symlink());
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(fs::read_to_string(&real).unwrap().contains("colima"));
}

#[test]
fn nothing_is_made_where_there_is_no_docker() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = DockerContexts::new(dir.path().join("none"));
    let note = dir.path().join("note");
    assert_eq!(
        contexts
            .deactivate("colima", Path::new(SOCKET), &note, &[])
            .unwrap(),
        Restored::NotOurs
    );
    contexts.remove("colima", Path::new(SOCKET)).unwrap();
    assert!(!dir.path().join("none").exists());
}

/// What `docker` prints with only this home, or `None` where there is no docker CLI.
fn docker(home: &Home, arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker")
        .args(arguments)
        .env("DOCKER_CONFIG", home.dir.path())
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_CONTEXT")
        .output()
        .ok()?;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn the_docker_cli_agrees() {
    let home = Home::new("{}");
    home.start("colima-work");
    let Some(shown) = docker(&home, &["context", "show"]) else {
        println!("SKIPPED: there is no docker CLI");
        return;
    };
    assert_eq!(shown, "colima-work");
    let columns = "{{.Name}} {{.DockerEndpoint}} {{.Description}}";
    let listed = docker(&home, &["context", "ls", "--format", columns]).unwrap();
    assert!(
        listed
            .lines()
            .any(|line| line == "colima-work unix:///s/docker.sock of a test"),
        "{listed}"
    );
    let inspected = docker(&home, &["context", "inspect", "colima-work"]).unwrap();
    assert!(inspected.contains("unix:///s/docker.sock"), "{inspected}");
    // What docker itself writes is read back, and what we write is what it would have left.
    docker(&home, &["context", "use", "default"]).unwrap();
    assert_eq!(home.current(), None);
    docker(&home, &["context", "use", "colima-work"]).unwrap();
    assert_eq!(home.current().as_deref(), Some("colima-work"));
    home.stop("colima-work");
    assert_eq!(docker(&home, &["context", "show"]).unwrap(), "default");
    assert_eq!(
        docker(&home, &["context", "ls", "--quiet"]).unwrap(),
        "default"
    );
}
