//! Host directories in the guest and in containers.
//!
//! The shared machine has `shared` of the scratch directory, writable, and in it `shared/fixed`, read-only. The small one
//! has what Colima shares where nothing is said.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use super::{
    command::{Finished, PATIENCE, Run},
    process::{self, Process},
    world::{IMAGE, OTHER_PROFILE, PROFILE, World, eventually},
};

/// The lines of `colima.yaml` for the shared machine.
pub(crate) fn config(shared: &Path) -> String {
    let shared = shared.display();
    format!(
        "mounts:\n  - location: \"{shared}/fixed\"\n  - location: \"{shared}\"\n    writable: true\n"
    )
}

/// Makes what is shared.
pub(crate) fn prepare(world: &World) {
    fs::create_dir_all(shared(world).join("fixed")).expect("scratch can be written");
    fs::create_dir_all(world.host_home()).expect("scratch can be written");
}

fn shared(world: &World) -> PathBuf {
    world.shared()
}

/// The machine with everything shared, for cases that run by themselves.
fn ready(world: &World) -> String {
    prepare(world);
    world.machine_runs();
    shared(world).to_str().expect("text").to_owned()
}

/// What a script prints that runs as root in a container with the shared directory as its own `/y`.
fn container(world: &World, script: &str) -> String {
    let volume = format!("{}:/y", ready(world));
    let run = ["run", "--rm", "--volume", &volume, "--workdir", "/y"];
    let run = world.docker(run).args([IMAGE, "sh", "-c", script]);
    run.ok().text().to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn guest_and_host_see_the_same(world: &World) {
    let shared = ready(world);
    let mounts = &world.status().expect("it runs")["mounts"];
    let states: Vec<&str> = mounts
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|mount| mount["state"].as_str())
        .collect();
    assert_eq!(states, ["mounted", "mounted"], "{mounts}");
    fs::write(format!("{shared}/from host"), "one\n").expect("scratch");
    assert_eq!(
        world.guest(PROFILE, &format!("cat '{shared}/from host'")),
        "one"
    );
    world.guest(
        PROFILE,
        &format!("mkdir '{shared}/a  b' && echo two > '{shared}/a  b/from guest'"),
    );
    assert_eq!(read(format!("{shared}/a  b/from guest")), "two\n");
    // A name that is no text, both ways.
    let odd = Path::new(&shared).join(OsStr::from_bytes(b"odd\xff\n$(x)'\""));
    world.guest(
        PROFILE,
        &format!(r#"cd {shared} && printf odd > "$(printf 'odd\377\n$(x)\047\042')""#),
    );
    assert_eq!(read(&odd), "odd");
    fs::rename(&odd, odd.with_file_name(OsStr::from_bytes(b"\xfe"))).expect("it is there");
    let script = format!("cd {shared} && cat \"$(printf '\\376')\" && ls | wc -l");
    let seen = world.guest(PROFILE, &script);
    assert!(seen.starts_with("odd"), "{seen}");
}

pub(crate) fn containers_have_them(world: &World) {
    let shared = ready(world);
    fs::write(format!("{shared}/for-container"), "host").expect("scratch");
    let seen = container(world, "cat for-container; echo container > from-container");
    assert_eq!(seen, "host");
    assert_eq!(read(format!("{shared}/from-container")), "container\n");
    // Of a package manager for JavaScript: a link to a program in a neighbouring directory.
    fs::create_dir_all(format!("{shared}/node_modules/.bin")).expect("scratch");
    fs::create_dir_all(format!("{shared}/node_modules/tool")).expect("scratch");
    fs::write(
        format!("{shared}/node_modules/tool/cli"),
        "#!/bin/sh\necho \"tool $1\"\n",
    )
    .expect("scratch");
    Run::new("chmod")
        .args(["755", &format!("{shared}/node_modules/tool/cli")])
        .ok();
    let link = format!("{shared}/node_modules/.bin/tool");
    if !Path::new(&link).exists() {
        symlink("../tool/cli", &link).expect("scratch");
    }
    let script = "node_modules/.bin/tool works; readlink node_modules/.bin/tool";
    assert_eq!(container(world, script), "tool works\n../tool/cli");
}

/// What the host does is seen by a container that has looked before.
pub(crate) fn host_edits_are_seen(world: &World) {
    let shared = ready(world);
    let file = format!("{shared}/edited");
    fs::write(&file, "before").expect("scratch");
    let volume = format!("{shared}:/y");
    world.docker(["rm", "--force", "looks"]).finish();
    let run = [
        "run", "--detach", "--init", "--name", "looks", "--volume", &volume,
    ];
    world.docker(run).args([IMAGE, "sleep", "1000000"]).ok();
    let looks = |path: &str| {
        let exec = world.docker(["exec", "looks", "cat", path]).finish();
        exec.text().to_owned()
    };
    assert_eq!(looks("/y/edited"), "before");
    fs::write(&file, "after, and longer").expect("scratch");
    eventually("an edit", PATIENCE, || {
        looks("/y/edited") == "after, and longer"
    });
    fs::remove_file(&file).expect("scratch");
    eventually("a removal", PATIENCE, || looks("/y/edited").is_empty());
    world.docker(["rm", "--force", "looks"]).ok();
}

pub(crate) fn read_only_is_so(world: &World) {
    let shared = ready(world);
    fs::write(format!("{shared}/fixed/file"), "fixed").expect("scratch");
    let script = format!(
        "cat {shared}/fixed/file; echo; for try in 'touch new' 'rm file' 'chmod 777 file' 'mv file x' 'tee file'; do \
         (cd {shared}/fixed && $try 2>&1 </dev/null | tail -1); done"
    );
    let said = world.guest(PROFILE, &script);
    assert!(said.starts_with("fixed\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 5, "{said}");
    assert_eq!(read(format!("{shared}/fixed/file")), "fixed");
    assert_eq!(
        fs::read_dir(format!("{shared}/fixed"))
            .expect("it is there")
            .count(),
        1
    );
}

/// `docker build` in the guest, where docker reads the context through the mount, and from the host.
pub(crate) fn a_build_in_the_guest_is_that_of_the_host(world: &World) {
    let shared = ready(world);
    let context = format!("{shared}/context");
    fs::create_dir_all(format!("{context}/deep/er")).expect("scratch");
    for number in 0..40 {
        let text = format!("{number}\n").repeat(number);
        fs::write(format!("{context}/deep/er/{number}"), text).expect("scratch");
    }
    let dockerfile = format!("FROM {IMAGE}\nCOPY deep /deep\nRUN cat /deep/er/* > /all\n");
    fs::write(format!("{context}/Dockerfile"), dockerfile).expect("scratch");
    let build = ["build", "--quiet", "--tag", "built:host", &context];
    world.docker(build).env("DOCKER_BUILDKIT", "0").ok();
    world.guest(
        PROFILE,
        &format!("DOCKER_BUILDKIT=0 docker build --no-cache --quiet --tag built:guest {context}"),
    );
    // The directory that docker itself makes has the time of the build, and so has the digest of the layer; this is
    // what was copied.
    let script =
        "cd /deep && find er | sort | xargs stat -c '%n %F %a %u %g %s %Y' && md5sum /all er/*";
    let copied = |image: &str| {
        let run = world.docker(["run", "--rm", image, "sh", "-c", script]);
        run.ok().text().to_owned()
    };
    let host = copied("built:host");
    assert!(host.lines().count() > 80, "{host}");
    assert_eq!(copied("built:guest"), host);
}

/// The worker of a directory.
fn worker(location: &str) -> Option<Process> {
    let mut found = process::workers(location);
    assert!(found.len() < 2, "workers of {location}");
    found.pop()
}

/// Starts a container that writes into an open file of the share for as long as it lives.
fn writer(world: &World, shared: &str) {
    world.docker(["rm", "--force", "writes"]).finish();
    let _ = fs::remove_file(format!("{shared}/ticks"));
    let volume = format!("{shared}:/y");
    let run = [
        "run", "--detach", "--init", "--name", "writes", "--volume", &volume,
    ];
    let script = "exec 3>/y/ticks; while echo tick >&3; do sleep 0.2; done; echo failed";
    world.docker(run).args([IMAGE, "sh", "-c", script]).ok();
    ticks_on(shared);
}

/// The file of the writer grows.
fn ticks_on(shared: &str) {
    let size = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    let before = size();
    eventually("a tick", PATIENCE, || size() > before);
}

fn still_writes(world: &World) {
    let format = "{{.State.Running}}";
    let inspect = ["container", "inspect", "--format", format, "writes"];
    assert_eq!(world.docker(inspect).ok().text(), "true");
}

pub(crate) fn a_killed_worker_is_replaced(world: &World) {
    let shared = ready(world);
    writer(world, &shared);
    for round in 0..3 {
        let killed = worker(&shared).expect("it serves");
        killed.kill();
        fs::write(format!("{shared}/round"), round.to_string()).expect("scratch");
        eventually("another worker", PATIENCE, || {
            worker(&shared).is_some_and(|worker| worker.pid != killed.pid)
        });
        let seen = world.guest(PROFILE, &format!("cat {shared}/round"));
        assert_eq!(seen, round.to_string());
        ticks_on(&shared);
        still_writes(world);
    }
}

pub(crate) fn a_killed_daemon_takes_its_workers_along(world: &World) {
    let shared = ready(world);
    writer(world, &shared);
    let old = worker(&shared).expect("it serves");
    world.daemon(PROFILE).kill();
    eventually("the end of the worker", PATIENCE, || {
        worker(&shared).is_none_or(|worker| worker.pid != old.pid)
    });
    // Whatever asks next starts a daemon, and with it the workers.
    eventually("a healthy status", PATIENCE, || {
        world
            .status()
            .is_some_and(|status| status["state"] == "running")
    });
    assert_ne!(worker(&shared).expect("a new one").pid, old.pid);
    assert_eq!(
        world.guest(PROFILE, &format!("ls {shared}/ticks")),
        format!("{shared}/ticks")
    );
    still_writes(world);
    ticks_on(&shared);
    world.docker(["rm", "--force", "writes"]).ok();
}

/// The second wall, and that a worker says that it stands.
pub(crate) fn workers_have_nothing_else(world: &World) {
    let shared = ready(world);
    let worker = worker(&shared).expect("it serves");
    let status = read(format!("/proc/{}/status", worker.pid));
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.expect("proc(5) has it").trim().to_owned()
    };
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("CapEff:").trim_matches('0'), "");
    assert_eq!(line("Seccomp:"), "2", "a filter");
    let log = read(world.home.join(PROFILE).join("daemon.log"));
    let told = format!("{shared}: its worker ");
    assert!(log.contains(&told), "{log}");
}

/// What root in containers does to owners, modes and special nodes is so for the machine, and on the host nothing that
/// its user could not have made. It outlives the worker, and the daemon.
pub(crate) fn owners_and_nodes_are_kept(world: &World) {
    let shared = ready(world);
    let make = "rm -rf owned && mkdir owned && cd owned && cp /bin/busybox tool && chown 999:998 tool && chmod 4755 tool && \
                mknod null c 1 3 && mknod pipe p && ln -s tool link && chown -h 7:8 link && \
                echo secret > data && chown 999:999 data && chmod 600 data && mkdir db && chown 70:70 db && chmod 700 db";
    let look = "cd /y/owned && stat -c '%n %u:%g %a %F' tool null pipe link data db";
    let expected = "tool 999:998 4755 regular file\nnull 0:0 644 character special file\npipe 0:0 644 fifo\n\
                    link 7:8 777 symbolic link\ndata 999:999 600 regular file\ndb 70:70 700 directory";
    assert_eq!(container(world, &format!("{make} && {look}")), expected);
    let user = fs::metadata(&shared).expect("it is there").uid();
    for name in ["tool", "null", "pipe", "link", "data", "db"] {
        let found = fs::symlink_metadata(format!("{shared}/owned/{name}")).expect(name);
        assert_eq!(found.uid(), user, "{name}");
        assert_eq!(found.mode() & 0o6000, 0, "{name}");
        assert!(
            found.is_file() || found.is_dir() || found.is_symlink(),
            "{name}"
        );
    }
    let killed = worker(&shared).expect("it serves");
    killed.kill();
    eventually("another worker", PATIENCE, || {
        worker(&shared).is_some_and(|worker| worker.pid != killed.pid)
    });
    assert_eq!(container(world, look), expected);
    world.daemon(PROFILE).kill();
    eventually("a healthy status", PATIENCE, || {
        world
            .status()
            .is_some_and(|status| status["state"] == "running")
    });
    assert_eq!(container(world, look), expected);
    // What the host's user has is the guest's user's, whoever they are.
    fs::write(format!("{shared}/of the host"), "host\n").expect("scratch");
    let script = format!(
        "echo guest >> '{shared}/of the host' && stat -c %U '{shared}/of the host' && id -un"
    );
    let said = world.colima(["ssh", "--", "sh", "-c", &script]).ok();
    let (owner, name) = said.text().split_once('\n').expect("two lines");
    assert_eq!(owner, name);
    assert_eq!(read(format!("{shared}/of the host")), "host\nguest\n");
    assert_eq!(
        container(world, "rm -r owned && ls -d owned 2>&1 | wc -l"),
        "1"
    );
}

/// The home directory of the host's user, shared: what that user runs without looking cannot be written, and what is ours
/// cannot be seen.
pub(crate) fn keys_and_state_are_out_of_reach(world: &World) {
    ready(world);
    let home = world.host_home();
    fs::create_dir_all(home.join(".ssh")).expect("scratch");
    fs::write(home.join(".ssh/authorized_keys"), "mine\n").expect("scratch");
    let home = home.to_str().expect("text").to_owned();
    world
        .colima(["mount", "add", &format!("{home}:/theirs:w")])
        .ok();
    let tries = [
        "echo x >> .ssh/authorized_keys",
        "echo x > .ssh/config",
        "rm -r .ssh",
        "mv .ssh elsewhere",
        "ln .ssh/authorized_keys here && echo x >> here",
        "echo x > .bashrc",
        "mkdir -p .config/autostart && echo x > .config/autostart/x.desktop",
    ];
    for script in tries {
        let script = format!(
            "cd /theirs && if {{ {script}; }} 2>/dev/null; then echo done; else echo refused; fi"
        );
        assert_eq!(world.guest(PROFILE, &script), "refused", "{script}");
    }
    assert_eq!(
        world.guest(PROFILE, "cat /theirs/.ssh/authorized_keys"),
        "mine"
    );
    assert_eq!(read(format!("{home}/.ssh/authorized_keys")), "mine\n");
    assert!(!Path::new(&home).join(".bashrc").exists());
    let log = read(world.home.join(PROFILE).join("daemon.log"));
    let told = format!("{home}/.ssh stays as it is");
    assert_eq!(log.matches(&told).count(), 1, "{log}");
    assert!(log.contains("protect in colima.yaml"), "{log}");
    // Who names it wants it.
    let keys = format!("{home}/.ssh:/keys:w");
    world.colima(["mount", "add", &keys]).ok();
    world.guest(PROFILE, "echo theirs >> /keys/authorized_keys");
    assert_eq!(
        read(format!("{home}/.ssh/authorized_keys")),
        "mine\ntheirs\n"
    );

    let above = world.home.parent().expect("it lies somewhere");
    let state = world
        .home
        .file_name()
        .and_then(OsStr::to_str)
        .expect("text");
    world
        .colima(["mount", "add", &format!("{}:/above:w", above.display())])
        .ok();
    let names = world.guest(PROFILE, "ls -A /above");
    assert!(names.lines().any(|name| name == "scratch"), "{names}");
    assert!(!names.lines().any(|name| name == state), "{names}");
    let script = format!(
        "cd /above; ls {state}/{PROFILE} 2>&1 | tail -1; mkdir {state} 2>/dev/null || echo refused"
    );
    let said = world.guest(PROFILE, &script);
    assert!(said.contains("No such file"), "{said}");
    assert!(said.ends_with("refused"), "{said}");
    for path in ["/above", "/keys", "/theirs"] {
        world.colima(["mount", "remove", path]).ok();
    }
}

/// The process that answers the guest's kernel dies; another one goes on under the same mount, and so does what runs on it.
pub(crate) fn a_killed_server_of_the_guest_is_followed(world: &World) {
    let shared = ready(world);
    fs::write(format!("{shared}/there"), "there").expect("scratch");
    world.docker(["rm", "--force", "writes"]).finish();
    let _ = fs::remove_file(format!("{shared}/ticks"));
    let volume = format!("{shared}:/y");
    let run = [
        "run",
        "--detach",
        "--init",
        "--name",
        "writes",
        "--volume",
        &volume,
        "--workdir",
        "/y",
    ];
    // What was written and not flushed is an error once.
    let script = "exec 3>ticks; while :; do echo tick >&3; sleep 0.2; done";
    world.docker(run).args([IMAGE, "sh", "-c", script]).ok();
    ticks_on(&shared);
    let main = "main=$(systemctl show --property MainPID --value colima-mount@1.service)";
    let server = "server=$(cat /proc/$main/task/$main/children)";
    let same = format!(
        "{main}; echo $main; awk '$5 == \"{shared}\" {{ print $1, $3 }}' /proc/self/mountinfo"
    );
    let before = world.guest(PROFILE, &same);
    assert_eq!(before.lines().count(), 2, "{before}");
    for _ in 0..3 {
        let kill = format!("{main}; {server}; kill -9 $server; echo $server");
        let killed = world.guest(PROFILE, &kill);
        assert!(killed.parse::<u32>().is_ok(), "one server: {killed:?}");
        ticks_on(&shared);
        still_writes(world);
        let seen = world.docker(["exec", "writes", "cat", "there"]).ok();
        assert_eq!(seen.text(), "there");
        let next = world.guest(PROFILE, &format!("{main}; {server}; echo $server"));
        assert_ne!(next, killed);
        assert_eq!(world.guest(PROFILE, &same), before, "the same mount");
    }
    world.docker(["rm", "--force", "writes"]).ok();
    eventually("a healthy status", PATIENCE, || {
        world
            .status()
            .is_some_and(|status| status["state"] == "running")
    });
}

/// The keeper of the mount in the guest dies; a new one mounts the path.
pub(crate) fn a_killed_client_is_replaced(world: &World) {
    let shared = ready(world);
    fs::write(format!("{shared}/there"), "there").expect("scratch");
    let main = "systemctl show --property MainPID --value colima-mount@1.service";
    let old = world.guest(PROFILE, &format!("pid=$({main}); kill -9 $pid; echo $pid"));
    eventually("another client", PATIENCE, || {
        let seen = format!("cat {shared}/there 2>/dev/null; {main}");
        let seen = world.guest(PROFILE, &seen);
        seen.starts_with("there") && !seen.ends_with(&old)
    });
    eventually("a healthy status", PATIENCE, || {
        world
            .status()
            .is_some_and(|status| status["state"] == "running")
    });
}

fn refused(world: &World, directory: &str, why: &str) {
    let finished = world.colima(["mount", "add", directory]).finish();
    assert!(!finished.status.success(), "{directory} was shared");
    let said = complaint(&finished);
    assert!(said.contains(why), "{directory}: {said}");
}

fn complaint(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stderr).into_owned()
}

