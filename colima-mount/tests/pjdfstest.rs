//! The POSIX test suite `pjdfstest`, by root on a mount whose server is an ordinary user of the host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use colima_mount::server::confine::Wall;

use rustix::fs::{Mode, OFlags};

use crate::{mounted::Mounted, worker::Worker};

/// Tests that fail, and why.
const FAILING: &[(&str, &str)] = &[];

/// Tests that are not run, by what their names end in, how many, and why.
const SKIPPED: &[(&str, usize, &str)] = &[
    (
        "::erofs_named",
        9,
        "remounts by mount(8), whose helper for FUSE starts the source as a program",
    ),
    ("::erofs_new_file", 4, "the same"),
    (
        "link::link_count_max",
        1,
        "the file system of the host has no limit that it tells",
    ),
];

/// Where `make` puts the program, or where it is found by its name.
fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let built = test
        .ancestors()
        .map(|above| above.join("tools/bin/pjdfstest"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join("pjdfstest"));
    built.chain(found).find(|place| place.is_file())
}

#[test]
fn all_but_named_tests_of_pjdfstest_pass() {
    const TEST: &str = "all_but_named_tests_of_pjdfstest_pass";

    let Some(program) = program() else {
        println!("skipped: {TEST}: pjdfstest is not installed");
        return;
    };
    let side = tempfile::tempdir().unwrap();
    // All of it behind the second wall as well.
    let worker = Worker::with_side(side.path()).behind(Wall::Namespace);
    let Some(mount) = Mounted::by_worker(TEST, &worker) else {
        return;
    };
    let told = run(&program, &mount.here(""));
    let names = |how| told.lines().filter_map(move |line| name(line, how));
    assert!(names("ok").count() >= 380, "{told}");
    let failed: BTreeSet<_> = names("FAILED").collect();
    let named: BTreeSet<_> = FAILING.iter().map(|(name, _)| *name).collect();
    assert_eq!(failed, named, "{told}");
    let mut skipped: Vec<_> = names("skipped").collect();
    for (ending, count, why) in SKIPPED {
        let before = skipped.len();
        skipped.retain(|name| !name.ends_with(ending));
        assert_eq!(before - skipped.len(), *count, "{ending}: {why}:\n{told}");
    }
    assert!(skipped.is_empty(), "{skipped:?} are skipped:\n{told}");
    mount.close();
}

/// The test that a line is about, if it ended so.
fn name<'a>(line: &'a str, how: &str) -> Option<&'a str> {
    let line = line.strip_suffix(how)?.strip_suffix(' ')?;
    let name = line.trim_end();
    (name.contains("::") && !name.contains(' ')).then_some(name)
}

/// Runs the suite in a directory, and gives what it told.
fn run(program: &Path, place: &Path) -> String {
    let other = tempfile::tempdir().unwrap();
    let settings = other.path().join("settings.toml");
    // Two users that every Debian has.
    fs::write(
        &settings,
        "[features]\nposix_fallocate = {}\nrename_ctime = {}\nutime_now = {}\nutimensat = {}\n\
         [settings]\nnaptime = 0.02\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n",
    )
    .unwrap();
    // Some of its tests mount; what other tests here do with mounts must not keep theirs busy.
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(program)
        .arg("-c")
        .arg(&settings)
        .arg("-p")
        .arg(place)
        .arg("-s")
        .arg(other.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `open::etxtbsy` failed half of the time: with `O_RDONLY | O_TRUNC` the kernel had the server empty the program,
/// which then died, before it looked whether it runs.
#[test]
fn a_program_that_runs_is_not_emptied() {
    let Some(mount) = Mounted::new("a_program_that_runs_is_not_emptied") else {
        return;
    };
    let program = mount.here("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut running = Command::new(&program).arg("600").spawn().unwrap();
    let opened = [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR]
        .map(|flags| rustix::fs::open(&program, flags | OFlags::TRUNC, Mode::empty()).map(drop));
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(opened, [Err(rustix::io::Errno::TXTBSY); 3]);
    let whole = fs::read("/bin/sleep").unwrap();
    assert!(fs::read(mount.there("sleep")).unwrap() == whole);
    mount.close();
}
