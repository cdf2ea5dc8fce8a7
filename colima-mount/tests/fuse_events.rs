//! Who watches the mount hears what the host does, once and in order.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
};

use crate::{
    mounted::{Mounted, eventually},
    server_differential::{tree, try_tree},
};

/// Watches some directories and files of a mount.
struct Watcher {
    inotify: OwnedFd,
    names: HashMap<i32, String>,
}

/// Of the next thing that the host makes to be heard of.
static FENCES: AtomicUsize = AtomicUsize::new(0);

impl Watcher {
    fn new(mount: &Mounted, watched: &[&str]) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let mut watcher = Self {
            inotify,
            names: HashMap::new(),
        };
        for name in watched {
            watcher.watch(mount, name);
        }
        if watched.contains(&"") {
            // What was under way is over.
            watcher.hear(mount);
        }
        watcher
    }

    fn watch(&mut self, mount: &Mounted, name: &str) {
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE;
        let watch = inotify::add_watch(&self.inotify, mount.here(name), mask).unwrap();
        self.names.insert(watch, name.to_owned());
    }

    /// Everything until something that the host makes now is heard of.
    fn hear(&mut self, mount: &Mounted) -> Vec<String> {
        let fence = format!("fence{}", FENCES.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(mount.there(&fence)).unwrap();
        self.hear_until(|event| event == format!("/{fence} create dir"))
    }

    /// Everything before the first of which `last` holds. Cookies are numbered anew.
    fn hear_until(&mut self, last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut heard = Vec::new();
        let mut cookies = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let start = Instant::now();
        loop {
            let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = reader.next() {
                let flags = event.events();
                if flags.contains(ReadFlags::IGNORED) {
                    continue;
                }
                let what = [
                    (ReadFlags::CREATE, "create"),
                    (ReadFlags::DELETE, "delete"),
                    (ReadFlags::DELETE_SELF, "delete-self"),
                    (ReadFlags::MODIFY, "modify"),
                    (ReadFlags::ATTRIB, "attrib"),
                    (ReadFlags::MOVED_FROM, "from"),
                    (ReadFlags::MOVED_TO, "to"),
                    (ReadFlags::QUEUE_OVERFLOW, "overflow"),
                ];
                let what = what.iter().find(|(flag, _)| flags.contains(*flag)).unwrap();
                let none = String::new();
                let place = self.names.get(&event.wd()).unwrap_or(&none);
                let name = event.file_name().map_or("", |name| name.to_str().unwrap());
                let mut text = format!("{place}/{name} {}", what.1);
                if flags.contains(ReadFlags::ISDIR) {
                    text += " dir";
                }
                if event.cookie() != 0 {
                    if !cookies.contains(&event.cookie()) {
                        cookies.push(event.cookie());
                    }
                    let number = cookies.iter().position(|it| *it == event.cookie());
                    text += &format!(" {}", number.unwrap());
                }
                if last(&text) {
                    return heard;
                }
                heard.push(text);
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "heard only {heard:?}"
            );
            let limit = Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
            poll(&mut ready, Some(&limit)).unwrap();
        }
    }
}

