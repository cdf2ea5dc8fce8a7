//! A process behind the second wall attacks what is outside, with system calls of its own and no resolver.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{BorrowedFd, RawFd},
        unix::fs::{chown, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use colima_mount::{
    Access,
    server::confine::{Confinement, FileWall, Wall},
};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use crate::{
    peers,
    worker::{self, Worker},
};

const SECRET: &str = "a secret of the host";

/// A share with a way out of every kind, beside a directory that its user may do everything to.
struct Place {
    above: tempfile::TempDir,
}

impl Place {
    fn new(attacker: &Worker) -> Self {
        let (user, group) = attacker.user();
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        fs::create_dir(at("share")).unwrap();
        fs::create_dir_all(at("outside/directory")).unwrap();
        fs::write(at("outside/secret"), SECRET).unwrap();
        fs::write(at("share/file"), "inside").unwrap();
        fs::create_dir(at("share/inner")).unwrap();
        fs::write(at("share/inner/secret"), "inside").unwrap();
        symlink(at("outside"), at("share/absolute")).unwrap();
        symlink("../outside", at("share/relative")).unwrap();
        symlink("/", at("share/top")).unwrap();
        for name in [
            "",
            "share",
            "share/file",
            "share/inner",
            "share/inner/secret",
            "outside",
            "outside/secret",
            "outside/directory",
        ] {
            chown(at(name), Some(user), Some(group)).unwrap();
        }
        Self { above }
    }

    fn share(&self) -> PathBuf {
        self.above.path().join("share")
    }

    /// Everything outside: names, content, modes.
    fn outside(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        peers::everything_in(&self.above.path().join("outside"))
    }
}

/// Whether a test of this file can run; prints why not.
fn possible(test: &str, wall: Wall) -> bool {
    let mut missing = None;
    if !rustix::process::geteuid().is_root() {
        missing = Some("needs root, to be another user");
    } else if !Path::new("/proc/self/ns/user").exists() && wall == Wall::Namespace {
        missing = Some("no user namespaces here");
    } else if fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|lsm| !lsm.contains("landlock"))
        && wall == Wall::Landlock
    {
        missing = Some("no Landlock here");
    }
    if let Some(missing) = missing {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        let () = println!("skipped: {test}: {missing}");
    }
    missing.is_none()
}

fn attack(attacker: &Worker, access: Access) {
    let place = Place::new(attacker);
    let before = place.outside();
    assert_eq!(before.len(), 2);
    let test = "confined::attacks_what_is_outside";
    let (_stream, mut child) = attacker.spawn(test, &place.share(), access);
    assert!(child.wait().unwrap().success());
    assert_eq!(place.outside(), before);
    if access == Access::ReadOnly {
        assert_eq!(fs::read(place.share().join("file")).unwrap(), b"inside");
    }
}

#[test]
fn nothing_outside_is_reached_from_the_namespaces() {
    const TEST: &str = "nothing_outside_is_reached_from_the_namespaces";
    if possible(TEST, Wall::Namespace) {
        let attacker = Worker::default().behind(Wall::Namespace);
        attack(&attacker, Access::ReadWrite);
        attack(&attacker, Access::ReadOnly);
        attack(&attacker.of_root(), Access::ReadWrite);
    }
}

#[test]
fn nothing_outside_is_read_or_changed_behind_landlock() {
    const TEST: &str = "nothing_outside_is_read_or_changed_behind_landlock";
    if possible(TEST, Wall::Landlock) {
        let attacker = Worker::default().behind(Wall::Landlock);
        attack(&attacker, Access::ReadWrite);
        attack(&attacker, Access::ReadOnly);
        attack(&attacker.of_root(), Access::ReadWrite);
    }
}

/// Where the confined process has its share.
fn seen_at(files: FileWall, share: &Path) -> PathBuf {
    if files == FileWall::Namespace {
        "/share".into()
    } else {
        share.to_owned()
    }
}