pub(crate) fn they_come_and_go(world: &World) {
    ready(world);
    let more = world.scratch.join("more room");
    fs::create_dir_all(&more).expect("scratch");
    fs::write(more.join("file"), "more").expect("scratch");
    let more = more.to_str().expect("text").to_owned();
    let before = read(world.home.join(PROFILE).join("colima.yaml"));
    world
        .colima(["mount", "add", &format!("{more}:/more:w")])
        .ok();
    world
        .colima(["mount", "add", &format!("{more}:/more:w")])
        .ok(); // again is fine
    let volume = "/more:/y";
    world.docker(["rm", "--force", "holds"]).finish();
    let run = [
        "run", "--detach", "--init", "--name", "holds", "--volume", volume,
    ];
    world.docker(run).args([IMAGE, "sleep", "1000000"]).ok();
    assert_eq!(
        world
            .docker(["exec", "holds", "cat", "/y/file"])
            .ok()
            .text(),
        "more"
    );
    let list = world.colima(["mount", "list"]).ok();
    assert!(list.text().contains("/more"), "{list}");
    // The next daemon knows of it.
    world.daemon(PROFILE).kill();
    let list = world.colima(["mount", "list", "--json"]).ok();
    assert_eq!(list.text().lines().count(), 3, "{list}");
    let start = world.colima(["start"]).ok();
    assert!(complaint(&start).contains("mounts"), "{start}");
    let busy = world.colima(["mount", "remove", "/more"]).finish();
    assert!(!busy.status.success(), "a container has it");
    assert!(complaint(&busy).contains("of a container has it"), "{busy}");
    world.docker(["rm", "--force", "holds"]).ok();
    world.colima(["mount", "remove", &more]).ok();
    assert_eq!(world.guest(PROFILE, "ls -A /more | wc -l"), "0");
    assert!(worker(&more).is_none(), "nobody needs it");
    refused(
        world,
        &format!("{more}:/etc/x"),
        "the guest's configuration",
    );
    refused(world, "/proc", "the guest's kernel");
    refused(world, &format!("{more}/missing"), "No such file");
    refused(
        world,
        &format!("{more}/file"),
        "only a directory can be shared",
    );
    let after = read(world.home.join(PROFILE).join("colima.yaml"));
    assert_eq!(after, before, "nobody said --save");
}

