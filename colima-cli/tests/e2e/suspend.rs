//! Stop and start as sleep and waking: what runs inside does not notice.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use rustix::process::Signal;

use super::{
    command::PATIENCE,
    life::it_is_still_there,
    resources::boot_id,
    world::{BOOT, Form, IMAGE, PROFILE, World, eventually},
};

/// Counts in one process, sends each number over a connection that is opened once, and writes down what arrives.
/// Beside it a web server.
const COUNTER: &str = "\
echo hello > /tmp/index.html; httpd -p 80 -h /tmp
sleep 1000000 | nc -l -p 7 > /tmp/arrived & sleep 2
i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done | nc 127.0.0.1 7
";

/// A container that counts, and its port on the host.
struct Counter {
    port: u16,
}

impl Counter {
    fn begin(world: &World) -> Self {
        world.machine_runs();
        world.docker(["rm", "--force", "counter"]).finish();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback is up");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let publish = format!("{port}:80");
        let run = [
            "run",
            "--detach",
            "--init",
            "--name",
            "counter",
            "--publish",
        ];
        let run = world.docker(run).args([&publish[..], IMAGE]);
        run.args(["sh", "-c", COUNTER]).ok();
        let counter = Self { port };
        eventually("it counts", BOOT, || counter.arrived(world) > 3);
        counter
    }

    /// How many numbers have arrived, none of them missing and none twice.
    fn arrived(&self, world: &World) -> usize {
        let cat = ["exec", "counter", "cat", "/tmp/arrived"];
        let text = world.docker(cat).ok().text().to_owned();
        let numbers: Vec<usize> = text.lines().flat_map(str::parse).collect();
        let expected: Vec<usize> = (1..=numbers.len()).collect();
        assert_eq!(numbers, expected);
        numbers.len()
    }

    /// It goes on from where it was, over the same connection, and its port is open.
    fn goes_on(&self, world: &World, before: usize) -> usize {
        eventually("it goes on", BOOT, || self.arrived(world) > before);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("its port is open");
        stream.set_read_timeout(Some(BOOT)).expect("a duration");
        stream
            .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
            .expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.ends_with("hello\n"), "{answer:?}");
        self.arrived(world)
    }
}

pub(crate) fn what_runs_goes_on(world: &World) {
    let counter = Counter::begin(world);
    let boot = boot_id(world, PROFILE);
    let mut number = counter.arrived(world);
    let rounds = if world.form == Form::Long { 50 } else { 3 };
    for round in 0..rounds {
        let script = "echo connected; exec sleep 1000000";
        let mut client = world
            .docker(["exec", "counter", "sh", "-c", script])
            .spawn();
        client.wait_for_stdout("connected");
        let stopped = world.colima(["stop"]).ok();
        super::command_line::is_stopped(world);
        // It sees an end, and no silence.
        client.finish(PATIENCE);

        let started = world.colima(["start"]).ok();
        let clock = clock_error(world);
        assert!(clock < Duration::from_secs(1), "{clock:?}");
        assert!(started.complaint().contains("goes on"), "{started}");
        number = counter.goes_on(world, number);
        if round == 0 {
            println!("    {}", last_line(stopped.complaint()));
            println!("    {}", last_line(started.complaint()));
        }
    }
    assert_eq!(boot_id(world, PROFILE), boot);
    println!("    {rounds} rounds, {number} numbers over one connection");
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

/// How far the guest's clock is from ours at least; the question itself takes time.
fn clock_error(world: &World) -> Duration {
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
    };
    let before = now();
    let guest = world.guest(PROFILE, "date +%s%N");
    let after = now();
    let guest = Duration::from_nanos(guest.trim().parse().expect("nanoseconds"));
    before
        .saturating_sub(guest)
        .max(guest.saturating_sub(after))
}