#[test]
#[ignore = "started by the tests of each wall"]
fn attacks_what_is_outside() {
    let (share, access) = worker::share();
    worker::confined(|confined| {
        let here = seen_at(confined.walls.files, &share);
        let above = share.parent().unwrap();
        // It does work inside.
        assert_eq!(fs::read(here.join("file")).unwrap(), b"inside");
        let written = fs::write(here.join("new"), "inside");
        assert_eq!(written.is_ok(), access == Access::ReadWrite, "{written:?}");
        let made = fs::create_dir(here.join("d"));
        assert_eq!(made.is_ok(), access == Access::ReadWrite, "{made:?}");
        if access == Access::ReadOnly {
            refused("a read-only share", fs::remove_file(here.join("file")));
        } else {
            fs::write(here.join("mine"), "mine").unwrap();
        }

        let mut ways = vec![above.join("outside")];
        ways.extend(["absolute", "relative", "top/etc/.."].map(|link| here.join(link)));
        ways.push(here.join("../outside"));
        ways.push(here.join("inner/../../outside"));
        ways.push(PathBuf::from("/proc/1/root").join(above.strip_prefix("/").unwrap()));
        for way in &ways {
            by_path(way, &here);
        }
        for path in [
            "/etc/passwd",
            "/proc/self/environ",
            "/proc/1/environ",
            "/dev/null",
        ] {
            refused(path, File::open(path));
        }
        for fd in 0..1024 {
            by_descriptor(fd, above);
        }
        by_call();
        if confined.walls.files == FileWall::Namespace {
            for path in ["/etc", "/tmp", "/proc/1", "/dev"] {
                refused(path, fs::symlink_metadata(path));
            }
        }
    });
}

fn refused<T>(what: impl AsRef<Path>, result: io::Result<T>) {
    let worked = result.map(drop).is_ok();
    assert!(!worked, "{} works", what.as_ref().display());
}

fn by_path(outside: &Path, here: &Path) {
    let at = |name: &str| outside.join(name);
    refused("reading", fs::read(at("secret")));
    refused("listing", fs::read_dir(at("directory")));
    refused("writing", OpenOptions::new().write(true).open(at("secret")));
    let mut truncating = OpenOptions::new();
    refused(
        "truncating",
        truncating.write(true).truncate(true).open(at("secret")),
    );
    refused("creating", fs::write(at("planted"), "x"));
    refused("making a directory", fs::create_dir(at("planted")));
    refused("making a link", symlink("x", at("planted")));
    refused("removing", fs::remove_file(at("secret")));
    refused("removing a directory", fs::remove_dir(at("directory")));
    refused("renaming", fs::rename(at("secret"), at("other")));
    refused("taking", fs::rename(at("secret"), here.join("taken")));
    refused("giving", fs::rename(here.join("mine"), at("planted")));
    refused("linking", fs::hard_link(at("secret"), here.join("taken")));
    refused(
        "linking out",
        fs::hard_link(here.join("mine"), at("planted")),
    );
}

fn by_descriptor(fd: RawFd, above: &Path) {
    #[expect(unsafe_code, reason = "an attacker has every number")]
    // SAFETY: most are closed, and the kernel says so; what is open stays so.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let name = above.file_name().unwrap();
    for up in ["..", "../..", "../../.."] {
        for rest in [Path::new("outside"), &Path::new(name).join("outside")] {
            let path = Path::new(up).join(rest);
            let read = rustix::fs::openat(fd, path.join("secret"), OFlags::RDONLY, Mode::empty());
            refused("reading by descriptor", read.map_err(io::Error::from));
            let planted = rustix::fs::mkdirat(fd, path.join("planted"), Mode::RWXU);
            refused("planting by descriptor", planted.map_err(io::Error::from));
        }
    }
    let up = rustix::fs::openat(fd, "../../../etc/passwd", OFlags::RDONLY, Mode::empty());
    refused("climbing", up.map_err(io::Error::from));
}

fn by_call() {
    use std::net::{TcpStream, UdpSocket};

    refused("a socket", UdpSocket::bind("127.0.0.1:0"));
    refused("a connection", TcpStream::connect("127.0.0.1:1"));
    refused(
        "a unix socket",
        std::os::unix::net::UnixStream::connect("x"),
    );
    refused(
        "a program",
        std::process::Command::new("/bin/true").status(),
    );
    let parent = rustix::process::getppid();
    if let Some(parent) = parent {
        let alive = rustix::process::test_kill_process(parent);
        refused("a signal", alive.map_err(io::Error::from));
    }
    let root = rustix::process::chroot(".");
    refused("another root", root.map_err(io::Error::from));
    let flags = rustix::mount::MountFlags::empty();
    let mounted = rustix::mount::mount("x", ".", "tmpfs", flags, c"");
    refused("a mount", mounted.map_err(io::Error::from));
    let rlimit = rustix::process::Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    let raised = rustix::process::setrlimit(rustix::process::Resource::Nofile, rlimit);
    refused("more descriptors", raised.map_err(io::Error::from));
}

