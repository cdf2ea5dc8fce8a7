//! Bad input, one class after the other: it is refused with a word that helps, or carried right through,
//! and nothing that is there is lost.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
};

use super::home::{Home, Printed};

const GOOD: &str = "cpu: 3 # mine\n";

/// A home with a profile whose file has to be the same afterwards.
fn home_with(config: &str) -> Home {
    let home = Home::new();
    home.write("default/colima.yaml", config);
    home
}

/// Runs `start`, which has to be refused before it changes anything.
fn refused(home: &Home, config: &str, arguments: &[&str]) -> String {
    let printed = home.run(arguments);
    assert_eq!(home.read("default/colima.yaml"), config, "{arguments:?}");
    assert_ne!(printed.code, Some(0), "{arguments:?}: {}", printed.all());
    printed.all()
}

#[test]
fn flags() {
    let home = home_with(GOOD);
    let mut all = String::new();
    for (class, line) in [
        ("syntax", &["start", "--memory", "lots"][..]),
        ("range", &["start", "--cpus", "0", "--disk", "0.1"]),
        ("conflict", &["logs", "--serial", "--daemon"]),
        ("unknown", &["start", "--mem", "4"]),
        ("not yet", &["start", "--runtime", "incus"]),
    ] {
        all.push_str(&format!("# {class}: {}\n", line.join(" ")));
        all.push_str(&refused(&home, GOOD, line));
        all.push('\n');
    }
    insta::assert_snapshot!(all);
}