pub(crate) fn a_stop_says_what_it_did(world: &World) {
    world.machine_runs();
    let stopped = world.colima(["stop"]).ok();
    let line = last_line(stopped.complaint());
    let words = [
        "suspended colima, ",
        " MiB on disk",
        "--shutdown powers off",
    ];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    let entry = world.colima(["list", "--json"]).ok().json();
    assert_eq!(
        (&entry["state"], &entry["status"]),
        (&"suspended".into(), &"Stopped".into())
    );
    let status = world.colima(["status"]).exits(3);
    assert!(status.complaint().contains("is suspended"), "{status}");
    let again = world.colima(["stop"]).ok();
    assert!(again.complaint().contains("suspended already"), "{again}");
    let dropped = world.colima(["stop", "--shutdown"]).ok();
    assert!(dropped.complaint().contains("is dropped"), "{dropped}");
    let entry = world.colima(["list", "--json"]).ok().json();
    assert_eq!(entry["state"], "stopped");

    // What is typed is stronger than what is there.
    world.machine_runs();
    let boot = boot_id(world, PROFILE);
    world.colima(["stop"]).ok();
    let cold = world.colima(["start", "--cold"]).ok();
    assert!(cold.complaint().contains("is dropped"), "{cold}");
    assert_ne!(boot_id(world, PROFILE), boot);
}

/// Killed in the middle of either, the same command again does it.
pub(crate) fn a_killed_daemon_loses_nothing(world: &World) {
    let counter = Counter::begin(world);
    let boot = boot_id(world, PROFILE);
    let mut number = counter.arrived(world);
    let rounds = if world.form == Form::Long { 20 } else { 2 };
    for _ in 0..rounds {
        for (command, step) in [
            ("stop", "suspending the machine"),
            ("start", "loading what was suspended"),
            ("start", "resuming the guest"),
        ] {
            if command == "start" {
                world.colima(["stop"]).ok();
            }
            let mut running = world.colima([command]).spawn();
            running.wait_for_stderr(step);
            if let [daemon] = &super::process::daemons(&world.home, PROFILE)[..] {
                daemon.kill();
            }
            running.finish(BOOT);
            world.colima([command]).ok();
            world.colima(["start"]).ok();
            let clock = clock_error(world);
            assert!(clock < Duration::from_secs(1), "{clock:?}");
            number = counter.goes_on(world, number);
        }
    }
    assert_eq!(boot_id(world, PROFILE), boot);
}

/// Ctrl-C leaves the machine suspended, or running: never half.
pub(crate) fn an_interrupted_start_is_one_or_the_other(world: &World) {
    let counter = Counter::begin(world);
    let number = counter.arrived(world);
    world.colima(["stop"]).ok();
    let mut start = world.colima(["start"]).spawn();
    start.wait_for_stderr("loading what was suspended");
    start.process().signal(Signal::INT);
    start.finish(BOOT);
    let entry = world.colima(["list", "--json"]).ok().json();
    let state = entry["state"].as_str().unwrap_or_default();
    assert!(["suspended", "running"].contains(&state), "{entry}");
    world.colima(["start"]).ok();
    counter.goes_on(world, number);
    world.docker(["rm", "--force", "counter"]).ok();
}

pub(crate) fn what_cannot_be_loaded_is_told_and_no_file_is_lost(world: &World) {
    world.machine_runs();
    world.docker(["rm", "--force", "writer"]).finish();
    let write = "head -c 3000000 /dev/urandom > /volume/file; sha256sum < /volume/file";
    let run = ["run", "--rm", "--volume", "unsynced:/volume", IMAGE];
    let written = world.docker(run).args(["sh", "-c", write]).ok();
    world.colima(["stop"]).ok();
    let state = world.home.join(PROFILE).join("machine/state.saved");
    let length = state.metadata().expect("it is suspended").len();
    let file = File::options().write(true).open(&state).expect("our own");
    file.set_len(length / 2).expect("it gets shorter");
    let started = world.colima(["start"]).ok();
    let told = "the suspended machine is dropped";
    assert!(started.complaint().contains(told), "{started}");
    let read = world
        .docker(run)
        .args(["sh", "-c", "sha256sum < /volume/file"])
        .ok();
    assert_eq!(read.text(), written.text());
    assert!(!state.exists());
}

pub(crate) fn new_settings_take_an_orderly_boot(world: &World) {
    world.machine_runs();
    let cpus = world.guest(PROFILE, "nproc");
    let other = if cpus == "1" { "2" } else { "1" };
    world.colima(["stop"]).ok();
    let started = world.colima(["start", "--cpus", other]).ok();
    let told = "a boot applies the new cpus: first it is shut down in order";
    assert!(started.complaint().contains(told), "{started}");
    assert_eq!(world.guest(PROFILE, "nproc"), other);
    it_is_still_there(world);
}