pub(crate) fn ssh_begins_where_we_are(world: &World) {
    let shared = ready(world);
    let place = format!("{shared}/some where");
    fs::create_dir_all(&place).expect("scratch");
    let program = world.program.to_str().expect("text");
    let here = |directory: &str| {
        let script = "cd \"$1\" && exec \"$2\" ssh -- pwd";
        let run = Run::new("sh").args(["-c", script, "sh", directory, program]);
        let run = run.env("COLIMA_HOME", &world.home);
        run.without_env("COLIMA_PROFILE").ok().text().to_owned()
    };
    assert_eq!(here(&place), place);
    let home = world.colima(["ssh", "--", "sh", "-c", "echo ~"]).ok();
    assert_eq!(here("/"), home.text(), "not shared");
}

/// The small machine has what is usual; its user's own home is elsewhere.
pub(crate) fn the_home_is_shared_by_default(world: &World) {
    let home = world.host_home();
    let home = home.to_str().expect("text");
    fs::write(format!("{home}/mine"), "mine").expect("scratch");
    assert_eq!(
        world.guest(OTHER_PROFILE, &format!("cat {home}/mine")),
        "mine"
    );
    world.guest(OTHER_PROFILE, &format!("echo x > {home}/theirs"));
    assert_eq!(read(format!("{home}/theirs")), "x\n");
    let ssh = ["ssh", "--profile", OTHER_PROFILE, "--", "sh", "-c"];
    let own = world.colima(ssh).args(["cd && touch own && pwd"]).ok();
    assert!(own.text().ends_with(".guest"), "{own}");
    assert!(!Path::new(home).join("own").exists());
    let usual = format!("/tmp/colima-{OTHER_PROFILE}");
    assert_eq!(
        world.guest(
            OTHER_PROFILE,
            &format!("test -d {usual} && mountpoint {usual}")
        ),
        format!("{usual} is a mountpoint")
    );
    let private = fs::metadata(&usual).expect("it was made");
    assert_eq!(private.mode() & 0o777, 0o700);
}