#[test]
fn configuration() {
    let mut all = String::new();
    for (class, text) in [
        ("syntax", "cpu: [1\n"),
        ("range", "cpu: 1000\nmemory: 0\n"),
        ("conflict", "cpu: 1\ncpu: 2\n"),
        ("unknown", "cpus: 4\n"),
        (
            "hostile name",
            "env: {\"A=$(id)\": x}\nhostname: \"-x\\n\"\n",
        ),
        (
            "hostile value",
            "docker: {hosts: [\"tcp://0.0.0.0:2375\"]}\n",
        ),
    ] {
        let home = home_with(text);
        all.push_str(&format!(
            "# {class}\n{}\n",
            refused(&home, text, &["start"])
        ));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_file_that_is_no_text() {
    let home = Home::new();
    home.write("default/colima.yaml", b"cpu: 2 # \xff\n");
    insta::assert_snapshot!(home.run(&["start"]).all());
    assert_eq!(
        fs::read(home.path("c/default/colima.yaml")).unwrap(),
        b"cpu: 2 # \xff\n"
    );
}

#[test]
fn images() {
    let home = Home::new();
    let mut all = String::new();
    home.write("_images/x86_64/a-1/manifest.json", "{}");
    home.write("broken/manifest.json", "{\"version\": 1}");
    let broken = home.path("c/broken").display().to_string();
    for (class, line) in [
        ("unknown", &["image", "verify", "b-2"][..]),
        ("hostile name", &["image", "rm", "../../x"]),
        ("damaged", &["image", "verify"]),
        ("missing", &["image", "import", "/nonexistent"]),
        ("damaged bundle", &["image", "import", &broken]),
        (
            "missing lock",
            &["image", "build", "--lock", "/nonexistent"],
        ),
    ] {
        let printed = home.run(line);
        assert_ne!(printed.code, Some(0), "{class}");
        all.push_str(&format!("# {class}\n{}\n", printed.all()));
    }
    assert!(home.has("_images/x86_64/a-1/manifest.json"));
    insta::assert_snapshot!(all);
}

/// The state directory; each class in a home of its own.
#[test]
fn state_directory() {
    let mut all = String::new();
    let mut tell = |class: &str, printed: &Printed| {
        assert_ne!(printed.code, Some(0), "{class}");
        all.push_str(&format!("# {class}\n{}\n", printed.all()));
    };
    let home = home_with(GOOD);
    home.write("_version", "99\n");
    tell("newer", &home.run(&["start"]));
    assert_eq!(home.read("default/colima.yaml"), GOOD);

    let home = home_with(GOOD);
    home.write("_version", "two\n");
    tell("syntax", &home.run(&["status"]));

    let home = Home::new();
    fs::write(home.path("c"), "").unwrap();
    tell("in the way", &home.run(&["start"]));

    let home = home_with(GOOD);
    let shared = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(home.path("c"), shared).unwrap();
    tell("permission", &home.run(&["start"]));
    assert_eq!(home.read("default/colima.yaml"), GOOD);

    let home = Home::new();
    let long = home.path(&"x".repeat(120)).display().to_string();
    let mut start = home.command(&["start"]);
    tell("too long", &home.finish(start.env("COLIMA_HOME", long)));
    insta::assert_snapshot!(all);
}

#[test]
fn a_missing_part_of_the_host() {
    let home = home_with(GOOD);
    let printed = home.run(&["start"]);
    assert_eq!(printed.code, Some(4), "{}", printed.all());
    assert!(printed.stderr.contains("hint: "), "{}", printed.all());
    assert_eq!(home.read("default/colima.yaml"), GOOD);
}

/// A file system without room: what was there is there afterwards.
#[test]
fn no_space() {
    let home = Home::new();
    fs::create_dir(home.path("c")).unwrap();
    let script = format!(
        "set -e; cd '{}'; mount -t tmpfs -o size=64k,mode=0700 none c; mkdir -m 700 c/default; \
         echo 1 > c/_version; echo 'cpu: 3 # mine' > c/default/colima.yaml; \
         chmod 600 c/default/colima.yaml; (cat /dev/zero > c/fill) 2>/dev/null || true; \
         tools/colima start --cpus 4 || echo \"exit $?\"; cat c/default/colima.yaml",
        home.path("").display()
    );
    let mut isolated = std::process::Command::new("unshare");
    isolated.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    isolated.env("COLIMA_HOME", home.path("c"));
    isolated.env("HOME", home.path(""));
    let printed = home.finish(&mut isolated);
    if printed.stderr.contains("unshare") || printed.stderr.contains("mount:") {
        println!("skipped: no_space: no file system can be mounted here");
        return;
    }
    insta::assert_snapshot!(printed.all());
}

/// No name of a profile leads out of the state directory or into a shell.
#[test]
fn names_of_profiles() {
    let home = Home::new();
    let mut all = String::new();
    for name in [
        "-x", "a\nb", "a,b", "%h", "$(id)", "it's", "\"q\"", "a b", "../x", "é", ".", "_lima",
    ] {
        for line in [
            vec!["status".to_owned(), format!("--profile={name}")],
            vec!["start".to_owned(), "--".to_owned(), name.to_owned()],
        ] {
            let printed = home.run(&line);
            assert_eq!(printed.code, Some(2), "{line:?}: {}", printed.all());
            if line[0] == "status" {
                all.push_str(&printed.stderr);
            }
        }
    }
    let raw = [OsStr::new("status"), OsStr::from_bytes(b"--profile=\xff")];
    let printed = home.run(&raw);
    assert_eq!(printed.code, Some(2));
    all.push_str(&printed.stderr);
    assert!(!home.has(""), "nothing was made for any of them");
    insta::assert_snapshot!(all);
}

/// Homes with names that are not for everybody: carried through, or refused with the reason.
#[test]
fn names_of_homes() {
    let home = Home::new();
    for name in ["a b", "it's", "100%", "$(id)", "a,b", "-x", "é"] {
        let state = home.path(name);
        fs::create_dir_all(state.join("default")).unwrap();
        fs::write(state.join("default/colima.yaml"), "cpu: 5\n").unwrap();
        let show = |home: &Home| {
            let mut show = home.command(&["config", "show", "--json"]);
            home.finish(show.env("COLIMA_HOME", &state))
        };
        let shown = show(&home);
        assert!(
            shown.stdout.contains("\"value\": 5"),
            "{name}: {}",
            shown.all()
        );
        let mut env = home.command(&["env"]);
        let variables = home.finish(env.env("COLIMA_HOME", &state)).stdout;
        let read = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("{variables}printf %s \"$DOCKER_HOST\""))
            .output()
            .unwrap();
        let expected = format!("unix://[home]/{name}/default/docker.sock");
        assert_eq!(String::from_utf8(read.stdout).unwrap(), expected, "{name}");
    }
    let mut raw = home.command(&["env"]);
    let path: OsString = OsStr::from_bytes(b"/tmp/\xff").to_owned();
    let printed = home.finish(raw.env("COLIMA_HOME", path));
    insta::assert_snapshot!(printed.all());
}
