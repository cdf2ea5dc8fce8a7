//! What the host's user cannot have is kept beside the file.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use bytes::Bytes;
use colima_mount::{
    Client,
    server::confine::Wall,
    sftp::{
        Creation, Errno, FileKind, Metadata, NewNode, OpenFlags, Owner, Rename, Request, Target,
        Update, XattrMode,
    },
};

use crate::{
    peers,
    worker::{GROUP, OWNER, USER, Worker},
};

const ATTRIBUTE: &str = "user.colima.node";

fn possible(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        let () = println!("skipped: {test}: needs root, to be another user");
    }
    root
}

/// Gives a test a client of a new server, which ends with it.
fn with<T>(worker: &Worker, share: &Path, test: impl AsyncFnOnce(&Client) -> T) -> T {
    peers::runtime().block_on(async {
        let (stream, session) = worker.start(share);
        let client = Client::connect(stream).await.unwrap();
        let result = test(&client).await;
        drop(client);
        session.await.unwrap();
        result
    })
}

fn given(user: u32, group: u32, mode: u32) -> Creation {
    let owner = Some(Owner { user, group });
    Creation { mode, owner }
}

fn to(user: u32, group: u32, mode: Option<u32>) -> Update {
    Update {
        user: Some(user),
        group: Some(group),
        mode,
        ..Update::default()
    }
}

fn told(found: &Metadata) -> (FileKind, u32, u32, u32, u32, u32) {
    let mode = found.mode & 0o7777;
    let (major, minor) = (found.device_major, found.device_minor);
    (found.kind(), mode, found.user, found.group, major, minor)
}

type Told = (FileKind, u32, u32, u32, u32, u32);

/// Makes one of each, and gives their names and what is to be told of them.
async fn one_of_each(client: &Client) -> Vec<(&'static str, Told)> {
    let nodes = [
        ("fifo", NewNode::Fifo, FileKind::Fifo, (0, 0)),
        ("socket", NewNode::Socket, FileKind::Socket, (0, 0)),
        (
            "null",
            NewNode::CharacterDevice { major: 1, minor: 3 },
            FileKind::CharacterDevice,
            (1, 3),
        ),
        (
            "disk",
            NewNode::BlockDevice {
                major: 259,
                minor: 70_000,
            },
            FileKind::BlockDevice,
            (259, 70_000),
        ),
        ("directory", NewNode::Directory, FileKind::Directory, (0, 0)),
        ("file", NewNode::Regular, FileKind::Regular, (0, 0)),
    ];
    let mut all = Vec::new();
    for (name, node, kind, (major, minor)) in nodes {
        let found = client
            .make(name.as_bytes(), node, given(0, 33, 0o640))
            .await;
        let expected = (kind, 0o640, 0, 33, major, minor);
        assert_eq!(told(&found.unwrap()), expected, "{name}, new");
        let found = client
            .set(name.as_bytes(), to(999, 998, Some(0o4711)))
            .await;
        let expected = (kind, 0o4711, 999, 998, major, minor);
        assert_eq!(told(&found.unwrap()), expected, "{name}, given away");
        all.push((name, expected));
    }
    let target = Bytes::from_static(b"/nowhere");
    let link = NewNode::Symlink { target };
    client
        .make(b"link", link, given(0, 0, 0o777))
        .await
        .unwrap();
    client.set(b"link", to(7, 8, None)).await.unwrap();
    all.push(("link", (FileKind::Symlink, 0o777, 7, 8, 0, 0)));
    all
}

async fn are_as_made(client: &Client, all: &[(&str, Told)]) {
    for (name, expected) in all {
        let found = client.metadata(name.as_bytes()).await.unwrap();
        assert_eq!(told(&found), *expected, "{name}");
    }
    let listed = list(client).await;
    for (name, expected) in all {
        let found = listed.iter().find(|(listed, _)| listed == name.as_bytes());
        assert_eq!(told(&found.unwrap().1), *expected, "{name}, listed");
    }
}

