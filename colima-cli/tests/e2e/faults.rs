//! What breaks while a machine runs: told at once with its cause, mended by what the hint says or by itself, and nothing
//! that runs inside is lost.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    command::{PATIENCE, Run},
    process::{self, Process},
    resources::Setting,
    world::{BOOT, OTHER_PROFILE, PROFILE, World, eventually},
};

/// The program's own limit is two seconds; the machine that tests run on may be as slow as this.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A way to break something, what `status` has to say then, and how it becomes whole.
struct Fault {
    name: &'static str,
    inflict: fn(&World),
    state: &'static str,
    cause: &'static str,
    mend: fn(&World),
}

const FAULTS: [Fault; 7] = [
    Fault {
        name: "the machine is stopped by a signal",
        inflict: |world| world.qemu(PROFILE).signal(Signal::STOP),
        state: "degraded",
        cause: "a signal has stopped the virtual machine",
        mend: as_hinted,
    },
    Fault {
        name: "the daemon is stopped by a signal",
        inflict: |world| world.daemon(PROFILE).signal(Signal::STOP),
        state: "broken",
        cause: "does not respond",
        mend: as_hinted,
    },
    Fault {
        name: "a worker is stopped by a signal",
        inflict: |world| worker(world).signal(Signal::STOP),
        state: "degraded",
        cause: "a signal has stopped its worker",
        mend: |world| worker(world).signal(Signal::CONT),
    },
    Fault {
        name: "the agent is stopped by a signal",
        // Whoever lets it go on cannot be asked over the agent.
        inflict: |world| {
            let script = "pid=$(systemctl show --property MainPID --value colima-agent.service)
                systemd-run --quiet sh -c \"sleep 1; kill -STOP $pid; sleep 30; kill -CONT $pid\"";
            world.guest(PROFILE, script);
        },
        state: "degraded",
        cause: "the guest's agent does not answer",
        mend: |_| {},
    },
    Fault {
        name: "docker is stopped",
        inflict: |world| {
            world.guest(PROFILE, "systemctl stop docker.socket docker.service");
        },
        state: "degraded",
        cause: "docker does not answer",
        mend: |world| {
            world.guest(PROFILE, "systemctl start docker.socket docker.service");
        },
    },
    Fault {
        name: "the clock is wrong",
        inflict: |world| {
            world.guest(PROFILE, "date --set='1 day ago'");
        },
        state: "degraded",
        cause: "s behind",
        mend: as_hinted,
    },
    Fault {
        name: "the data disk is nearly full",
        inflict: |world| {
            let script = "left=$(df --block-size=1 --output=avail /mnt/colima-data | tail -n 1)
                fallocate --length $((left - 100000000)) /mnt/colima-data/filler";
            world.guest(PROFILE, script);
        },
        state: "degraded",
        cause: "the data disk is nearly full",
        mend: |world| {
            world.guest(PROFILE, "rm /mnt/colima-data/filler; sync");
        },
    },
];

/// One after the other, each on a machine that is whole.
pub(crate) fn each_is_told_and_mended(world: &World) {
    world.machine_runs();
    world.idle_container("bystander");
    let began = began(world);
    for fault in &FAULTS {
        whole(world);
        (fault.inflict)(world);
        let told = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            let status = look(world);
            let took = asked.elapsed();
            assert!(took < AT_ONCE, "{}: told after {took:?}", fault.name);
            if status["state"] == fault.state && says(&status, fault.cause) {
                println!("{}: told in {took:.2?}", fault.name);
                break;
            }
            // The agent is stopped a second after it was asked to be.
            assert!(Instant::now() < told, "{}: {status}", fault.name);
        }
        (fault.mend)(world);
        whole(world);
    }
    // Docker was stopped, so that every container was, too; this one has no policy.
    assert_ne!(began, "");
    world.docker(["start", "bystander"]).ok();
    world.docker(["exec", "bystander", "true"]).ok();
}

/// Everything of ours stands still together, as on a host that sleeps. It goes on without a command.
pub(crate) fn a_sleep_is_noticed(world: &World) {
    world.machine_runs();
    world.idle_container("sleeper");
    let mut events = world.colima(["events", "--json"]).spawn();
    events.wait_for_stdout("running");
    let all: Vec<Process> = std::iter::once(world.daemon(PROFILE))
        .chain(std::iter::once(world.qemu(PROFILE)))
        .chain(process::workers(&shared(world)))
        .collect();
    all.iter().for_each(|process| process.signal(Signal::STOP));
    std::thread::sleep(Duration::from_secs(12));
    all.iter().for_each(|process| process.signal(Signal::CONT));
    eventually("docker on the host's socket", PATIENCE, || {
        ping(&world.docker_socket(PROFILE)).is_ok()
    });
    events.wait_for_stdout("slept");
    events.process().signal(Signal::INT);
    events.finish(PATIENCE);
    world.docker(["exec", "sleeper", "true"]).ok();
    let guest: f64 = world
        .guest(PROFILE, "date +%s.%N")
        .parse()
        .expect("seconds");
    let host = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let off = host.expect("after 1970").as_secs_f64() - guest;
    // The answer was on its way for a while.
    assert!((-2.0..20.0).contains(&off), "{off} s");
    whole(world);
}

