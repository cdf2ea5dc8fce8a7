//! Other people's clients against our server, behind an sshd as they expect one: the same hundred steps
//! for each, in its own words.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::sshd::{Host, text};

/// What is done, with paths on the server, which are absolute, and names in the directory of the client.
#[derive(Debug)]
enum Step {
    Mkdir(String),
    Put(&'static str, String),
    Get(String, String),
    Rename(String, String),
    Chmod(String, u32),
    Remove(String),
    Rmdir(String),
    List(String, Vec<String>),
}

use Step::{Chmod, Get, List, Mkdir, Put, Remove, Rename, Rmdir};

fn hundred() -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 0..10 {
        let d = format!("/d{number}");
        let at = |name: &str| format!("{d}/{name}");
        steps.extend([
            Mkdir(d.clone()),
            Put("small", at("a")),
            Put("large", at("with space")),
            Get(at("with space"), format!("back{number}")),
            Rename(at("a"), at("e")),
            Chmod(at("e"), 0o600 + number),
            Mkdir(at("sub")),
            Put("large", at("sub/x")),
        ]);
        steps.extend(if number % 2 == 0 {
            [Remove(at("sub/x")), Rmdir(at("sub"))]
        } else {
            let names = ["e", "sub", "with space"].map(str::to_owned);
            [
                Get(at("sub/x"), format!("again{number}")),
                List(d.clone(), names.into()),
            ]
        });
    }
    assert_eq!(steps.len(), 100);
    steps
}

fn small() -> Vec<u8> {
    b"small\n".to_vec()
}

fn large() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

type Tree = BTreeMap<PathBuf, Option<(u32, Vec<u8>)>>;

/// What is there after all of it; modes of those files only that were given one.
fn expected(steps: &[Step]) -> Tree {
    let mut tree = Tree::new();
    let key = |path: &String| PathBuf::from(&path[1..]);
    for step in steps {
        match step {
            Mkdir(path) => drop(tree.insert(key(path), None)),
            Put(name, path) => {
                let content = if *name == "small" { small() } else { large() };
                tree.insert(key(path), Some((0, content)));
            }
            Rename(from, to) => {
                let moved = tree.remove(&key(from)).unwrap();
                tree.insert(key(to), moved);
            }
            Chmod(path, mode) => {
                tree.get_mut(&key(path)).unwrap().as_mut().unwrap().0 = *mode;
            }
            Remove(path) | Rmdir(path) => drop(tree.remove(&key(path))),
            Get(..) | List(..) => {}
        }
    }
    tree
}

fn found(share: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut directories = vec![share.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let key = path.strip_prefix(share).unwrap().to_owned();
            if found.is_dir() {
                directories.push(path);
                tree.insert(key, None);
            } else {
                let mode = found.permissions().mode() & 0o7777;
                tree.insert(key, Some((mode, fs::read(path).unwrap())));
            }
        }
    }
    tree
}

/// Looks at what a client has done.
fn check(host: &Host, steps: &[Step], modes: Modes) {
    let (mut found, mut expected) = (found(host.share.path()), expected(steps));
    for (path, entry) in &mut found {
        let wanted = expected.get(path).and_then(Option::as_ref);
        let given = wanted.is_some_and(|(mode, _)| *mode != 0) && modes == Modes::Set;
        if let (Some((mode, _)), false) = (entry, given) {
            *mode = 0;
        }
    }
    for (mode, _) in expected.values_mut().flatten() {
        *mode = if modes == Modes::Set { *mode } else { 0 };
    }
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    assert!(found == expected, "content or mode differs");
    for step in steps {
        if let Get(_, name) = step {
            let got = fs::read(host.here.path().join(name)).unwrap();
            assert!(got == large(), "{name} is another file");
        }
    }
}

/// Whether a client can set modes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Modes {
    Set,
    Left,
}