/// Swaps a directory of the share with a link out of it while a confined process, which follows links, uses
/// the name.
fn swaps(test: &str, wall: Wall) {
    if !possible(test, wall) {
        return;
    }
    let attacker = Worker::default().behind(wall);
    let place = Place::new(&attacker);
    let before = place.outside();
    let test = "confined::uses_a_name_that_is_swapped";
    let (mut stream, mut child) = attacker.spawn(test, &place.share(), Access::ReadWrite);
    let mut ready = [0];
    stream.read_exact(&mut ready).unwrap();
    let torture = std::env::var("COLIMA_TORTURE_SECONDS").ok();
    let seconds = torture.and_then(|seconds| seconds.parse().ok());
    let (swaps, until) = match seconds {
        Some(seconds) => (1_000_000, Duration::from_secs(seconds) / 4),
        None => (20_000, Duration::from_secs(10)),
    };
    let until = Instant::now() + until;
    let inner = place.share().join("inner");
    let link = place.share().join("absolute");
    let mut done = 0;
    while done < swaps {
        done += 1;
        rustix::fs::renameat_with(CWD, &inner, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        if Instant::now() > until {
            break;
        }
    }
    drop(stream);
    assert!(child.wait().unwrap().success());
    assert_eq!(place.outside(), before);
    #[expect(clippy::print_stdout, reason = "a measurement")]
    let () = println!("{done} swaps");
}

/// What shows that the tests above would fail.
#[test]
fn without_a_wall_the_attacks_succeed() {
    if !possible("without_a_wall_the_attacks_succeed", Wall::Filter) {
        return;
    }
    let attacker = Worker::default().behind(Wall::Filter);
    let place = Place::new(&attacker);
    for test in ["attacks_what_is_outside", "uses_a_name_that_is_swapped"] {
        let test = format!("confined::{test}");
        let (stream, mut child) = attacker.spawn(&test, &place.share(), Access::ReadWrite);
        let (inner, link) = (place.share().join("inner"), place.share().join("absolute"));
        // Until it has read what it should not, and ends; a pipe that broke is one that has.
        while child.try_wait().unwrap().is_none() {
            rustix::fs::renameat_with(CWD, &inner, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        }
        drop(stream);
        assert!(!child.wait().unwrap().success(), "{test}");
    }
}

#[test]
fn swapped_names_lead_nowhere_from_the_namespaces() {
    swaps(
        "swapped_names_lead_nowhere_from_the_namespaces",
        Wall::Namespace,
    );
}

#[test]
fn swapped_names_lead_nowhere_behind_landlock() {
    swaps("swapped_names_lead_nowhere_behind_landlock", Wall::Landlock);
}

#[test]
#[ignore = "started by the tests with swaps"]
fn uses_a_name_that_is_swapped() {
    let (share, _) = worker::share();
    worker::confined(|confined| {
        let here = seen_at(confined.walls.files, &share).join("inner");
        let mut stream = {
            use std::os::fd::AsFd as _;
            File::from(io::stdin().as_fd().try_clone_to_owned().unwrap())
        };
        stream.write_all(b"!").unwrap();
        let flags = rustix::fs::fcntl_getfl(&stream).unwrap();
        rustix::fs::fcntl_setfl(&stream, flags | OFlags::NONBLOCK).unwrap();
        let (mut inside, mut nowhere) = (0, 0);
        // Until the other end is closed.
        while stream.read(&mut [0]).is_err() {
            match fs::read_to_string(here.join("secret")) {
                Ok(text) if text == "inside" => inside += 1,
                Ok(text) => panic!("read {text}"),
                Err(_) => nowhere += 1,
            }
            let planted = here.join("planted");
            if fs::write(&planted, "x").is_ok() {
                let _ = fs::rename(&planted, here.join("again"));
                let _ = fs::remove_file(here.join("again"));
            }
            let _ = fs::create_dir(here.join("d"));
            let _ = fs::remove_dir(here.join("d"));
        }
        assert!(inside > 0 && nowhere > 0, "{inside} inside, {nowhere} not");
    });
}

#[test]
fn a_process_with_threads_is_not_confined_in_part() {
    let share = tempfile::tempdir().unwrap();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    let open = File::open(share.path()).unwrap();
    let error = Confinement::new(open.into(), Access::ReadOnly)
        .enter()
        .unwrap_err();
    assert!(error.to_string().starts_with("the process has "), "{error}");
    drop(done);
    let _ = other.join();
    // Nothing was given up.
    drop(std::os::unix::net::UnixStream::pair().unwrap());
}