/// The data disk lies on a file system that fills up: the machine waits, says so, and goes on when there is room. What was
/// written is there.
pub(crate) fn a_full_host_disk_is_waited_for(world: &World, setting: &Setting) {
    let delete = ["delete", "--data", "--force", "--profile", OTHER_PROFILE];
    world.colima(delete).finish();
    let directory = world.home.join("_disks").join("colima-small");
    fs::create_dir_all(&directory).expect("the home of the tests can be written");
    let small = SmallDisk::mount(&directory);
    setting.start(world, OTHER_PROFILE);
    let mut events = world
        .colima(["events", "--json", "--profile", OTHER_PROFILE])
        .spawn();
    events.wait_for_stdout("running");
    let write = "dd if=/dev/urandom of=/mnt/colima-data/big bs=1M count=400 conv=fsync status=none; \
                 sha256sum < /mnt/colima-data/big > /root/sum";
    let script = format!("systemd-run --quiet --unit big sh -c '{write}'");
    world.guest(OTHER_PROFILE, &script);
    events.wait_for_stdout("disk_full");
    let asked = Instant::now();
    let status = look_at(world, OTHER_PROFILE);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert_eq!(status["state"], "degraded", "{status}");
    assert!(says(&status, "the virtual machine is paused"), "{status}");
    small.grow();
    events.wait_for_stdout("continued");
    events.process().signal(Signal::INT);
    events.finish(PATIENCE);
    let same = "while systemctl --quiet is-active big; do sleep 1; done
        echo 3 > /proc/sys/vm/drop_caches
        sha256sum < /mnt/colima-data/big | cmp - /root/sum && dmesg | grep -c -i 'I/O error' || true";
    assert_eq!(world.guest(OTHER_PROFILE, same), "0");
    // A place that something is mounted on cannot be removed.
    let stop = ["stop", "--force", "--profile", OTHER_PROFILE];
    world.colima(stop).limit(BOOT).ok();
    drop(small);
    world.colima(delete).limit(BOOT).ok();
}

/// A file system in memory, taken away in the end.
struct SmallDisk(String);

impl SmallDisk {
    fn mount(directory: &std::path::Path) -> Self {
        let directory = directory.to_str().expect("text").to_owned();
        let options = ["-t", "tmpfs", "-o", "size=200M,mode=0700", "tmpfs"];
        Run::new("mount").args(options).args([&directory]).ok();
        Self(directory)
    }

    fn grow(&self) {
        let options = ["-o", "remount,size=800M"];
        Run::new("mount").args(options).args([&self.0]).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Run::new("umount").args(["--lazy", &self.0]).finish();
    }
}

fn shared(world: &World) -> String {
    world.shared().to_str().expect("text").to_owned()
}

fn worker(world: &World) -> Process {
    let mut workers = process::workers(&shared(world));
    workers.pop().expect("it serves")
}

fn began(world: &World) -> String {
    let format = "{{.State.StartedAt}}";
    let inspect = ["container", "inspect", "--format", format, "bystander"];
    world.docker(inspect).ok().text().to_owned()
}

/// `status --json`, whatever its exit code.
fn look(world: &World) -> Value {
    look_at(world, PROFILE)
}

fn look_at(world: &World, profile: &str) -> Value {
    let status = ["status", "--json", "--profile", profile];
    world.colima(status).limit(PATIENCE).finish().json()
}

fn says(status: &Value, cause: &str) -> bool {
    let problems = status["problems"].as_array().into_iter().flatten();
    let mut problems = problems.filter(|problem| problem["hint"] != "");
    problems.any(|problem| {
        problem["what"]
            .as_str()
            .is_some_and(|what| what.contains(cause))
    })
}

/// Does what the first hint says after its colon.
fn as_hinted(world: &World) {
    let status = look(world);
    let hint = status["problems"][0]["hint"].as_str().unwrap_or_default();
    let (_, command) = hint.rsplit_once(": ").expect("a command");
    let path = format!(
        "{}:{}",
        world.program.parent().expect("in a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let shell = Run::new("sh").args(["-c", command]).env("PATH", path);
    shell
        .env("COLIMA_HOME", &world.home)
        .env("HOME", world.host_home())
        .ok();
}

fn whole(world: &World) {
    eventually("a healthy status", PATIENCE, || {
        look(world)["state"] == "running"
    });
}

/// As a docker client that was not told of anything.
fn ping(socket: &std::path::Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(AT_ONCE))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
