//! Verbs that need no machine.

use std::{fs, path::Path, process::Command};

use super::home::Home;

#[test]
fn what_is_not_there_yet_has_a_code_of_its_own() {
    let home = Home::new();
    for line in [
        &["kubernetes", "start"][..],
        &["k3s", "reset", "--help"],
        &["model", "serve", "x", "--port", "80"],
        &["nerdctl", "install"],
    ] {
        assert_eq!(home.run(line).code, Some(7), "{line:?}");
    }
    insta::assert_snapshot!(home.run(&["kubernetes", "start"]).all());
}

#[test]
fn variables_for_a_shell() {
    let home = Home::new();
    let printed = home.run(&["env", "work"]);
    insta::assert_snapshot!(printed.all());
    let fish = home.run(&["env", "work", "--shell", "fish", "--unset"]);
    insta::assert_snapshot!("variables_for_fish", fish.all());
    let value = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{} printenv DOCKER_HOST",
            printed.stdout.replace('\n', ";")
        ))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&value.stdout).trim(),
        "unix://[home]/c/work/docker.sock"
    );
}

#[test]
fn ssh_config_of_a_profile_that_never_ran() {
    let home = Home::new();
    assert_eq!(home.run(&["ssh-config", "work"]).code, Some(3));
    home.write("work/ssh_config", "Host colima-work\n");
    assert_eq!(
        home.run(&["ssh-config", "work"]).stdout,
        "Host colima-work\n"
    );
}

/// What a start with `--ssh-config` had put into the user's file.
#[test]
fn delete_takes_the_line_out_of_the_users_file() {
    let home = Home::new();
    let state = home.path("c");
    home.write("work/colima.yaml", "sshConfig: true\n");
    let profile = format!("Include \"{}/work/ssh_config\"\n", state.display());
    home.write("ssh_config", profile);
    let theirs = "# mine\nHost *\n  Compression yes\n";
    fs::create_dir(home.path(".ssh")).unwrap();
    let line = format!("Include \"{}/ssh_config\"\n", state.display());
    fs::write(home.path(".ssh/config"), format!("{line}{theirs}")).unwrap();
    let deleted = home.run(&["delete", "--force", "work"]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.all());
    let left = fs::read_to_string(home.path(".ssh/config")).unwrap();
    assert_eq!(left, theirs);
    assert!(!home.has("ssh_config"));
}

#[test]
fn prune_empties_the_downloads_and_asks_first() {
    let home = Home::new();
    let none = home.run(&["prune", "--force"]);
    assert!(none.stderr.contains("nothing to delete"), "{}", none.all());
    let package = home.path("cache/packages/sub/one.deb");
    fs::create_dir_all(package.parent().unwrap()).unwrap();
    fs::write(&package, [0; 2048]).unwrap();
    fs::write(home.path("cache/other"), "theirs").unwrap();
    let asked = home.run(&["prune"]);
    assert_eq!(asked.code, Some(2), "{}", asked.all());
    assert!(package.exists());
    let done = home.run(&["prune", "-f", "-a"]);
    assert_eq!((done.code, done.stderr.trim()), (Some(0), "deleted 2KiB"));
    assert!(!package.exists() && home.path("cache/other").exists());
}

#[test]
fn manual_pages_for_every_verb() {
    let home = Home::new();
    let directory = home.path("man1");
    let made = home.run(&["man", directory.to_str().unwrap()]);
    assert_eq!(made.code, Some(0), "{}", made.all());
    let text = fs::read_to_string(directory.join("colima-start.1")).unwrap();
    assert!(text.contains("root\\-disk"), "{text}");
    assert!(directory.join("colima.1").exists());
    assert!(
        !directory.join("colima-daemon.1").exists(),
        "it is nobody's"
    );
}

#[test]
fn an_image_that_is_none_is_not_imported() {
    let home = Home::new();
    let missing = home.run(&["image", "import", "/nonexistent"]);
    insta::assert_snapshot!(missing.all());
}

#[test]
fn the_doctor_judges_this_host() {
    let home = Home::new();
    let json = home.run(&["doctor", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let well = all["well"].as_bool().unwrap();
    assert_eq!(json.code, Some(if well { 0 } else { 1 }));
    let findings = all["findings"].as_array().unwrap();
    for check in [
        "accelerator",
        "programs",
        "disk space",
        "docker",
        "state directory",
    ] {
        assert!(
            findings.iter().any(|one| one["check"] == check),
            "{check}: {all}"
        );
    }
    let people = home.run(&["doctor"]);
    assert_eq!(people.code, json.code);
    assert!(people.stdout.lines().count() >= findings.len());
    assert!(!home.has(""), "looking changes nothing");
}

/// The state now comes at once; nothing runs, so there is no other.
#[test]
fn events_begin_with_the_state_now() {
    use std::io::{BufRead as _, BufReader};
    let home = Home::new();
    let mut events = home
        .command(&["events", "work"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(events.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    // As Ctrl-C; the daemon has nothing to do then and leaves by itself.
    let pid = rustix::process::Pid::from_child(&events);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(events.wait().unwrap().success());
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["profile"], &event["state"]),
        (&"work".into(), &"stopped".into())
    );
}

#[test]
fn a_daemon_keeps_nothing_of_the_shell_that_started_it() {
    use std::io::Read as _;
    let home = Home::new();
    let kept = home.path("kept");
    fs::write(&kept, "").unwrap();
    let script = format!(
        "exec 9<'{}'; exec \"$0\" daemon run --profile work",
        kept.display()
    );
    let mut shell = home.command::<&str>(&[]);
    let program = shell.get_program().to_owned();
    let variables: Vec<_> = shell
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(program);
    shell.env_clear().envs(variables);
    shell.stdout(std::process::Stdio::piped());
    let mut daemon = shell.spawn().unwrap();
    // One byte says that it listens.
    daemon
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .unwrap();
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", daemon.id()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(open.len() > 3, "{open:?}");
    assert!(!open.contains(&kept), "{open:?}");
}

/// The completion of the shell itself, asked as the shell asks.
#[test]
fn bash_completes_the_names_of_profiles() {
    if !Path::new("/bin/bash").exists() {
        println!("skipped: bash_completes_the_names_of_profiles: there is no bash");
        return;
    }
    let home = Home::new();
    home.write("work/colima.yaml", "");
    home.write("worse/colima.yaml", "");
    let script = home.run(&["completion", "bash"]).stdout;
    let ask = |words: &[&str]| {
        let line = format!(
            "{script}\nPATH={}:$PATH\nCOMP_WORDS=({}); COMP_CWORD={}\n\
             _colima_with_profiles colima '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            home.path("tools").display(),
            words
                .iter()
                .map(|word| format!("'{word}'"))
                .collect::<Vec<_>>()
                .join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &line])
            .env("COLIMA_HOME", home.path("c"))
            .env("HOME", home.path(""));
        home.finish(&mut bash).stdout
    };
    assert_eq!(
        ask(&["colima", "start", "--profile", "wo"]),
        "work\nworse\n"
    );
    assert_eq!(ask(&["colima", "stop", "wor"]), "work\nworse\n");
    assert_eq!(ask(&["colima", "sta"]), "start\nstatus\n");
    assert!(ask(&["colima", "stop", "--f"]).contains("--force"));
}
