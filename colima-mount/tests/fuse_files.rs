//! Files on a mount are files: what programs rely on, one thing after another.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{
            FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
            PermissionsExt as _, symlink,
        },
    },
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use colima_mount::{Access, server::Limits};
use rustix::fs::{CWD, RenameFlags, XattrFlags};

use crate::{mounted::Mounted, server_differential::tree};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn a_tree_is_made_read_listed_renamed_and_removed() {
    let Some(mount) = Mounted::new("a_tree_is_made_read_listed_renamed_and_removed") else {
        return;
    };
    for directory in 0..10 {
        let directory = mount.here(format!("d{directory}"));
        fs::create_dir_all(directory.join("deep/er")).unwrap();
        for file in 0..30 {
            let content = format!("{file}\n").repeat(file * 100);
            fs::write(directory.join(format!("deep/f{file}")), &content).unwrap();
        }
    }
    assert_eq!(tree(&mount.here("")), tree(&mount.there("")));
    fs::rename(mount.here("d3"), mount.here("d4/moved")).unwrap();
    fs::rename(mount.here("d5/deep/f7"), mount.here("d6/deep/f8")).unwrap();
    fs::remove_dir_all(mount.here("d7")).unwrap();
    assert_eq!(
        fs::read(mount.here("d6/deep/f8")).unwrap(),
        b"7\n".repeat(700)
    );
    assert_eq!(tree(&mount.here("")), tree(&mount.there("")));
    assert_eq!(tree(&mount.here("d4/moved/deep")).len(), 31);
    mount.close();
}

#[test]
fn errors_are_those_of_a_local_file_system() {
    let Some(mount) = Mounted::new("errors_are_those_of_a_local_file_system") else {
        return;
    };
    fs::create_dir_all(mount.here("d/e")).unwrap();
    fs::write(mount.here("f"), "x").unwrap();
    symlink("loop", mount.here("loop")).unwrap();
    let e = |errno: rustix::io::Errno| errno.raw_os_error();
    use rustix::io::Errno as E;
    assert_eq!(errno(fs::read(mount.here("none"))), e(E::NOENT));
    assert_eq!(errno(fs::remove_dir(mount.here("d"))), e(E::NOTEMPTY));
    assert_eq!(errno(fs::create_dir(mount.here("d"))), e(E::EXIST));
    assert_eq!(errno(fs::read(mount.here("f/x"))), e(E::NOTDIR));
    assert_eq!(errno(fs::write(mount.here("d"), "x")), e(E::ISDIR));
    assert_eq!(errno(fs::remove_file(mount.here("d"))), e(E::ISDIR));
    assert_eq!(errno(fs::remove_dir(mount.here("f"))), e(E::NOTDIR));
    assert_eq!(errno(fs::read(mount.here("loop"))), e(E::LOOP));
    assert_eq!(
        errno(fs::write(mount.here("n".repeat(256)), "x")),
        e(E::NAMETOOLONG)
    );
    assert_eq!(
        errno(fs::rename(mount.here("f"), mount.here("d"))),
        e(E::ISDIR)
    );
    assert_eq!(
        errno(fs::rename(mount.here("d"), mount.here("d/e/x"))),
        e(E::INVAL)
    );
    let file = File::open(mount.here("f")).unwrap();
    assert_eq!(errno((&file).write(b"x")), e(E::BADF));
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(mount.here("f"));
    assert_eq!(errno(new), e(E::EXIST));
    drop(file);
    mount.close();
}

#[test]
fn an_open_file_outlives_its_name() {
    let Some(mount) = Mounted::new("an_open_file_outlives_its_name") else {
        return;
    };
    let options = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .clone()
    };
    let mut file = options().open(mount.here("f")).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(mount.here("f")).unwrap();
    assert_eq!(
        fs::read_dir(mount.there("")).unwrap().count(),
        0,
        "nothing is hidden"
    );
    file.write_all(b" and after").unwrap();
    let found = file.metadata().unwrap();
    assert_eq!((found.len(), found.nlink()), (16, 0));
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    file.set_len(12).unwrap();
    file.sync_all().unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and a");
    // One that another takes the name of.
    let mut old = options().open(mount.here("a")).unwrap();
    old.write_all(b"old").unwrap();
    fs::write(mount.here("b"), "new").unwrap();
    fs::rename(mount.here("b"), mount.here("a")).unwrap();
    let mut content = [0; 3];
    old.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"old");
    assert_eq!(old.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::read(mount.here("a")).unwrap(), b"new");
    drop((file, old));
    mount.close();
}

