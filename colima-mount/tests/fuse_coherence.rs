//! What is done on one side is seen on the other.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use colima_mount::{Access, server::Limits};

use crate::{
    mounted::{Mounted, eventually},
    server_differential::{tree, try_tree},
};

#[test]
fn what_the_host_does_is_seen_although_the_kernel_may_remember() {
    let test = "what_the_host_does_is_seen_although_the_kernel_may_remember";
    let Some(mount) = Mounted::new(test) else {
        return;
    };
    fs::create_dir_all(mount.there("d/e")).unwrap();
    fs::write(mount.there("d/f"), "first").unwrap();
    // Everything is looked at, so that the kernel has it.
    assert_eq!(tree(&mount.here("")), tree(&mount.there("")));
    assert!(fs::metadata(mount.here("d/new")).is_err());
    let mut file = File::open(mount.here("d/f")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();

    fs::write(mount.there("d/f"), "second").unwrap();
    eventually("new content of the same length", || {
        fs::read(mount.here("d/f")).unwrap() == b"second"
    });
    eventually("new content through an open file", || {
        text.clear();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text == "second"
    });
    // In place, with the size as it was.
    let there = fs::OpenOptions::new()
        .write(true)
        .open(mount.there("d/f"))
        .unwrap();
    there.write_all_at(b"S", 0).unwrap();
    eventually("an edit in place", || {
        fs::read(mount.here("d/f")).unwrap() == b"Second"
    });
    fs::write(mount.there("d/new"), "new").unwrap();
    eventually("a new file", || fs::read(mount.here("d/new")).is_ok());
    let listed = || fs::read_dir(mount.here("d")).unwrap().count();
    eventually("a new name in the listing", || listed() == 3);
    fs::rename(mount.there("d/new"), mount.there("d/e/newer")).unwrap();
    eventually("a renamed file", || {
        fs::metadata(mount.here("d/e/newer")).is_ok()
    });
    eventually("its old name", || {
        fs::metadata(mount.here("d/new")).is_err()
    });
    fs::remove_file(mount.there("d/f")).unwrap();
    eventually("a removed file", || {
        fs::metadata(mount.here("d/f")).is_err() && listed() == 1
    });
    fs::rename(mount.there("d"), mount.there("D")).unwrap();
    eventually("a renamed directory", || {
        fs::read(mount.here("D/e/newer")).is_ok()
    });
    fs::write(mount.there("D/e/newer"), "in the renamed one").unwrap();
    eventually("a change in it", || {
        fs::read(mount.here("D/e/newer")).unwrap() == b"in the renamed one"
    });
    drop(file);
    mount.close();
}

#[test]
fn what_replaces_a_file_is_another_file() {
    let Some(mount) = Mounted::new("what_replaces_a_file_is_another_file") else {
        return;
    };
    // As editors save, over and over.
    let mut inodes = Vec::new();
    for round in 0..50 {
        fs::write(mount.there("new"), format!("version {round}")).unwrap();
        fs::rename(mount.there("new"), mount.there("f")).unwrap();
        eventually("the new version", || {
            fs::read(mount.here("f"))
                .is_ok_and(|text| text == format!("version {round}").as_bytes())
        });
        inodes.push(fs::metadata(mount.here("f")).unwrap().ino());
        assert_eq!(
            inodes.last(),
            Some(&fs::metadata(mount.there("f")).unwrap().ino())
        );
    }
    mount.close();
}

#[test]
fn what_the_host_writes_through_a_mapping_is_seen_at_the_next_open() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

    let test = "what_the_host_writes_through_a_mapping_is_seen_at_the_next_open";
    let Some(mount) = Mounted::new(test) else {
        return;
    };
    let there = (fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true))
    .open(mount.there("map"))
    .unwrap();
    there.set_len(4096).unwrap();
    // Older than a tick of the clock, so that the write gives it another time.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    there.set_modified(old).unwrap();
    // The kernel of the mount has the page, and a file that keeps it.
    let open = File::open(mount.here("map")).unwrap();
    assert_eq!(fs::read(mount.here("map")).unwrap(), [0; 4096]);
    #[expect(unsafe_code, reason = "mapping a file is what is tested")]
    // SAFETY: the mapping is a page long, the file as well, and nobody makes it shorter.
    unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let nowhere = std::ptr::null_mut();
        let at = mmap(nowhere, 4096, protection, MapFlags::SHARED, &there, 0).unwrap();
        at.cast::<u8>().write(b'x');
        msync(at, 4096, MsyncFlags::SYNC).unwrap();
        munmap(at, 4096).unwrap();
    }
    if there.metadata().unwrap().modified().unwrap() == old {
        println!("skipped: {test}: this file system keeps the time of what is mapped");
    } else {
        assert_eq!(fs::read(mount.here("map")).unwrap()[0], b'x');
    }
    drop(open);
    mount.close();
}

