//! Disks as the `qemu-img` of this host makes them, which these tests require.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use colima_core::Bytes;
use colima_vm::disk::{
    self, Change, Error,
    qcow2::{Condition, Overlay, Refusal},
};
use qemu_img_wrapper::{Image, Locking, QemuImg, Repair, Verdict};

const LIMIT: Bytes = Bytes::gib(64);

fn qemu_img() -> QemuImg {
    QemuImg::new()
}

/// `qemu-img create` with any options, for images that the library itself would not make.
fn create(arguments: &[&str], path: &Path, size: &str) {
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args(arguments)
        .arg(path)
        .arg(size)
        .status()
        .expect("these tests need the real qemu-img");
    assert!(status.success(), "{arguments:?}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn assert_sound(path: &Path) {
    let report = qemu_img()
        .check(Image::qcow2(path), Repair::Nothing)
        .await
        .unwrap();
    assert_eq!(report.verdict, Verdict::Clean, "{report:?}");
}

#[test]
fn futures_are_send() {
    fn send<T: Send>(_: T) {}
    let (qemu_img, path) = (qemu_img(), Path::new("x"));
    send(disk::inspect(path));
    send(disk::ensure_data(&qemu_img, path, LIMIT));
    send(disk::ensure_overlay(&qemu_img, path, path, LIMIT));
    send(disk::grow_to(&qemu_img, path, LIMIT));
}

#[tokio::test]
async fn every_ordinary_image_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    for (nth, options) in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "refcount_bits=1",
        "refcount_bits=64",
        "extended_l2=on,cluster_size=128k",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=falloc",
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(nth.to_string());
        create(&["-o", options], &path, "100M");
        for round in ["new", "with a snapshot"] {
            let header = disk::inspect(&path).await.expect(options);
            assert_eq!(header.virtual_size, Bytes::mib(100), "{options} {round}");
            assert_eq!(header.condition, Condition::Clean);
            assert_eq!(header.objections(LIMIT, Overlay::Refuse), []);
            if !options.starts_with("refcount_bits=1") {
                let image = Image::qcow2(&path);
                let _ = qemu_img().create_snapshot(image, round).await;
            }
        }
    }
    let path = directory.path().join("0");
    assert_eq!(disk::inspect(&path).await.unwrap().snapshots, 2);
}

#[tokio::test]
async fn every_dangerous_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    create(&[], &at("base"), "1M");
    let refusal = async |name: &str| {
        let header = disk::inspect(&at(name)).await.unwrap();
        header.admit(LIMIT, Overlay::Refuse).unwrap_err()
    };

    let base = at("base").into_os_string().into_string().unwrap();
    create(&["-b", &base, "-F", "qcow2"], &at("overlay"), "1M");
    assert_eq!(
        refusal("overlay").await,
        Refusal::BackingFile { name: base }
    );

    let data = at("data");
    let option = format!("data_file={}", data.display());
    create(&["-o", &option], &at("external"), "1M");
    let name = Some(data.into_os_string().into_string().unwrap());
    assert_eq!(refusal("external").await, Refusal::DataFile { name });

    let secret = "secret,id=s,data=x";
    let luks = [
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    create(&["--object", secret, luks[0], luks[1]], &at("luks"), "1M");
    assert_eq!(refusal("luks").await, Refusal::Encrypted);

    create(&[], &at("bomb"), "1P");
    assert!(fs::metadata(at("bomb")).unwrap().blocks() * 512 < 40 << 20);
    let (size, largest) = (Bytes::gib(1 << 20), LIMIT);
    assert_eq!(refusal("bomb").await, Refusal::TooLarge { size, largest });

    fs::write(at("raw"), [0; 4096]).unwrap();
    let error = disk::inspect(&at("raw")).await.unwrap_err();
    let Error::Refused {
        source: Refusal::NotQcow2,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
}

#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [&*fifo, directory.path(), Path::new("/dev/zero")] {
        let error = disk::inspect(path).await.unwrap_err();
        assert!(matches!(error, Error::NotAFile { .. }), "{error:?}");
    }
    let error = disk::inspect(&directory.path().join("absent"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error:?}");
}

