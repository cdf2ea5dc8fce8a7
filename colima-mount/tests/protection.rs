//! Paths that clients may not change, and paths that they do not see.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use colima_mount::{
    Access, Client, Root, Server,
    server::{Protection, Refusals},
    sftp::{
        Attributes, ChangeSet, Creation, Errno, Metadata, NewNode, NewTime, OpenFlags, Rename,
        Reply, Request, Target, Update, XattrMode,
    },
};

use crate::peers;

/// A home with a key, a start-up file that is not there yet, and state of ours.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at(".ssh/keys")).unwrap();
    fs::write(at(".ssh/authorized_keys"), "mine").unwrap();
    fs::write(at(".bashrc"), "mine").unwrap();
    fs::create_dir_all(at(".config/autostart")).unwrap();
    fs::write(at(".config/other"), "").unwrap();
    fs::create_dir_all(at(".colima/default")).unwrap();
    fs::write(at(".colima/default/state"), "ours").unwrap();
    fs::create_dir(at("work")).unwrap();
    fs::write(at("work/file"), "").unwrap();
    fs::hard_link(at(".bashrc"), at("work/alias")).unwrap();
    fs::hard_link(at(".ssh/authorized_keys"), at("work/alias-of-key")).unwrap();
    home
}

const PROTECTED: [&str; 4] = [".ssh", ".bashrc", ".profile", ".config/autostart"];

async fn serve(home: &Path) -> (Client, Refusals) {
    let (protection, refusals) = Protection::new(PROTECTED, [".colima"]).unwrap();
    let server = Server::new(Root::open(home).unwrap(), Access::ReadWrite).protection(protection);
    let (here, there) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move { server.serve(there).await });
    (Client::connect(here).await.unwrap(), refusals)
}

fn plain() -> Creation {
    Creation {
        mode: 0o777,
        owner: None,
    }
}

/// Everything that changes what a path names.
fn changes(path: &str) -> Vec<Request> {
    let path = Bytes::copy_from_slice(path.as_bytes());
    let target = Target::Path(path.clone());
    let attributes = Attributes {
        mode: Some(0o777),
        size: Some(0),
        ..Attributes::default()
    };
    let update = Update {
        mode: Some(0o777),
        modified: Some(NewTime::Now),
        ..Update::default()
    };
    let name = Bytes::from_static(b"user.x");
    vec![
        Request::Setstat {
            path: path.clone(),
            attributes: attributes.clone(),
        },
        Request::Lsetstat {
            path: path.clone(),
            attributes: attributes.clone(),
        },
        Request::Open {
            path: path.clone(),
            flags: OpenFlags::WRITE | OpenFlags::TRUNCATE,
            attributes,
        },
        Request::OpenFile {
            path: path.clone(),
            flags: OpenFlags::READ | OpenFlags::WRITE,
            creation: None,
            first: 0,
        },
        Request::Set {
            target: target.clone(),
            update,
        },
        Request::SetXattr {
            target: target.clone(),
            name: name.clone(),
            value: Bytes::new(),
            mode: XattrMode::Set,
        },
        Request::RemoveXattr { target, name },
    ]
}

/// Everything that puts something where a path is, or takes it away.
fn replacements(path: &str) -> Vec<Request> {
    let path = Bytes::copy_from_slice(path.as_bytes());
    let other = Bytes::from_static(b"work/file");
    let new = Bytes::from_static(b"work/new");
    let moving = |from: &Bytes, to: &Bytes, rename| Request::Move {
        from: from.clone(),
        to: to.clone(),
        rename,
    };
    let mut all = vec![
        Request::Remove { path: path.clone() },
        Request::Symlink {
            target: other.clone(),
            path: path.clone(),
        },
        Request::Rename {
            from: path.clone(),
            to: new.clone(),
        },
        Request::PosixRename {
            from: other.clone(),
            to: path.clone(),
        },
        moving(&path, &new, Rename::Replace),
        moving(&other, &path, Rename::Replace),
        moving(&other, &path, Rename::Exchange),
        moving(&path, &other, Rename::Exchange),
        Request::Hardlink {
            from: other.clone(),
            to: path.clone(),
        },
        Request::Link {
            from: Target::Path(other),
            to: path.clone(),
        },
    ];
    for node in [
        NewNode::Regular,
        NewNode::Fifo,
        NewNode::Symlink {
            target: new.clone(),
        },
    ] {
        all.push(Request::Make {
            path: path.clone(),
            node,
            creation: plain(),
        });
    }
    all.push(Request::OpenFile {
        path,
        flags: OpenFlags::WRITE,
        creation: Some(plain()),
        first: 0,
    });
    all
}

fn links_and_directories(path: &str) -> [Request; 4] {
    let path = Bytes::copy_from_slice(path.as_bytes());
    [
        Request::Mkdir {
            path: path.clone(),
            attributes: Attributes::default(),
        },
        Request::Rmdir { path: path.clone() },
        Request::Hardlink {
            from: path.clone(),
            to: Bytes::from_static(b"work/new"),
        },
        Request::Link {
            from: Target::Path(path),
            to: Bytes::from_static(b"work/new"),
        },
    ]
}