async fn list(client: &Client) -> Vec<(Bytes, Metadata)> {
    let path = Bytes::from_static(b"/");
    let colima_mount::sftp::Reply::Handle(handle) =
        client.call(&Request::Opendir { path }).await.unwrap()
    else {
        panic!("no handle");
    };
    let request = Request::List {
        handle,
        from: None,
        budget: 1 << 20,
    };
    let listing: colima_mount::sftp::Listing = client.ask(&request).await.unwrap();
    let entries = listing.entries.into_iter();
    entries
        .filter_map(|entry| Some((entry.name, entry.metadata?)))
        .collect()
}

#[test]
fn owners_modes_and_special_nodes_outlive_the_server_and_are_not_real_on_the_host() {
    if !possible("owners_modes_and_special_nodes_outlive_the_server_and_are_not_real_on_the_host") {
        return;
    }
    let (share, side) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = Worker::with_side(side.path());
    let all = with(&worker, share.path(), one_of_each);
    for (name, _) in &all {
        let found = fs::symlink_metadata(share.path().join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (USER, GROUP), "{name}");
        let (kind, mode) = (found.file_type(), found.permissions().mode() & 0o7777);
        match *name {
            "link" => assert!(kind.is_symlink()),
            "directory" => assert!(kind.is_dir() && mode == 0o711, "{mode:o}"),
            _ => assert!(
                kind.is_file() && found.len() == 0 && mode == 0o711,
                "{name} {mode:o}"
            ),
        }
    }
    with(&worker, share.path(), async |client| {
        are_as_made(client, &all).await;
    });
    // By another name they are the same, and gone they are forgotten.
    with(&worker, share.path(), async |client| {
        client
            .rename(b"link", b"l2", Rename::Replace)
            .await
            .unwrap();
        assert_eq!(client.metadata(b"l2").await.unwrap().user, 7);
        client.remove(b"l2").await.unwrap();
        client
            .rename(b"fifo", b"f2", Rename::Replace)
            .await
            .unwrap();
        assert_eq!(client.metadata(b"f2").await.unwrap().kind(), FileKind::Fifo);
        let opened = client.open(b"f2", OpenFlags::READ, None).await;
        assert_eq!(opened.unwrap_err(), Errno::NoDevice);
    });
}

#[test]
fn behind_either_wall_the_server_works_as_without() {
    if !possible("behind_either_wall_the_server_works_as_without") {
        return;
    }
    for wall in [Wall::Namespace, Wall::Landlock] {
        let (share, side) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let worker = Worker::with_side(side.path()).behind(wall);
        let all = with(&worker, share.path(), one_of_each);
        with(&worker, share.path(), async |client| {
            are_as_made(client, &all).await;
            client
                .rename(b"file", b"directory/file", Rename::Replace)
                .await
                .unwrap();
            client
                .rename(b"directory/file", b"file", Rename::Keep)
                .await
                .unwrap();
            let path = Bytes::from_static(b"/");
            let watched: Metadata = client.ask(&Request::Watch { path }).await.unwrap();
            assert_eq!(watched.kind(), FileKind::Directory);
            let changes = client.call(&Request::Changes {});
            fs::write(share.path().join("of the host"), "").unwrap();
            changes.await.unwrap();
            are_as_made(client, &all).await;
        });
    }
}

