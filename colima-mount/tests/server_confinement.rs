//! What lies outside of the root stays there, whatever is asked and whoever helps from inside.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use colima_mount::{
    Access, Client, Root,
    server::{Limits, Resolver},
    sftp::{
        Attributes, Creation, Errno, Metadata, NewNode, NewTime, OpenFlags, Rename, Reply, Request,
        Target, Update, XattrMode,
    },
};

use crate::{peers, server_differential::tree};

const SECRET: &str = "the canary";

/// A share beside things that are not shared, with traps in it.
struct Prison {
    directory: tempfile::TempDir,
}

impl Prison {
    fn new() -> Self {
        let prison = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let outside = prison.path("outside");
        std::fs::create_dir_all(outside.join("directory")).unwrap();
        std::fs::write(outside.join("secret"), SECRET).unwrap();
        std::fs::write(prison.path("share-sibling"), SECRET).unwrap();
        let share = prison.share();
        std::fs::create_dir_all(share.join("inside/deep")).unwrap();
        std::fs::write(share.join("inside/file"), b"inside").unwrap();
        for (name, target) in [
            ("absolute", outside.join("secret")),
            ("absolute-directory", outside.clone()),
            ("relative", "../outside/secret".into()),
            ("relative-directory", "../outside".into()),
            ("dangling", outside.join("not-there-yet")),
            ("to-root", "/".into()),
            ("magic", "/proc/self/root".into()),
            ("magic-cwd", "/proc/self/cwd".into()),
            ("loop", "loop".into()),
            ("chain", "absolute-directory".into()),
            ("inside-link", "inside/file".into()),
        ] {
            symlink(target, share.join(name)).unwrap();
        }
        prison
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn share(&self) -> PathBuf {
        self.path("share")
    }

    fn outside(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let sibling = std::fs::read(self.path("share-sibling")).unwrap();
        let times = std::fs::metadata(self.path("outside/secret")).unwrap();
        let times = (
            times.mtime(),
            times.mtime_nsec(),
            times.ctime(),
            times.ctime_nsec(),
        );
        (tree(&self.path("outside")), sibling, times)
    }

    /// Paths that lead out, or would if anybody followed them.
    fn hostile(&self) -> Vec<Vec<u8>> {
        let outside = self.path("outside/secret");
        let outside = outside.to_str().unwrap();
        let mut paths: Vec<Vec<u8>> = [
            "../outside/secret",
            "/../outside/secret",
            "../../../../../../../../etc/passwd",
            "inside/../../outside/secret",
            "inside/../../../../../../etc/passwd",
            "./.././../outside/secret",
            "../share-sibling",
            "..",
            "/etc/passwd",
            "//etc/passwd",
            outside,
            "absolute",
            "absolute-directory/secret",
            "absolute-directory/new",
            "relative",
            "relative-directory/secret",
            "relative-directory/new",
            "dangling",
            "to-root/etc/passwd",
            "magic/etc/passwd",
            "magic-cwd/Cargo.toml",
            "chain/secret",
            "loop",
            "loop/x",
            "inside-link/x",
            "/proc/self/root/etc/passwd",
            "absolute-directory/../outside/secret",
            "inside/deep/../../relative-directory/secret",
        ]
        .iter()
        .map(|path| path.as_bytes().to_vec())
        .collect();
        paths.push(b"inside/file\0/../../outside/secret".to_vec());
        paths.push(b"../outside/secret\0".to_vec());
        paths.push(b"..\\outside\\secret".to_vec());
        paths.push(b"\xff\xfe/../../outside/secret".to_vec());
        paths.push([&b"../".repeat(2000)[..], b"outside/secret"].concat());
        paths
    }
}

/// Every request that has a path, with this path in each place.
fn requests(path: &Bytes) -> Vec<Request> {
    let path = || path.clone();
    let inside = || Bytes::from_static(b"inside/file");
    let new = || Bytes::from_static(b"inside/new");
    let creation = Creation {
        mode: 0o6777,
        owner: None,
    };
    let attributes = || Attributes {
        size: Some(1),
        mode: Some(0o6777),
        ..Attributes::default()
    };
    let flags = [
        OpenFlags::READ,
        OpenFlags::WRITE,
        OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
        OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
        OpenFlags::READ | OpenFlags::WRITE | OpenFlags::APPEND | OpenFlags::CREATE,
    ];
    let update = Update {
        size: Some(1),
        mode: Some(0o6777),
        modified: Some(NewTime::Now),
        ..Update::default()
    };
    let target = || Target::Path(path());
    let name = || Bytes::from_static(b"user.trap");
    let mut all: Vec<Request> = flags
        .into_iter()
        .flat_map(|flags| {
            [
                Request::Open {
                    path: path(),
                    flags,
                    attributes: attributes(),
                },
                Request::OpenFile {
                    path: path(),
                    flags,
                    creation: flags.has(OpenFlags::CREATE).then_some(creation),
                    first: 100,
                },
            ]
        })
        .collect();
    let nodes = [
        NewNode::Directory,
        NewNode::Fifo,
        NewNode::Regular,
        NewNode::Symlink { target: path() },
    ];
    all.extend(nodes.into_iter().map(|node| Request::Make {
        path: path(),
        node,
        creation,
    }));
    all.extend([
        Request::Lstat { path: path() },
        Request::Stat { path: path() },
        Request::Setstat {
            path: path(),
            attributes: attributes(),
        },
        Request::Lsetstat {
            path: path(),
            attributes: attributes(),
        },
        Request::Opendir { path: path() },
        Request::Mkdir {
            path: path(),
            attributes: attributes(),
        },
        Request::Realpath { path: path() },
        Request::Readlink { path: path() },
        Request::Symlink {
            target: inside(),
            path: path(),
        },
        Request::Statvfs { path: path() },
        Request::Look { target: target() },
        Request::Set {
            target: target(),
            update,
        },
        Request::Link {
            from: target(),
            to: new(),
        },
        Request::Link {
            from: Target::Path(inside()),
            to: path(),
        },
        Request::Hardlink {
            from: path(),
            to: new(),
        },
        Request::GetXattr {
            target: target(),
            name: name(),
        },
        Request::ListXattr { target: target() },
        Request::SetXattr {
            target: target(),
            name: name(),
            value: name(),
            mode: XattrMode::Set,
        },
        Request::RemoveXattr {
            target: target(),
            name: name(),
        },
        Request::Watch { path: path() },
        Request::Rename {
            from: inside(),
            to: path(),
        },
        Request::PosixRename {
            from: path(),
            to: new(),
        },
        Request::Move {
            from: inside(),
            to: path(),
            rename: Rename::Exchange,
        },
        Request::Remove { path: path() },
        Request::Rmdir { path: path() },
    ]);
    all
}

fn text_of(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Status { text, .. } => text.to_vec(),
        Reply::Data(bytes) | Reply::Extended(bytes) | Reply::Handle(bytes) => bytes.to_vec(),
        Reply::Names(names) => names.iter().flat_map(|name| name.name.to_vec()).collect(),
        Reply::Attributes(_) => Vec::new(),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn throw_everything(resolver: Resolver, access: Access) {
    peers::runtime().block_on(async {
        for path in Prison::new().hostile() {
            // A new one each time, for some requests change what is inside.
            let prison = Prison::new();
            let before = prison.outside();
            let inside_before = tree(&prison.share());
            let root = Root::open(prison.share()).unwrap().resolved_by(resolver);
            let (stream, _) = peers::serve(root, access, Limits::default());
            let client = Client::connect(stream).await.unwrap();
            // Paths that were made for one prison lead to the one at hand as well.
            let path = Bytes::from(path);
            let host = prison.directory.path().to_str().unwrap().to_owned();
            for request in requests(&path) {
                let reply = client.call(&request).await;
                let Ok(reply) = reply else { continue };
                let text = text_of(&reply);
                assert!(
                    !contains(&text, SECRET.as_bytes()),
                    "{request:?}: {reply:?}"
                );
                // A link says what it says; nothing else tells where the share is.
                if !matches!(request, Request::Readlink { .. } | Request::Realpath { .. }) {
                    assert!(!contains(&text, host.as_bytes()), "{request:?}: {reply:?}");
                }
            }
            assert_eq!(prison.outside(), before, "{path:?}");
            if access == Access::ReadOnly {
                assert_eq!(tree(&prison.share()), inside_before, "{path:?}");
            }
            for entry in tree(&prison.share()).values() {
                let mode = u32::from_str_radix(entry.split(' ').next().unwrap(), 8).unwrap();
                assert_eq!(mode & 0o6000, 0, "{path:?}: {entry}");
            }
        }
    });
}

#[test]
fn no_path_leads_out_in_the_kernels_resolver() {
    throw_everything(Resolver::Openat2, Access::ReadWrite);
}

#[test]
fn no_path_leads_out_component_by_component() {
    throw_everything(Resolver::Components, Access::ReadWrite);
}

#[test]
fn nothing_changes_on_a_read_only_share() {
    throw_everything(Resolver::Openat2, Access::ReadOnly);
    let prison = Prison::new();
    let before = tree(&prison.share());
    peers::runtime().block_on(async {
        let root = Root::open(prison.share()).unwrap();
        let (stream, _) = peers::serve(root, Access::ReadOnly, Limits::default());
        let client = Client::connect(stream).await.unwrap();
        let inside = Bytes::from_static(b"inside/file");
        let changing = |request: &Request| {
            !matches!(
                request,
                Request::Lstat { .. }
                    | Request::Stat { .. }
                    | Request::Opendir { .. }
                    | Request::Realpath { .. }
                    | Request::Readlink { .. }
                    | Request::Statvfs { .. }
                    | Request::Look { .. }
                    | Request::GetXattr { .. }
                    | Request::ListXattr { .. }
                    | Request::Watch { .. }
                    | Request::Open {
                        flags: OpenFlags::READ,
                        ..
                    }
                    | Request::OpenFile {
                        flags: OpenFlags::READ,
                        ..
                    }
            )
        };
        for request in requests(&inside).iter().filter(|request| changing(request)) {
            assert_eq!(
                client.call(request).await,
                Err(Errno::ReadOnly),
                "{request:?}"
            );
        }
        let file = client
            .open(b"inside/file", OpenFlags::READ, None)
            .await
            .unwrap();
        for request in [
            Request::Fsetstat {
                handle: file.handle().clone(),
                attributes: Attributes {
                    size: Some(0),
                    ..Attributes::default()
                },
            },
            Request::Write {
                handle: file.handle().clone(),
                offset: 0,
                data: Bytes::from_static(b"x"),
            },
            Request::Allocate {
                handle: file.handle().clone(),
                mode: 0,
                offset: 0,
                length: 100,
            },
            Request::Link {
                from: Target::Handle(file.handle().clone()),
                to: Bytes::from_static(b"x"),
            },
        ] {
            assert_eq!(
                client.call(&request).await,
                Err(Errno::ReadOnly),
                "{request:?}"
            );
        }
    });
    assert_eq!(tree(&prison.share()), before);
}

#[test]
fn a_hard_link_to_a_symlink_is_about_the_link() {
    let prison = Prison::new();
    peers::runtime().block_on(async {
        let client = peers::client(&prison.share()).await;
        let request = Request::Hardlink {
            from: Bytes::from_static(b"absolute"),
            to: Bytes::from_static(b"inside/copy"),
        };
        client.command(&request).await.unwrap();
        let copy = prison.share().join("inside/copy");
        assert!(std::fs::symlink_metadata(copy).unwrap().is_symlink());
        assert_eq!(
            std::fs::metadata(prison.path("outside/secret"))
                .unwrap()
                .nlink(),
            1
        );
    });
}

#[test]
fn setuid_and_setgid_are_never_set() {
    let prison = Prison::new();
    let file = prison.share().join("inside/file");
    peers::runtime().block_on(async {
        let client = peers::client(&prison.share()).await;
        let update = Update {
            mode: Some(0o6755),
            ..Update::default()
        };
        assert_eq!(
            client.set(b"inside/file", update).await.unwrap().mode & 0o7777,
            0o755
        );
        let open = client
            .open(b"inside/file", OpenFlags::WRITE, None)
            .await
            .unwrap();
        assert_eq!(open.set(update).await.unwrap().mode & 0o7777, 0o755);
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o755
        );
    });
}

/// Threads of the host swap a directory with a link that leads out while everything is asked.
fn race(resolver: Resolver, rounds: usize) {
    let prison = Prison::new();
    let share = prison.share();
    std::fs::create_dir(share.join("swap")).unwrap();
    std::fs::write(share.join("swap/secret"), b"harmless").unwrap();
    let before = prison.outside();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (share, stop) = (share.clone(), Arc::clone(&stop));
        move || {
            let mut swaps = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let (from, to) = (share.join("swap"), share.join("relative-directory"));
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &from,
                    rustix::fs::CWD,
                    &to,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    let (mut reached, mut refused) = (0, 0);
    peers::runtime().block_on(async {
        let root = Root::open(&share).unwrap().resolved_by(resolver);
        let (stream, _) = peers::serve(root, Access::ReadWrite, Limits::default());
        let client = Client::connect(stream).await.unwrap();
        for round in 0..rounds {
            let path = b"swap/secret";
            match client.open(path, OpenFlags::READ, None).await {
                Ok(file) => {
                    reached += 1;
                    let content = file.read_at(0, 100).await.unwrap();
                    assert_ne!(content, SECRET.as_bytes());
                }
                Err(Errno::Symlink | Errno::NotFound | Errno::Again | Errno::NotADirectory) => {
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
            let new = format!("swap/new{round}");
            let _ = client
                .open(
                    new.as_bytes(),
                    OpenFlags::WRITE,
                    Some(Creation {
                        mode: 0o600,
                        owner: None,
                    }),
                )
                .await;
            let update = Update {
                mode: Some(0o600),
                ..Update::default()
            };
            let _: Result<Metadata, _> = client.set(path, update).await;
            let _ = client
                .rename(b"inside/file", b"swap/moved", Rename::Replace)
                .await;
            let _ = client
                .rename(b"swap/moved", b"inside/file", Rename::Replace)
                .await;
            let _ = client.remove(new.as_bytes()).await;
        }
    });
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    assert!(swaps > 100, "{swaps} swaps");
    assert!(
        reached > 0 && refused > 0,
        "{reached} reached, {refused} refused"
    );
    assert_eq!(prison.outside(), before);
    assert!(!Path::new(&prison.path("outside/moved")).exists());
}

#[test]
fn a_directory_swapped_with_a_link_leads_nowhere() {
    let seconds = std::env::var("COLIMA_TORTURE_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    let rounds = seconds.map_or(1500, |seconds: usize| seconds * 500);
    race(Resolver::Openat2, rounds);
    race(Resolver::Components, rounds);
}