async fn all_fail(client: &Client, requests: impl IntoIterator<Item = Request>, errno: Errno) {
    for request in requests {
        let answer = client.call(&request).await;
        assert_eq!(answer.err(), Some(errno), "{request:?}");
    }
}

#[test]
fn protected_paths_are_read_and_not_changed_however_it_is_tried() {
    let home = home();
    let before = peers::everything_in(home.path());
    peers::runtime().block_on(async {
        let (client, mut refusals) = serve(home.path()).await;
        let denied = Errno::AccessDenied;
        for path in [
            ".ssh",
            ".ssh/authorized_keys",
            "/./.ssh/keys/../authorized_keys",
            ".bashrc",
            ".config/autostart",
        ] {
            all_fail(&client, changes(path), denied).await;
            all_fail(&client, replacements(path), denied).await;
            all_fail(&client, links_and_directories(path), denied).await;
        }
        // What is not there is not made, and what is above keeps its name.
        all_fail(&client, replacements(".profile"), denied).await;
        all_fail(&client, replacements(".ssh/new"), denied).await;
        all_fail(&client, replacements(".config"), denied).await;
        // A second name is no way around.
        for alias in ["work/alias", "work/alias-of-key"] {
            all_fail(&client, changes(alias), denied).await;
        }
        // A handle for reading is none for changing.
        let open = Request::Open {
            path: Bytes::from_static(b".bashrc"),
            flags: OpenFlags::READ,
            attributes: Attributes::default(),
        };
        let Reply::Handle(handle) = client.call(&open).await.unwrap() else {
            panic!("no handle");
        };
        let target = Target::Handle(handle.clone());
        let by_handle = [
            Request::Set {
                target: target.clone(),
                update: Update {
                    mode: Some(0o777),
                    ..Update::default()
                },
            },
            Request::SetXattr {
                target: target.clone(),
                name: Bytes::from_static(b"user.x"),
                value: Bytes::new(),
                mode: XattrMode::Set,
            },
            Request::Link {
                from: target,
                to: Bytes::from_static(b"work/new"),
            },
        ];
        all_fail(&client, by_handle, denied).await;
        let read = Request::Read {
            handle,
            offset: 0,
            length: 10,
        };
        assert_eq!(client.data(&read).await.unwrap(), "mine");
        assert_eq!(peers::everything_in(home.path()), before);
        // Beside them everything goes on.
        client
            .make(b".config/new", NewNode::Regular, plain())
            .await
            .unwrap();
        client
            .rename(b".config/other", b"work/other", Rename::Replace)
            .await
            .unwrap();
        client
            .make(b".sshx", NewNode::Directory, plain())
            .await
            .unwrap();

        drop(client);
        let mut told = Vec::new();
        while let Some(path) = refusals.next().await {
            told.push(path.to_str().unwrap().to_owned());
        }
        told.sort();
        assert_eq!(told, [".bashrc", ".config/autostart", ".profile", ".ssh"]);
    });
}

#[test]
fn hidden_paths_are_not_there() {
    let home = home();
    let before = peers::everything_in(home.path());
    peers::runtime().block_on(async {
        let (client, _refusals) = serve(home.path()).await;
        for path in [
            ".colima",
            ".colima/default/state",
            "work/../.colima/default",
        ] {
            let found = client.metadata(path.as_bytes()).await;
            assert_eq!(found.unwrap_err(), Errno::NotFound, "{path}");
            let opened = client.open(path.as_bytes(), OpenFlags::READ, None).await;
            assert_eq!(opened.unwrap_err(), Errno::NotFound, "{path}");
            all_fail(&client, changes(path), Errno::NotFound).await;
            for request in replacements(path)
                .into_iter()
                .chain(links_and_directories(path))
            {
                let answer = client.call(&request).await.unwrap_err();
                let refused = matches!(answer, Errno::NotFound | Errno::AccessDenied);
                assert!(refused, "{request:?}: {answer:?}");
            }
        }
        let path = Bytes::from_static(b"/");
        let Reply::Handle(handle) = client.call(&Request::Opendir { path }).await.unwrap() else {
            panic!("no handle");
        };
        let mut names = Vec::new();
        while let Reply::Names(some) = client
            .call(&Request::Readdir {
                handle: handle.clone(),
            })
            .await
            .unwrap()
        {
            names.extend(some.into_iter().map(|name| name.name));
        }
        assert!(names.iter().any(|name| name == ".ssh"));
        assert!(!names.iter().any(|name| name == ".colima"), "{names:?}");
        assert_eq!(peers::everything_in(home.path()), before);

        // Nor does anybody hear of them.
        let path = Bytes::from_static(b"/");
        let _: Metadata = client.ask(&Request::Watch { path }).await.unwrap();
        let permissions = fs::Permissions::from_mode(0o700);
        fs::set_permissions(home.path().join(".colima"), permissions).unwrap();
        fs::write(home.path().join("seen"), "").unwrap();
        let mut heard = Vec::new();
        while !heard.iter().any(|name| name == "seen") {
            let changes: ChangeSet = client.ask(&Request::Changes {}).await.unwrap();
            heard.extend(changes.changes.into_iter().map(|change| change.name));
        }
        assert!(!heard.iter().any(|name| name == ".colima"), "{heard:?}");
    });
}