#[test]
fn hard_links_are_one_file() {
    let Some(mount) = Mounted::new("hard_links_are_one_file") else {
        return;
    };
    fs::create_dir(mount.here("d")).unwrap();
    fs::write(mount.here("a"), "one").unwrap();
    fs::hard_link(mount.here("a"), mount.here("d/b")).unwrap();
    let (a, b) = (
        fs::metadata(mount.here("a")).unwrap(),
        fs::metadata(mount.here("d/b")).unwrap(),
    );
    assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
    fs::write(mount.here("d/b"), "two, longer").unwrap();
    assert_eq!(fs::read(mount.here("a")).unwrap(), b"two, longer");
    fs::remove_file(mount.here("a")).unwrap();
    assert_eq!(fs::metadata(mount.here("d/b")).unwrap().nlink(), 1);
    assert_eq!(fs::read(mount.here("d/b")).unwrap(), b"two, longer");
    mount.close();
}

#[test]
fn symlinks_say_what_they_were_told() {
    let Some(mount) = Mounted::new("symlinks_say_what_they_were_told") else {
        return;
    };
    fs::create_dir_all(mount.here("node_modules/.bin")).unwrap();
    fs::create_dir_all(mount.here("node_modules/tool")).unwrap();
    fs::write(mount.here("node_modules/tool/cli.js"), "run").unwrap();
    let link = mount.here("node_modules/.bin/tool");
    symlink("../tool/cli.js", &link).unwrap();
    assert_eq!(fs::read(&link).unwrap(), b"run");
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("up", "../../../.."),
        ("dangling", "not there"),
        ("long", &"x/".repeat(1000)),
        ("odd", "\u{1}\u{ff} \n"),
    ] {
        symlink(target, mount.here(name)).unwrap();
        assert_eq!(fs::read_link(mount.here(name)).unwrap(), Path::new(target));
        let size = fs::symlink_metadata(mount.here(name)).unwrap().len();
        assert_eq!(size, target.len() as u64);
    }
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe not text");
    fs::write(mount.here(name), "bytes").unwrap();
    assert_eq!(fs::read(mount.there(name)).unwrap(), b"bytes");
    mount.close();
}