#[test]
fn without_watches_changes_are_seen_within_seconds() {
    let mut limits = Limits::default();
    limits.watches = 0;
    let name = "without_watches_changes_are_seen_within_seconds";
    let Some(mount) = Mounted::with(name, Access::ReadWrite, limits, |_| {}) else {
        return;
    };
    fs::create_dir(mount.here("d")).unwrap();
    fs::write(mount.here("d/f"), "one").unwrap();
    assert_eq!(fs::read(mount.here("d/f")).unwrap(), b"one");
    assert!(fs::metadata(mount.here("d/g")).is_err());
    assert_eq!(fs::read_dir(mount.here("d")).unwrap().count(), 1);
    fs::write(mount.there("d/f"), "two").unwrap();
    fs::write(mount.there("d/g"), "new").unwrap();
    eventually("new content", || {
        fs::read(mount.here("d/f")).unwrap() == b"two"
    });
    eventually("a new file", || fs::read(mount.here("d/g")).is_ok());
    eventually("a listing", || {
        fs::read_dir(mount.here("d")).unwrap().count() == 2
    });
    mount.close();
}

/// Both sides do random things; when both are done, both see the same.
#[test]
fn both_sides_end_with_the_same_tree() {
    let Some(mount) = Mounted::new("both_sides_end_with_the_same_tree") else {
        return;
    };
    let seconds = std::env::var("COLIMA_TORTURE_SECONDS")
        .ok()
        .and_then(|s| s.parse::<u64>().ok());
    let rounds = seconds.map_or(20, |seconds| seconds * 2);
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for (side, root) in [mount.here(""), mount.there(""), mount.here("")]
                .into_iter()
                .enumerate()
            {
                scope.spawn(move || {
                    let mut seed = round * 7919 + u64::try_from(side).unwrap() + 1;
                    let mut random = move |below: usize| {
                        seed = seed
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        usize::try_from(seed >> 33).unwrap() % below
                    };
                    for _ in 0..60 {
                        let path = root.join(["a", "b", "a/c", "b/c", "a/d", "b/d"][random(6)]);
                        let other = root.join(["a/c", "b/c", "a/e", "b/e"][random(4)]);
                        // Whether each is possible depends on the others.
                        let _ = match random(9) {
                            0 | 1 => fs::create_dir_all(root.join(["a", "b"][random(2)])),
                            2 | 3 => fs::write(path, vec![b'x'; random(9000)]),
                            4 => fs::rename(path, other),
                            5 => fs::remove_file(path),
                            6 => fs::remove_dir_all(root.join("b")),
                            7 => fs::hard_link(path, other),
                            _ => fs::read(path).map(drop),
                        };
                    }
                });
            }
        });
        let there = tree(&mount.there(""));
        eventually("the same tree", || {
            // While it settles, a name may be gone between the listing and the look at it.
            try_tree(&mount.here("")).is_ok_and(|here| here == there)
        });
    }
    mount.close();
}
