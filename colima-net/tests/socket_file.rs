//! Socket files: who may reach them, what they replace and what they leave alone.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use colima_net::{NetError, SocketFile};
use tokio::net::UnixStream;

use crate::relay_connections::private_directory;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn only_the_owner_can_reach_it() {
    let directory = private_directory();
    let path = directory.path().join("run/docker.sock");
    let socket = SocketFile::bind(&path).unwrap();
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o7777, 0o600);
    let parent = std::fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!(parent.mode() & 0o7777, 0o700);
    let (client, accepted) = tokio::join!(UnixStream::connect(&path), socket.listener().accept());
    client.unwrap();
    accepted.unwrap();
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_directory_that_others_can_enter_is_refused() {
    let directory = private_directory();
    for mode in [0o755, 0o710, 0o707, 0o777] {
        set_mode(directory.path(), mode);
        let error = SocketFile::bind(directory.path().join("s")).unwrap_err();
        assert!(
            matches!(error, NetError::SocketDirectoryNotPrivate { .. }),
            "{error}"
        );
    }
    let missing = directory.path().join("no/such/s");
    let error = SocketFile::bind(missing).unwrap_err();
    assert!(matches!(error, NetError::SocketDirectory { .. }), "{error}");
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = private_directory();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let live = SocketFile::bind(&path).unwrap();
    let error = SocketFile::bind(&path).unwrap_err();
    assert!(matches!(error, NetError::SocketInUse { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    // The first is unharmed.
    let (client, accepted) = tokio::join!(UnixStream::connect(&path), live.listener().accept());
    client.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = private_directory();
    let path = directory.path().join("s");
    let precious = directory.path().join("precious");
    std::fs::write(&precious, "data").unwrap();

    std::fs::write(&path, "a file").unwrap();
    let error = SocketFile::bind(&path).unwrap_err();
    assert!(matches!(error, NetError::SocketOccupied { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    std::fs::remove_file(&path).unwrap();

    // A link is refused whatever it leads to, a dead socket included.
    let dead = directory.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for target in [&precious, &dead, &directory.path().join("nothing")] {
        symlink(target, &path).unwrap();
        let error = SocketFile::bind(&path).unwrap_err();
        assert!(matches!(error, NetError::SocketOccupied { .. }), "{error}");
        assert_eq!(std::fs::read_link(&path).unwrap(), *target);
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(std::fs::read(&precious).unwrap(), b"data");
    assert!(dead.exists());

    std::fs::create_dir(&path).unwrap();
    let error = SocketFile::bind(&path).unwrap_err();
    assert!(matches!(error, NetError::SocketOccupied { .. }), "{error}");
}

#[tokio::test]
async fn a_successor_under_the_same_path_is_not_unlinked() {
    let directory = private_directory();
    let path = directory.path().join("s");
    let first = SocketFile::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = SocketFile::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_path_longer_than_an_address_works() {
    let directory = private_directory();
    let deep = directory.path().join("d".repeat(90)).join("e".repeat(90));
    std::fs::create_dir_all(deep.parent().unwrap()).unwrap();
    let path = deep.join("docker.sock");
    let socket = SocketFile::bind(&path).unwrap();
    assert!(path.exists());
    let error = SocketFile::bind(&path).unwrap_err();
    assert!(matches!(error, NetError::SocketInUse { .. }), "{error}");
    drop(socket);
    assert!(!path.exists());

    let name = deep.join("n".repeat(120));
    let error = SocketFile::bind(name).unwrap_err();
    assert!(matches!(error, NetError::SocketPath { .. }), "{error}");
    let error = SocketFile::bind("/").unwrap_err();
    assert!(matches!(error, NetError::SocketPath { .. }), "{error}");
}