/// What the host must find as it has left it.
fn state(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let it = fs::symlink_metadata(&path).unwrap();
        let modified = (it.mtime(), it.mtime_nsec());
        let changed = (it.ctime(), it.ctime_nsec());
        let what = (it.ino(), it.mode(), it.nlink(), it.size());
        all.push(format!("{path:?} {what:?} {modified:?} {changed:?}"));
        if it.is_dir() {
            all.extend(state(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn each_host_change_is_heard_once_and_in_order() {
    let Some(mount) = Mounted::for_watchers("each_host_change_is_heard_once_and_in_order") else {
        return;
    };
    let there = |name: &str| mount.there(name);
    for directory in ["d", "e", "d/sub"] {
        fs::create_dir(there(directory)).unwrap();
    }
    fs::write(there("d/old"), "old").unwrap();
    fs::write(there("aside"), "aside").unwrap();
    // Nobody lists anything: whoever watches only looks for the directories.
    let mut watcher = Watcher::new(&mount, &["", "d", "e"]);

    fs::File::create(there("d/new")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/new create"]);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(there("d/new"))
        .unwrap();
    file.write_all_at(b"content", 0).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/new modify"]);
    // The same size, and something that nobody has looked at.
    file.write_all_at(b"CONTENT", 0).unwrap();
    let old = fs::OpenOptions::new().append(true).open(there("d/old"));
    old.unwrap().write_all(b"er").unwrap();
    assert_eq!(watcher.hear(&mount), ["d/new modify", "d/old modify"]);
    assert_eq!(fs::read(mount.here("d/new")).unwrap(), b"CONTENT");
    let readable = fs::Permissions::from_mode(0o600);
    fs::set_permissions(there("d/new"), readable).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/new attrib"]);
    assert_eq!(
        fs::metadata(mount.here("d/new")).unwrap().mode() & 0o777,
        0o600
    );
    fs::rename(there("d/new"), there("d/newer")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/new from 0", "d/newer to 0"]);
    assert_eq!(fs::read(mount.here("d/newer")).unwrap(), b"CONTENT");
    fs::rename(there("d/newer"), there("e/newer")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/newer from 0", "e/newer to 0"]);
    assert_eq!(fs::read(mount.here("e/newer")).unwrap(), b"CONTENT");
    fs::remove_file(there("e/newer")).unwrap();
    assert_eq!(watcher.hear(&mount), ["e/newer delete"]);
    // One that nobody has looked at.
    fs::remove_file(there("d/old")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/old delete"]);
    fs::create_dir(there("d/made")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/made create dir"]);
    fs::rename(there("d/made"), there("e/moved")).unwrap();
    assert_eq!(
        watcher.hear(&mount),
        ["d/made from dir 0", "e/moved to dir 0"]
    );
    fs::remove_dir(there("e/moved")).unwrap();
    assert_eq!(watcher.hear(&mount), ["e/moved delete dir"]);
    std::os::unix::fs::symlink("nowhere", there("d/link")).unwrap();
    fs::hard_link(there("aside"), there("d/second")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/link create", "d/second create"]);
    assert_eq!(
        fs::read_link(mount.here("d/link")).unwrap(),
        Path::new("nowhere")
    );
    // In a directory that was made, watched and moved.
    fs::create_dir(there("d/fresh")).unwrap();
    assert_eq!(watcher.hear(&mount), ["d/fresh create dir"]);
    watcher.watch(&mount, "d/fresh");
    fs::rename(there("d/fresh"), there("e/fresh")).unwrap();
    fs::File::create(there("e/fresh/in")).unwrap();
    assert_eq!(
        watcher.hear(&mount),
        [
            "d/fresh from dir 0",
            "e/fresh to dir 0",
            "d/fresh/in create"
        ]
    );
    eventually("the same tree", || {
        try_tree(&mount.here("")).is_ok_and(|here| here == tree(&mount.there("")))
    });
    mount.close();
}

#[test]
fn what_comes_from_outside_or_leaves_is_one_half_of_a_move() {
    let Some(mount) =
        Mounted::for_watchers("what_comes_from_outside_or_leaves_is_one_half_of_a_move")
    else {
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = |name: &str| elsewhere.path().join(name);
    fs::write(outside("file"), "file").unwrap();
    fs::create_dir(outside("directory")).unwrap();
    let mut watcher = Watcher::new(&mount, &[""]);
    fs::rename(outside("file"), mount.there("file")).unwrap();
    fs::rename(outside("directory"), mount.there("directory")).unwrap();
    assert_eq!(watcher.hear(&mount), ["/file to 0", "/directory to dir 1"]);
    assert_eq!(fs::read(mount.here("file")).unwrap(), b"file");
    fs::rename(mount.there("file"), outside("file")).unwrap();
    fs::rename(mount.there("directory"), outside("directory")).unwrap();
    assert_eq!(
        watcher.hear(&mount),
        ["/file from 0", "/directory from dir 1"]
    );
    eventually("they are gone", || {
        fs::symlink_metadata(mount.here("file")).is_err()
            && fs::symlink_metadata(mount.here("directory")).is_err()
    });
    mount.close();
}

#[test]
fn watchers_of_a_file_hear_what_becomes_of_it() {
    let Some(mount) = Mounted::for_watchers("watchers_of_a_file_hear_what_becomes_of_it") else {
        return;
    };
    fs::write(mount.there("f"), "1").unwrap();
    let mut watcher = Watcher::new(&mount, &["", "f"]);
    // As editors save.
    fs::write(mount.there("new"), "22").unwrap();
    watcher.hear(&mount);
    fs::rename(mount.there("new"), mount.there("f")).unwrap();
    let heard = watcher.hear(&mount);
    assert_eq!(heard[..2], ["/new from 0", "/f to 0"], "{heard:?}");
    assert!(heard.contains(&"f/ delete-self".to_owned()), "{heard:?}");
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert_eq!(fs::read(mount.here("f")).unwrap(), b"22");
    let mut watcher = Watcher::new(&mount, &["", "f"]);
    fs::remove_file(mount.there("f")).unwrap();
    let heard = watcher.hear(&mount);
    assert!(heard.contains(&"/f delete".to_owned()), "{heard:?}");
    assert!(heard.contains(&"f/ delete-self".to_owned()), "{heard:?}");
    mount.close();
}

#[test]
fn the_host_finds_everything_as_it_left_it() {
    let Some(mount) = Mounted::for_watchers("the_host_finds_everything_as_it_left_it") else {
        return;
    };
    let there = |name: &str| mount.there(name);
    fs::create_dir(there("d")).unwrap();
    let mut watcher = Watcher::new(&mount, &["", "d"]);
    for round in 0..20 {
        fs::write(there("d/a"), format!("{round}")).unwrap();
        fs::write(there("d/gone"), "gone").unwrap();
        fs::rename(there("d/a"), there(&format!("d/b{round}"))).unwrap();
        fs::remove_file(there("d/gone")).unwrap();
        fs::create_dir(there(&format!("d/c{round}"))).unwrap();
        let readable = fs::Permissions::from_mode(0o640);
        fs::set_permissions(there(&format!("d/b{round}")), readable).unwrap();
    }
    let before = state(&there("d"));
    watcher.hear(&mount);
    assert_eq!(state(&there("d")), before);
    mount.close();
}

#[test]
fn what_is_done_on_the_mount_is_heard_once() {
    let Some(mount) = Mounted::for_watchers("what_is_done_on_the_mount_is_heard_once") else {
        return;
    };
    let local = tempfile::tempdir().unwrap();
    let work = |root: &Path| {
        for round in 0..30 {
            let at = |name: &str| root.join(format!("{name}{round}"));
            let file = fs::File::create_new(at("f")).unwrap();
            file.write_all_at(b"some", 0).unwrap();
            file.sync_all().unwrap();
            file.write_all_at(b"more", 4).unwrap();
            drop(file);
            let readable = fs::Permissions::from_mode(0o600);
            fs::set_permissions(at("f"), readable).unwrap();
            rustix::fs::setxattr(at("f"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
            fs::rename(at("f"), at("g")).unwrap();
            fs::hard_link(at("g"), at("h")).unwrap();
            fs::remove_file(at("g")).unwrap();
            fs::create_dir(at("d")).unwrap();
            fs::remove_dir(at("d")).unwrap();
            std::os::unix::fs::symlink("x", at("l")).unwrap();
        }
    };
    let mut watcher = Watcher::new(&mount, &[""]);
    work(&mount.here(""));
    let heard = watcher.hear(&mount);
    // What a local file system tells of the same, and the same way.
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    let mut there = Watcher {
        inotify,
        names: HashMap::new(),
    };
    let mask = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::MOVE;
    let watch = inotify::add_watch(&there.inotify, local.path(), mask).unwrap();
    there.names.insert(watch, String::new());
    work(local.path());
    fs::create_dir(local.path().join("fence")).unwrap();
    let expected = there.hear_until(|event| event == "/fence create dir");
    assert_eq!(heard, expected);
    mount.close();
}

#[test]
fn a_storm_ends_with_the_same_tree_and_every_event() {
    let Some(mount) = Mounted::for_watchers("a_storm_ends_with_the_same_tree_and_every_event")
    else {
        return;
    };
    fs::create_dir(mount.there("d")).unwrap();
    let mut watcher = Watcher::new(&mount, &["", "d"]);
    for number in 0..1000 {
        fs::File::create(mount.there(format!("d/{number}"))).unwrap();
    }
    let heard = watcher.hear(&mount);
    let expected: Vec<_> = (0..1000).map(|n| format!("d/{n} create")).collect();
    assert_eq!(heard, expected);
    for number in (0..1000).step_by(2) {
        fs::remove_file(mount.there(format!("d/{number}"))).unwrap();
    }
    assert_eq!(watcher.hear(&mount).len(), 500);
    eventually("the same tree", || {
        try_tree(&mount.here("")).is_ok_and(|here| here == tree(&mount.there("")))
    });
    mount.close();
}

#[test]
fn more_than_can_be_told_is_told_as_look_again() {
    let Some(mount) = Mounted::for_watchers("more_than_can_be_told_is_told_as_look_again") else {
        return;
    };
    fs::create_dir(mount.there("d")).unwrap();
    let mut watcher = Watcher::new(&mount, &["d"]);
    // More than the queue of the host's kernel has room for, and ours.
    for number in 0..20_000 {
        let name = mount.there(format!("d/f{number}"));
        if number == 0 {
            fs::File::create(name).unwrap();
        } else {
            let before = mount.there(format!("d/f{}", number - 1));
            fs::rename(before, name).unwrap();
        }
    }
    let last = "d/f19999 to".to_owned();
    watcher.hear_until(|event| {
        event.starts_with(&last) || event == "d/ attrib dir" || event == "/ overflow"
    });
    eventually("the same tree", || {
        try_tree(&mount.here("")).is_ok_and(|here| here == tree(&mount.there("")))
    });
    mount.close();
}

/// Only a measurement: how long an edit of the host takes to be heard of.
#[test]
fn the_time_from_edit_to_event_is_printed() {
    let Some(mount) = Mounted::for_watchers("the_time_from_edit_to_event_is_printed") else {
        return;
    };
    fs::write(mount.there("f"), "f").unwrap();
    let mut watcher = Watcher::new(&mount, &[""]);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(mount.there("f"))
        .unwrap();
    let mut times: Vec<_> = (0..200u64)
        .map(|round| {
            let start = Instant::now();
            file.write_all_at(b"x", round).unwrap();
            watcher.hear_until(|event| event == "/f modify");
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "edit to event: median {:?}, p99 {:?}",
        times[100], times[197]
    );
    mount.close();
}