#[tokio::test]
async fn a_data_disk_is_created_kept_and_grown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data, of: %d.qcow2");
    let ensure = async |size| disk::ensure_data(&qemu_img(), &path, size).await;

    // One byte less is still the same number of sectors.
    let odd = Bytes::new((10 << 30) - 1);
    assert_eq!(ensure(odd).await.unwrap(), Change::Created);
    assert_eq!(mode(&path), 0o600);
    assert!(
        fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20,
        "not sparse"
    );
    assert_eq!(names(directory.path()).len(), 2, "the disk and its lock");
    assert_sound(&path).await;

    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(ensure(Bytes::gib(10)).await.unwrap(), Change::Unchanged);
    let (from, to) = (Bytes::gib(10), Bytes::gib(20));
    assert_eq!(ensure(to).await.unwrap(), Change::Grown { from, to });
    assert_eq!(ensure(to).await.unwrap(), Change::Unchanged);
    assert_eq!(disk::virtual_size(&path).await.unwrap(), to);

    let error = ensure(Bytes::gib(10)).await.unwrap_err();
    assert!(matches!(error, Error::WouldShrink { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.ends_with("has 20GiB and cannot shrink to 10GiB"),
        "{text}"
    );
    assert_eq!(disk::virtual_size(&path).await.unwrap(), to);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_sound(&path).await;
}

#[tokio::test]
async fn what_has_the_name_of_a_disk_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ensure = async |path: PathBuf| {
        disk::ensure_data(&qemu_img(), &path, Bytes::gib(1))
            .await
            .unwrap_err()
    };

    fs::write(at("precious"), "precious").unwrap();
    assert!(matches!(
        ensure(at("precious")).await,
        Error::Refused { .. }
    ));
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "precious");

    fs::write(at("empty"), "").unwrap();
    assert!(matches!(ensure(at("empty")).await, Error::Refused { .. }));

    // The other disk, where the data is, is not mounted.
    symlink("/nonexistent/data.qcow2", at("link")).unwrap();
    assert!(matches!(ensure(at("link")).await, Error::Read { .. }));

    create(&[], &at("damaged"), "1G");
    let mut bytes = fs::read(at("damaged")).unwrap();
    bytes[79] |= 0b10;
    fs::write(at("damaged"), &bytes).unwrap();
    assert!(matches!(ensure(at("damaged")).await, Error::Corrupt { .. }));
    assert!(fs::read(at("damaged")).unwrap() == bytes);

    let absent = directory.path().join("absent").join("disk");
    assert!(matches!(ensure(absent).await, Error::File { .. }));
    let error = disk::grow_to(&qemu_img(), &at("nothing"), Bytes::gib(1)).await;
    assert!(matches!(error, Err(Error::Read { .. })), "{error:?}");
    assert!(
        !names(directory.path())
            .iter()
            .any(|name| name.contains("nothing"))
    );
}

#[tokio::test]
async fn an_overlay_belongs_to_one_base() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (base, path) = (at("base: a,b"), at("root"));
    create(&[], &base, "1G");
    let ensure =
        async |base: &Path, size| disk::ensure_overlay(&qemu_img(), base, &path, size).await;

    let error = ensure(&base, Bytes::mib(1023)).await.unwrap_err();
    assert!(matches!(error, Error::SmallerThanBase { .. }), "{error:?}");
    assert!(!path.exists());

    assert_eq!(ensure(&base, Bytes::gib(2)).await.unwrap(), Change::Created);
    assert_eq!(mode(&path), 0o600);
    let info = qemu_img()
        .info(Image::qcow2(&path), Locking::Respect)
        .await
        .unwrap();
    let backing = info.backing.unwrap();
    assert_eq!(Path::new(&backing.name), base);
    assert_eq!(backing.format.as_deref(), Some("qcow2"));

    assert_eq!(
        ensure(&base, Bytes::gib(2)).await.unwrap(),
        Change::Unchanged
    );
    let (from, to) = (Bytes::gib(2), Bytes::gib(3));
    assert_eq!(ensure(&base, to).await.unwrap(), Change::Grown { from, to });
    let (from, to) = (to, Bytes::gib(4));
    let change = disk::grow_to(&qemu_img(), &path, to).await.unwrap();
    assert_eq!(change, Change::Grown { from, to });
    let error = ensure(&base, Bytes::gib(3)).await.unwrap_err();
    assert!(matches!(error, Error::WouldShrink { .. }), "{error:?}");

    fs::copy(&base, at("update")).unwrap();
    let error = ensure(&at("update"), Bytes::gib(4)).await.unwrap_err();
    assert!(
        matches!(error, Error::OtherBase { found: Some(_), .. }),
        "{error:?}"
    );
    let error = disk::ensure_data(&qemu_img(), &path, Bytes::gib(4))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }),
        "an overlay is no data disk: {error:?}"
    );
    let error = disk::ensure_overlay(&qemu_img(), &path, &at("second"), Bytes::gib(4)).await;
    assert!(matches!(error, Err(Error::Refused { .. })), "{error:?}");
}