#[test]
fn appends_of_several_never_overwrite_each_other() {
    let Some(mount) = Mounted::new("appends_of_several_never_overwrite_each_other") else {
        return;
    };
    let open = |path| {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
    };
    // Two on the mount and one on the host.
    std::thread::scope(|scope| {
        for (who, path) in [
            ("a", mount.here("log")),
            ("b", mount.here("log")),
            ("c", mount.there("log")),
        ] {
            scope.spawn(move || {
                let mut file = open(path);
                for number in 0..200 {
                    file.write_all(format!("{who}{number}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(mount.there("log")).unwrap();
    for who in ["a", "b", "c"] {
        let mine: Vec<_> = text.lines().filter(|line| line.starts_with(who)).collect();
        let expected: Vec<_> = (0..200).map(|number| format!("{who}{number}")).collect();
        assert_eq!(mine, expected);
    }
    assert_eq!(text.lines().count(), 600);
    mount.close();
}

/// The mapping is in another process than the mount: unmapping waits for pages that the mount has to write,
/// with the lock of the address space that every thread of the mount's process needs for a page of its own.
#[test]
fn a_shared_mapping_reaches_the_file() {
    let Some(mount) = Mounted::new("a_shared_mapping_reaches_the_file") else {
        return;
    };
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fuse_files::somebody_maps_a_file", "--ignored"])
        .env(HERE, mount.here("map"))
        .env(THERE, mount.there("map"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed"), "{told}");
    assert_eq!(fs::read(mount.there("map")).unwrap()[9000], b'x');
    mount.close();
}

/// Where [`somebody_maps_a_file`] finds its file, on the mount and at the host.
const HERE: &str = "COLIMA_TEST_HERE";
const THERE: &str = "COLIMA_TEST_THERE";

#[test]
#[ignore = "started by a_shared_mapping_reaches_the_file"]
fn somebody_maps_a_file() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

    let (here, there) = (std::env::var_os(HERE), std::env::var_os(THERE));
    let (here, there) = (here.unwrap(), there.unwrap());
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(here).unwrap();
    file.set_len(3 * 4096).unwrap();
    #[expect(unsafe_code, reason = "mapping a file is what is tested")]
    // SAFETY: the mapping is 3 pages long, the file as well, and nobody else uses it.
    unsafe {
        let (read, write) = (ProtFlags::READ, ProtFlags::WRITE);
        let at = mmap(
            std::ptr::null_mut(),
            3 * 4096,
            read | write,
            MapFlags::SHARED,
            &file,
            0,
        )
        .unwrap();
        let bytes = std::slice::from_raw_parts_mut(at.cast::<u8>(), 3 * 4096);
        assert_eq!(bytes[5000], 0);
        bytes[5000..5005].copy_from_slice(b"mmap!");
        msync(at, 3 * 4096, MsyncFlags::SYNC).unwrap();
        assert_eq!(&fs::read(there).unwrap()[5000..5005], b"mmap!");
        bytes[9000] = b'x';
        munmap(at, 3 * 4096).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn attributes_keep_every_bit_that_is_allowed() {
    let Some(mount) = Mounted::new("attributes_keep_every_bit_that_is_allowed") else {
        return;
    };
    let file = File::create(mount.here("f")).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))
        .unwrap();
    for path in [mount.here("f"), mount.there("f")] {
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), time);
    }
    for (asked, given) in [
        (0o640, 0o640),
        (0o4755, 0o755),
        (0o2755, 0o755),
        (0o1777, 0o1777),
    ] {
        fs::set_permissions(mount.here("f"), fs::Permissions::from_mode(asked)).unwrap();
        for path in [mount.here("f"), mount.there("f")] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o7777,
                given
            );
        }
    }
    std::os::unix::fs::chown(mount.here("f"), Some(1234), Some(4321)).unwrap();
    let owner = fs::metadata(mount.there("f")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1234, 4321));
    let exact = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(mount.here("exact"));
    drop(exact.unwrap());
    let path = mount.here("f");
    rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::CREATE).unwrap();
    let mut value = [0; 10];
    assert_eq!(
        rustix::fs::getxattr(mount.there("f"), "user.colour", &mut value).unwrap(),
        3
    );
    assert_eq!(
        rustix::fs::getxattr(&path, "user.colour", &mut value).unwrap(),
        3
    );
    let again = rustix::fs::setxattr(&path, "user.colour", b"blue", XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    let mut names = [0; 100];
    let length = rustix::fs::listxattr(&path, &mut names).unwrap();
    assert_eq!(&names[..length], b"user.colour\0");
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    let gone = rustix::fs::getxattr(&path, "user.colour", &mut value);
    assert_eq!(gone, Err(rustix::io::Errno::NODATA));
    let trusted = rustix::fs::setxattr(&path, "security.capability", b"x", XattrFlags::empty());
    assert!(trusted.is_err());
    drop(file);
    mount.close();
}

#[test]
fn renames_with_flags_do_what_the_flags_say() {
    let Some(mount) = Mounted::new("renames_with_flags_do_what_the_flags_say") else {
        return;
    };
    fs::write(mount.here("a"), "a").unwrap();
    fs::write(mount.here("b"), "b").unwrap();
    let rename =
        |flags| rustix::fs::renameat_with(CWD, mount.here("a"), CWD, mount.here("b"), flags);
    assert_eq!(
        rename(RenameFlags::NOREPLACE),
        Err(rustix::io::Errno::EXIST)
    );
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mount.here("a")).unwrap(), b"b");
    assert_eq!(fs::read(mount.here("b")).unwrap(), b"a");
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(mount.here("b")).unwrap(), b"b");
    assert_eq!(fs::read_dir(mount.here("")).unwrap().count(), 1);
    mount.close();
}

#[test]
fn special_nodes_are_made_and_work() {
    let Some(mount) = Mounted::new("special_nodes_are_made_and_work") else {
        return;
    };
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, mount.here("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(
        fs::metadata(mount.there("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let writer = std::thread::spawn({
        let path = mount.here("fifo");
        move || fs::write(path, "through the pipe").unwrap()
    });
    assert_eq!(fs::read(mount.here("fifo")).unwrap(), b"through the pipe");
    writer.join().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(mount.here("socket")).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(mount.here("socket")).unwrap();
    client.write_all(b"hi").unwrap();
    let mut got = [0; 2];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
    drop((client, listener));
    mount.close();
}

#[test]
fn large_directories_are_listed_completely() {
    let Some(mount) = Mounted::with(
        "large_directories_are_listed_completely",
        Access::ReadWrite,
        Limits::default(),
        |host| {
            for number in 0..5000 {
                fs::write(
                    host.join(format!("a rather long name of a file {number:05}")),
                    "",
                )
                .unwrap();
            }
        },
    ) else {
        return;
    };
    for _ in 0..3 {
        let mut names: Vec<_> = fs::read_dir(mount.here(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5000);
    }
    // Removed while it is listed, as rm does.
    for entry in fs::read_dir(mount.here("")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(mount.there("")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(mount.here("")).unwrap().count(), 0);
    mount.close();
}

#[test]
fn a_read_only_share_is_a_read_only_file_system() {
    let Some(mount) = Mounted::with(
        "a_read_only_share_is_a_read_only_file_system",
        Access::ReadOnly,
        Limits::default(),
        |host| fs::write(host.join("f"), "kept").unwrap(),
    ) else {
        return;
    };
    let readonly = rustix::io::Errno::ROFS.raw_os_error();
    assert_eq!(fs::read(mount.here("f")).unwrap(), b"kept");
    assert_eq!(errno(fs::write(mount.here("f"), "x")), readonly);
    assert_eq!(errno(fs::write(mount.here("g"), "x")), readonly);
    assert_eq!(errno(fs::remove_file(mount.here("f"))), readonly);
    assert_eq!(errno(fs::create_dir(mount.here("d"))), readonly);
    assert_eq!(fs::read(mount.there("f")).unwrap(), b"kept");
    mount.close();
}

#[test]
fn large_files_survive_writes_and_reads_of_every_size() {
    let Some(mount) = Mounted::new("large_files_survive_writes_and_reads_of_every_size") else {
        return;
    };
    let data: Vec<u8> = (0..4_000_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    for piece in [4096, 65_537, 3_000_000] {
        let mut file = File::create(mount.here("big")).unwrap();
        for part in data.chunks(piece) {
            file.write_all(part).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(
            fs::read(mount.there("big")).unwrap() == data,
            "written in {piece}"
        );
        // Nothing of it in the kernel's memory: read through the client.
        mount_drop_caches(&mount);
        let mut file = File::open(mount.here("big")).unwrap();
        let mut back = Vec::new();
        let mut buffer = vec![0; piece];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                got => back.extend_from_slice(&buffer[..got]),
            }
        }
        assert!(back == data, "read in {piece}");
    }
    mount.close();
}

/// Has the kernel forget the pages of the big file, by a host edit that changes its time alone.
fn mount_drop_caches(mount: &Mounted) {
    let file = OpenOptions::new()
        .write(true)
        .open(mount.there("big"))
        .unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    crate::mounted::eventually("the time of the host", || {
        fs::metadata(mount.here("big")).unwrap().modified().unwrap() == UNIX_EPOCH
    });
}

#[test]
fn programs_run_from_the_mount() {
    let Some(mount) = Mounted::new("programs_run_from_the_mount") else {
        return;
    };
    fs::write(
        mount.here("script"),
        "#!/bin/sh\necho \"ran in $PWD\" > out\n",
    )
    .unwrap();
    fs::set_permissions(mount.here("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let status = std::process::Command::new(mount.here("script"))
        .current_dir(mount.here(""))
        .status();
    assert!(status.unwrap().success());
    assert!(
        fs::read_to_string(mount.there("out"))
            .unwrap()
            .starts_with("ran in ")
    );
    mount.close();
}

#[test]
fn a_mount_in_use_is_not_closed_and_one_that_is_dropped_is_gone() {
    let Some(mut mount) =
        Mounted::new("a_mount_in_use_is_not_closed_and_one_that_is_dropped_is_gone")
    else {
        return;
    };
    let file = File::create(mount.here("f")).unwrap();
    let busy = mount.try_close();
    assert_eq!(
        busy.raw_os_error(),
        Some(rustix::io::Errno::BUSY.raw_os_error())
    );
    (&file).write_all(b"still there").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(mount.there("f")).unwrap(), b"still there");
    let place = mount.here("");
    mount.drop_guard();
    assert_eq!(
        fs::read_dir(place).unwrap().count(),
        0,
        "what is below shows again"
    );
    drop(file);
    // The last user is gone, so the connection is.
    mount.wait_for_the_session();
}

#[test]
fn without_a_server_everything_fails_and_nothing_hangs() {
    let Some(mut mount) = Mounted::new("without_a_server_everything_fails_and_nothing_hangs")
    else {
        return;
    };
    fs::write(mount.here("f"), "x").unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.here("f"))
        .unwrap();
    mount.session.abort();
    mount.wait_for_the_session();
    let gone = rustix::io::Errno::NOTCONN.raw_os_error();
    crate::mounted::eventually("the end", || {
        fs::write(mount.here("new"), "x").is_err_and(|error| error.raw_os_error() == Some(gone))
    });
    assert_eq!(errno(file.sync_all()), gone);
    assert_eq!(errno(fs::create_dir(mount.here("d"))), gone);
    drop(file);
    mount.drop_guard();
}