/// Has a client do the steps, or says why not.
fn run(test: &str, program: &str, modes: Modes, client: impl FnOnce(&Host, &[Step])) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|place| place.join(program).is_file());
    let host = if there {
        Host::new()
    } else {
        Err(format!("no {program}"))
    };
    match host {
        Ok(host) => {
            let steps = hundred();
            fs::write(host.here.path().join("small"), small()).unwrap();
            fs::write(host.here.path().join("large"), large()).unwrap();
            client(&host, &steps);
            check(&host, &steps, modes);
        }
        Err(missing) => {
            #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
            let () = println!("skipped: {test}: {missing}");
        }
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[test]
fn lftp_does_its_hundred_steps() {
    run(
        "lftp_does_its_hundred_steps",
        "lftp",
        Modes::Set,
        |host, steps| {
            let mut script = format!(
                "set cmd:fail-exit true\nset sftp:auto-confirm true\nset net:max-retries 1\n\
             set sftp:connect-program \"ssh -F none -a -x -i {} -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o BatchMode=yes\"\n\
             open -u {},unused -p {} sftp://127.0.0.1\n",
                host.key("user_key"),
                host.user,
                host.port
            );
            let mut names = Vec::new();
            for step in steps {
                match step {
                    Mkdir(path) => writeln!(script, "mkdir \"{path}\""),
                    Put(name, path) => writeln!(script, "put {name} -o \"{path}\""),
                    Get(path, name) => writeln!(script, "get \"{path}\" -o {name}"),
                    Rename(from, to) => writeln!(script, "mv \"{from}\" \"{to}\""),
                    Chmod(path, mode) => writeln!(script, "chmod {mode:o} \"{path}\""),
                    Remove(path) => writeln!(script, "rm \"{path}\""),
                    Rmdir(path) => writeln!(script, "rmdir \"{path}\""),
                    List(path, entries) => {
                        names.extend(entries.iter().map(|name| format!("{path}/{name}")));
                        writeln!(script, "find -d 2 \"{path}\"")
                    }
                }
                .unwrap();
            }
            fs::write(host.here.path().join("script"), script).unwrap();
            let output = host.client("lftp").args(["-f", "script"]).output().unwrap();
            succeeded(&output);
            let told = text(&output);
            for name in names {
                assert!(told.contains(&name), "{name} is not in {told}");
            }
        },
    );
}

#[test]
fn curl_does_its_hundred_steps() {
    let version = Command::new("curl").arg("--version").output();
    if version.is_ok_and(|version| !text(&version).contains(" sftp ")) {
        println!("skipped: curl_does_its_hundred_steps: curl without sftp");
        return;
    }
    run(
        "curl_does_its_hundred_steps",
        "curl",
        Modes::Set,
        |host, steps| {
            // One process, so one connection; commands ride on a listing of the root.
            let address = |path: &str| {
                let path = path.replace(' ', "%20");
                format!("sftp://127.0.0.1:{}{path}", host.port)
            };
            let mut settings = String::new();
            for (number, step) in steps.iter().enumerate() {
                if number > 0 {
                    settings.push_str("next\n");
                }
                write!(
                settings,
                "silent\nshow-error\nfail\ninsecure\nuser = \"{}:\"\nkey = \"{}\"\npubkey = \"{}\"\n",
                host.user,
                host.key("user_key"),
                host.key("user_key.pub")
            )
            .unwrap();
                let mut quote = |command: String| {
                    let command = command.replace('"', "\\\"");
                    let root = address("/");
                    writeln!(
                        settings,
                        "quote = \"{command}\"\nurl = \"{root}\"\noutput = listing"
                    )
                };
                match step {
                    Mkdir(path) => quote(format!("mkdir \"{path}\"")),
                    Rename(from, to) => quote(format!("rename \"{from}\" \"{to}\"")),
                    Chmod(path, mode) => quote(format!("chmod {mode:o} \"{path}\"")),
                    Remove(path) => quote(format!("rm \"{path}\"")),
                    Rmdir(path) => quote(format!("rmdir \"{path}\"")),
                    Put(name, path) => {
                        writeln!(
                            settings,
                            "upload-file = {name}\nurl = \"{}\"",
                            address(path)
                        )
                    }
                    Get(path, name) => {
                        writeln!(settings, "output = {name}\nurl = \"{}\"", address(path))
                    }
                    List(path, _) => {
                        let url = address(&format!("{path}/"));
                        let name = path.replace('/', "list-");
                        writeln!(settings, "list-only\noutput = {name}\nurl = \"{url}\"")
                    }
                }
                .unwrap();
            }
            fs::write(host.here.path().join("settings"), settings).unwrap();
            let output = host
                .client("curl")
                .args(["-K", "settings"])
                .output()
                .unwrap();
            succeeded(&output);
            for step in steps {
                if let List(path, names) = step {
                    let listed = host.here.path().join(path.replace('/', "list-"));
                    let listed = fs::read_to_string(listed).unwrap();
                    let mut listed: Vec<_> = listed.lines().collect();
                    listed.retain(|name| *name != "." && *name != "..");
                    listed.sort_unstable();
                    assert_eq!(listed, *names);
                }
            }
        },
    );
}

/// A running rclone that takes commands by HTTP: starting it for each step takes most of a second.
struct Rclone {
    process: std::process::Child,
    address: String,
}

impl Drop for Rclone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Rclone {
    fn start(host: &Host) -> Self {
        let mut process = host
            .client("rclone")
            .env("RCLONE_SFTP_HOST", "127.0.0.1")
            .env("RCLONE_SFTP_PORT", host.port.to_string())
            .env("RCLONE_SFTP_USER", &host.user)
            .env("RCLONE_SFTP_KEY_FILE", host.key("user_key"))
            .env("RCLONE_SFTP_DISABLE_HASHCHECK", "true")
            .args([
                "rcd",
                "--rc-no-auth",
                "--rc-addr",
                "127.0.0.1:0",
                "--config",
                "",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stderr.take().unwrap());
        let mut lines = told.lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| {
                Some(
                    line.split_once("http://")?
                        .1
                        .trim_end_matches('/')
                        .to_owned(),
                )
            })
            .unwrap();
        // What it tells later is nobody's, but it must not wait for somebody who reads.
        std::thread::spawn(move || lines.count());
        Self { process, address }
    }

    /// Has it do something, and gives its answer.
    fn command(&self, name: &str, parameters: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "POST /{name} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            parameters.len()
        );
        stream.write_all((request + parameters).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 OK"), "{name} {parameters}: {answer}");
        answer
    }
}

#[test]
fn rclone_does_its_hundred_steps() {
    run(
        "rclone_does_its_hundred_steps",
        "rclone",
        Modes::Left,
        |host, steps| {
            let rclone = Rclone::start(host);
            let here = host.here.path().to_str().unwrap();
            let one = |name, path: &str| {
                let path = &path[1..];
                rclone.command(name, &format!(r#"{{"fs": ":sftp:/", "remote": "{path}"}}"#))
            };
            let two = |name, from: (&str, &str), to: (&str, &str)| {
                let parameters = format!(
                    r#"{{"srcFs": "{}", "srcRemote": "{}", "dstFs": "{}", "dstRemote": "{}"}}"#,
                    from.0, from.1, to.0, to.1
                );
                rclone.command(name, &parameters);
            };
            let there = ":sftp:/";
            for step in steps {
                match step {
                    Mkdir(path) => drop(one("operations/mkdir", path)),
                    Put(name, path) => {
                        two("operations/copyfile", (here, name), (there, &path[1..]));
                    }
                    Get(path, name) => {
                        two("operations/copyfile", (there, &path[1..]), (here, name));
                    }
                    Rename(from, to) => {
                        two(
                            "operations/movefile",
                            (there, &from[1..]),
                            (there, &to[1..]),
                        );
                    }
                    // It knows no modes: the file is looked at.
                    Chmod(path, _) => {
                        let told = one("operations/stat", path);
                        assert!(told.contains("\"Size\": 6"), "{told}");
                    }
                    Remove(path) => drop(one("operations/deletefile", path)),
                    Rmdir(path) => drop(one("operations/rmdir", path)),
                    List(path, names) => {
                        let told = one("operations/list", path);
                        let listed = told.split("\"Name\": \"").skip(1);
                        let listed = listed.filter_map(|rest| rest.split('"').next());
                        let mut listed: Vec<_> = listed.collect();
                        listed.sort_unstable();
                        assert_eq!(listed, *names);
                    }
                }
            }
        },
    );
}

fn by_python(test: &str, library: &str) {
    // The packages are for the system's, which may not be the first in the path.
    let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        Command::new(python)
            .args(["-c", &format!("import {library}")])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        let () = println!("skipped: {test}: no {library} (package python3-{library})");
        return;
    };
    run(test, "python3", Modes::Set, |host, steps| {
        let mut lines = String::new();
        for step in steps {
            match step {
                Mkdir(path) => writeln!(lines, "mkdir\t{path}"),
                Put(name, path) => writeln!(lines, "put\t{name}\t{path}"),
                Get(path, name) => writeln!(lines, "get\t{path}\t{name}"),
                Rename(from, to) => writeln!(lines, "rename\t{from}\t{to}"),
                Chmod(path, mode) => writeln!(lines, "chmod\t{path}\t{mode:o}"),
                Remove(path) => writeln!(lines, "remove\t{path}"),
                Rmdir(path) => writeln!(lines, "rmdir\t{path}"),
                List(path, names) => writeln!(lines, "list\t{path}\t{}", names.join("\t")),
            }
            .unwrap();
        }
        fs::write(host.here.path().join("steps"), lines).unwrap();
        let output = host
            .client(python)
            .args([
                "-W",
                "ignore",
                "-c",
                include_str!("clients/steps.py"),
                library,
            ])
            .args([
                &host.port.to_string(),
                &host.user,
                &host.key("user_key"),
                "steps",
            ])
            .output()
            .unwrap();
        succeeded(&output);
    });
}

#[test]
fn paramiko_does_its_hundred_steps() {
    by_python("paramiko_does_its_hundred_steps", "paramiko");
}

#[test]
fn asyncssh_does_its_hundred_steps() {
    by_python("asyncssh_does_its_hundred_steps", "asyncssh");
}