#[test]
fn where_files_carry_no_attributes_the_database_has_everything() {
    const TEST: &str = "where_files_carry_no_attributes_the_database_has_everything";
    if !possible(TEST) {
        return;
    }
    let (share, side) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // ramfs knows no extended attributes, whatever the kernel.
    let status = std::process::Command::new("mount")
        .args(["-t", "ramfs", "ramfs"])
        .arg(share.path())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: {TEST}: ramfs cannot be mounted");
        return;
    }
    let worker = Worker::with_side(side.path()).behind(Wall::Namespace);
    let all = with(&worker, share.path(), one_of_each);
    with(&worker, share.path(), async |client| {
        are_as_made(client, &all).await;
    });
    // Without the database nothing is known, and what cannot be kept is refused.
    with(&Worker::default(), share.path(), async |client| {
        let found = client.metadata(b"fifo").await.unwrap();
        assert_eq!(
            told(&found),
            (FileKind::Regular, 0o711, OWNER.user, OWNER.group, 0, 0)
        );
        let made = client.make(b"new", NewNode::Fifo, given(0, 0, 0o600)).await;
        assert_eq!(made.unwrap_err(), Errno::NotPermitted);
        assert_eq!(client.metadata(b"new").await.unwrap_err(), Errno::NotFound);
        let set = client.set(b"file", to(5, 5, None)).await;
        assert_eq!(set.unwrap_err(), Errno::NotPermitted);
    });
    let status = std::process::Command::new("umount")
        .arg(share.path())
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn what_the_host_makes_belongs_to_the_owner_and_what_it_changes_is_right() {
    if !possible("what_the_host_makes_belongs_to_the_owner_and_what_it_changes_is_right") {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let host = |name: &str| share.path().join(name);
    fs::write(host("mine"), "").unwrap();
    chown(host("mine"), Some(USER), Some(GROUP)).unwrap();
    fs::write(host("roots"), "").unwrap();
    symlink("mine", host("link")).unwrap();
    std::os::unix::fs::lchown(host("link"), Some(USER), Some(GROUP)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    chown(host("pipe"), Some(USER), Some(GROUP)).unwrap();
    with(&Worker::default(), share.path(), async |client| {
        for name in ["mine", "link", "pipe"] {
            let found = client.metadata(name.as_bytes()).await.unwrap();
            assert_eq!(
                (found.user, found.group),
                (OWNER.user, OWNER.group),
                "{name}"
            );
        }
        let found = client.metadata(b"roots").await.unwrap();
        assert_eq!((found.user, found.group), (0, 0));
        assert_eq!(
            client.metadata(b"pipe").await.unwrap().kind(),
            FileKind::Fifo
        );

        client.set(b"mine", to(0, 0, Some(0o4755))).await.unwrap();
        fs::set_permissions(host("mine"), fs::Permissions::from_mode(0o600)).unwrap();
        let found = client.metadata(b"mine").await.unwrap();
        assert_eq!((found.mode & 0o7777, found.user), (0o600, 0));
        client.set(b"mine", to(0, 0, Some(0o4755))).await.unwrap();
        // A write takes the rights of the owner from whoever runs it.
        let file = client.open(b"mine", OpenFlags::WRITE, None).await.unwrap();
        file.write_at(0, b"#!").await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(client.metadata(b"mine").await.unwrap().mode & 0o7777, 0o755);
        client.set(b"mine", to(0, 0, Some(0o6755))).await.unwrap();
        let found = client.set(b"mine", to(1, 1, None)).await.unwrap();
        assert_eq!(found.mode & 0o7777, 0o755, "a change of owner too");
        // What is the owner's own leaves nothing on the host.
        client
            .set(b"mine", to(OWNER.user, OWNER.group, Some(0o640)))
            .await
            .unwrap();
        let mut value = [0; 64];
        let left = rustix::fs::getxattr(host("mine"), ATTRIBUTE, &mut value[..]);
        assert_eq!(left, Err(rustix::io::Errno::NODATA));
    });
    assert!(fs::metadata(host("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn a_mode_that_keeps_the_servers_user_out_keeps_no_client_out() {
    if !possible("a_mode_that_keeps_the_servers_user_out_keeps_no_client_out") {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let host = |name: &str| share.path().join(name);
    for (name, mode) in [("read-only", 0o444), ("nothing", 0)] {
        fs::write(host(name), "old").unwrap();
        fs::set_permissions(host(name), fs::Permissions::from_mode(mode)).unwrap();
        chown(host(name), Some(USER), Some(GROUP)).unwrap();
    }
    with(&Worker::default(), share.path(), async |client| {
        for (name, mode, real) in [("read-only", 0o444, 0o644), ("nothing", 0, 0o600)] {
            let path = name.as_bytes();
            let file = client
                .open(path, OpenFlags::READ | OpenFlags::WRITE, None)
                .await
                .unwrap();
            file.write_at(0, b"new").await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(fs::read(host(name)).unwrap(), b"new");
            let found = client.metadata(path).await.unwrap();
            assert_eq!(found.mode & 0o7777, mode, "{name}");
            let found = fs::metadata(host(name)).unwrap();
            assert_eq!(
                found.permissions().mode() & 0o7777,
                real,
                "{name}, on the host"
            );
        }
        // A directory that is closed to all is closed to clients by their own kernel.
        let creation = given(0, 0, 0);
        client
            .make(b"d", NewNode::Directory, creation)
            .await
            .unwrap();
        client
            .make(b"d/f", NewNode::Regular, creation)
            .await
            .unwrap();
        assert_eq!(client.metadata(b"d").await.unwrap().mode & 0o7777, 0);
        // What the host can have as it is has no record: an object of git, say.
        let creation = given(OWNER.user, OWNER.group, 0o444);
        client
            .make(b"object", NewNode::Regular, creation)
            .await
            .unwrap();
        let mode = fs::metadata(host("object")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
    });
}

#[test]
fn a_setgid_directory_of_clients_passes_its_group_on() {
    if !possible("a_setgid_directory_of_clients_passes_its_group_on") {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    with(&Worker::default(), share.path(), async |client| {
        client
            .make(b"d", NewNode::Directory, given(0, 50, 0o2775))
            .await
            .unwrap();
        let made = client
            .make(b"d/f", NewNode::Regular, given(0, 0, 0o644))
            .await;
        assert_eq!(told(&made.unwrap()).3, 50);
        let made = client
            .make(b"d/s", NewNode::Directory, given(0, 0, 0o755))
            .await;
        assert_eq!(
            told(&made.unwrap()),
            (FileKind::Directory, 0o2755, 0, 50, 0, 0)
        );
    });
    let mode = fs::metadata(share.path().join("d"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o775);
}

#[test]
fn records_that_make_no_sense_are_ignored() {
    if !possible("records_that_make_no_sense_are_ignored") {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let file = share.path().join("f");
    fs::write(&file, "content").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(USER), Some(GROUP)).unwrap();
    let set = |value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&file, ATTRIBUTE, value, flags).unwrap();
    };
    with(&Worker::default(), share.path(), async |client| {
        client.set(b"f", to(0, 0, None)).await.unwrap();
        let mut good = [0; 64];
        let length = rustix::fs::getxattr(&file, ATTRIBUTE, &mut good[..]).unwrap();
        let good = &good[..length];
        let plain = (FileKind::Regular, 0o644, OWNER.user, OWNER.group, 0, 0);
        let mut hostile = vec![
            vec![],
            vec![0; 2_000],
            vec![0xff; length],
            [good, b"x"].concat(),
        ];
        hostile.extend((0..length).map(|cut| good[..cut].to_vec()));
        let mut other = good.to_vec();
        other[0] = 2;
        hostile.push(other);
        for value in hostile {
            set(&value);
            let found = client.metadata(b"f").await.unwrap();
            assert_eq!(told(&found), plain, "{value:?}");
        }
        // A record of a pipe on a file with content, as a copy of one leaves it, makes no pipe of it.
        let mut pipe = good.to_vec();
        pipe[1] = 1;
        set(&pipe);
        assert_eq!(
            client.metadata(b"f").await.unwrap().kind(),
            FileKind::Regular
        );
    });
}

#[test]
fn no_client_sees_or_sets_a_record() {
    let share = tempfile::tempdir().unwrap();
    let file = share.path().join("f");
    fs::write(&file, "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&file, "user.other", b"x", flags).is_err() {
        println!("skipped: no_client_sees_or_sets_a_record: no extended attributes here");
        return;
    }
    rustix::fs::setxattr(&file, ATTRIBUTE, b"x", flags).unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(share.path()).await;
        let target = Target::Path(Bytes::from_static(b"f"));
        let names = client
            .data(&Request::ListXattr {
                target: target.clone(),
            })
            .await
            .unwrap();
        assert_eq!(&names[..], b"user.other\0");
        for name in [ATTRIBUTE, "user.colima.", "user.colima.anything"] {
            let name = Bytes::from_static(name.as_bytes());
            let get = Request::GetXattr {
                target: target.clone(),
                name: name.clone(),
            };
            assert_eq!(client.call(&get).await.unwrap_err(), Errno::NotSupported);
            let set = Request::SetXattr {
                target: target.clone(),
                name: name.clone(),
                value: Bytes::new(),
                mode: XattrMode::Set,
            };
            assert_eq!(client.call(&set).await.unwrap_err(), Errno::NotSupported);
            let remove = Request::RemoveXattr {
                target: target.clone(),
                name,
            };
            assert_eq!(client.call(&remove).await.unwrap_err(), Errno::NotSupported);
        }
    });
}