#[tokio::test]
async fn calls_at_once_make_one_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let path = path.clone();
        calls.spawn(async move {
            disk::ensure_data(&qemu_img(), &path, Bytes::gib(1))
                .await
                .unwrap()
        });
    }
    let changes = calls.join_all().await;
    let created = changes.iter().filter(|change| **change == Change::Created);
    assert_eq!(created.count(), 1, "{changes:?}");
    assert_eq!(names(directory.path()), [".data.lock", "data"]);
}

#[tokio::test]
async fn a_failure_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let missing = QemuImg::at("/nonexistent/qemu-img");
    let error = disk::ensure_data(&missing, &path, Bytes::gib(1))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Tool(qemu_img_wrapper::Error::NotInstalled { .. })
        ),
        "{error:?}"
    );
    assert_eq!(names(directory.path()), [".data.lock"]);
}

/// Run by the test below in a process that is killed; does nothing unless it is told a directory.
#[tokio::test]
async fn make_a_disk_and_grow_it() {
    let Some(directory) = std::env::var_os("COLIMA_TEST_DISK_DIRECTORY") else {
        return;
    };
    let path = Path::new(&directory).join("data");
    for size in [Bytes::gib(1), Bytes::gib(2)] {
        let _ = disk::ensure_data(&qemu_img(), &path, size).await.unwrap();
    }
}

/// Kills the process, or its `qemu-img`, at the N-th of each of the calls that change files, for every
/// N there is, and then does what its user would do: run it again.
#[tokio::test]
async fn a_kill_at_any_moment_costs_nothing() {
    let program = std::env::current_exe().unwrap();
    let mut kills = 0;
    for call in [
        "flock",
        "fchmod",
        "execve",
        "ftruncate",
        "pwrite64",
        "fdatasync",
        "fsync",
        "renameat2",
        "unlink",
    ] {
        for nth in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("data");
            // strace ends when every process is dead, an orphaned qemu-img too.
            let status = Command::new("strace")
                .args([
                    "-f",
                    "-qq",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                ])
                .args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")])
                .arg(&program)
                .args(["--exact", "make_a_disk_and_grow_it"])
                .env("COLIMA_TEST_DISK_DIRECTORY", directory.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("this test needs strace");
            if path.exists() {
                let size = disk::virtual_size(&path).await.unwrap();
                assert!(
                    [1, 2].map(Bytes::gib).contains(&size),
                    "{call} {nth}: {size}"
                );
            }
            let _ = disk::ensure_data(&qemu_img(), &path, Bytes::gib(3))
                .await
                .unwrap();
            // Growing moves the L1 table; the old or the new one may be leaked, never more.
            let disk = Image::qcow2(&path);
            let report = qemu_img().check(disk, Repair::Nothing).await.unwrap();
            assert_ne!(report.verdict, Verdict::Corrupt, "{call} {nth}: {report:?}");
            assert!(report.leaks <= 1, "{call} {nth}: {report:?}");
            assert_eq!(
                names(directory.path()),
                [".data.lock", "data"],
                "{call} {nth}"
            );
            if status.success() {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 10, "only {kills} kills");
}
