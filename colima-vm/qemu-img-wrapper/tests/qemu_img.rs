//! Everything once against the `qemu-img` of this host, which these tests require.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use qemu_img_wrapper::{
    Compression, Convert, Create, Error, Format, FormatSpecific, Image, Locking, Operation,
    Percent, Preallocation, QemuImg, Reason, Repair, Resize, Verdict, Version,
};

const MIB: u64 = 1 << 20;

/// Far more than any test needs; only a hang ends here.
const DEADLINE: Duration = Duration::from_secs(120);

async fn qemu_img() -> QemuImg {
    let qemu_img = QemuImg::new();
    if let Err(error) = qemu_img.version().await {
        panic!("these tests need the real qemu-img: {error}");
    }
    qemu_img
}

fn stand_in() -> QemuImg {
    QemuImg::at(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/stand_in.sh"
    ))
}

/// A qcow2 image of 10 MiB whose first MiB is written.
async fn filled(qemu_img: &QemuImg, dir: &Path) -> PathBuf {
    let (raw, path) = (dir.join("filled.raw"), dir.join("filled.qcow2"));
    let mut bytes = vec![0x5a; 1 << 20];
    bytes.resize(10 << 20, 0);
    fs::write(&raw, bytes).unwrap();
    let convert = Convert::new(Image::raw(&raw), Image::qcow2(&path));
    qemu_img.convert(&convert, |_| ()).await.unwrap();
    path
}

fn be64(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

/// Where the first L2 table of a qcow2 image is: its L1 table is named at byte 40 of the header.
fn first_l2_table(bytes: &[u8]) -> usize {
    be64(bytes, be64(bytes, 40)) & 0x00ff_ffff_ffff_fe00
}

#[tokio::test]
async fn the_version_is_supported() {
    let oldest = Version {
        major: 7,
        minor: 2,
        micro: 0,
    };
    assert!(qemu_img().await.version().await.unwrap() >= oldest);
}

#[tokio::test]
async fn a_missing_program_names_the_package() {
    let error = QemuImg::at("/nonexistent/qemu-img")
        .version()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotInstalled { .. }), "{error:?}");
    assert!(
        error.to_string().contains("qemu-utils (Debian, Ubuntu)"),
        "{error}"
    );
    let error = QemuImg::at("/etc/passwd").version().await.unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
}

#[tokio::test]
async fn every_operation_takes_every_file_name() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let names: [&[u8]; 12] = [
        b"-b",
        b"--help",
        b"two words",
        b"a,b,,c",
        b"nbd:unix:/x",
        b"json:{}",
        b"100%s",
        b"'single' \"double\" `tick` $HOME \\",
        b"line\nfeed",
        b"not utf-8 \xff\xfe",
        b"fat:rw:x=y,driver=raw",
        "\u{e9}\u{1f433}".as_bytes(),
    ];
    for name in names {
        let name = OsString::from_vec(name.to_vec());
        let path = dir.path().join(&name);
        // Names like `nbd:unix:/x` contain a directory; that is a test of the directory too.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let sibling = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (overlay, copy) = (sibling(".overlay"), sibling(".copy"));
        let (disk, overlay, copy) = (
            Image::qcow2(&path),
            Image::qcow2(&overlay),
            Image::raw(&copy),
        );

        qemu_img.create(&Create::empty(disk, MIB)).await.unwrap();
        assert!(path.is_file(), "{name:?}");
        qemu_img
            .resize(disk, 2 * MIB, Resize::GrowOnly)
            .await
            .unwrap();
        qemu_img.create_snapshot(disk, "-d").await.unwrap();
        let snapshots = qemu_img.snapshots(disk, Locking::Respect).await.unwrap();
        assert_eq!(snapshots[0].name, "-d", "{name:?}");
        qemu_img.apply_snapshot(disk, "-d").await.unwrap();
        qemu_img.delete_snapshot(disk, "-d").await.unwrap();
        let report = qemu_img.check(disk, Repair::Nothing).await.unwrap();
        assert_eq!(report.verdict, Verdict::Clean, "{name:?}");

        qemu_img
            .create(&Create::overlay(overlay, disk))
            .await
            .unwrap();
        let info = qemu_img.info(overlay, Locking::Respect).await.unwrap();
        assert_eq!(info.virtual_size, 2 * MIB, "{name:?}");
        let backing = info.backing.unwrap();
        assert_eq!(backing.name, path.to_string_lossy());
        assert_eq!(backing.format.as_deref(), Some("qcow2"));
        // Reading through the overlay proves that the recorded name is found again.
        qemu_img
            .convert(&Convert::new(overlay, copy), |_| ())
            .await
            .unwrap();
        assert_eq!(
            fs::metadata(copy.path()).unwrap().len(),
            2 * MIB,
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn what_is_created_is_described() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let disk = Image::qcow2(&path);
    let create = Create::empty(disk, 1000)
        .cluster_size(1 << 20)
        .preallocation(Preallocation::Metadata);
    qemu_img.create(&create).await.unwrap();
    let info = qemu_img.info(disk, Locking::Respect).await.unwrap();
    assert_eq!(info.format, Format::Qcow2);
    assert_eq!(info.virtual_size, 1024);
    assert_eq!(info.cluster_size, Some(MIB));
    assert_eq!(info.backing, None);
    assert!(!info.dirty);
    let FormatSpecific::Qcow2(qcow2) = info.specific else {
        panic!("{info:?}");
    };
    assert_eq!(qcow2.compat, "1.1");
    assert_eq!(qcow2.data_file, None);
    assert!(!qcow2.corrupt);

    let data = dir.path().join("data.raw");
    fs::write(&data, []).unwrap();
    let raw = qemu_img
        .info(Image::raw(&data), Locking::Respect)
        .await
        .unwrap();
    assert_eq!(
        (raw.format, raw.specific),
        (Format::Raw, FormatSpecific::Other)
    );
}

#[tokio::test]
async fn a_shrink_must_be_asked_for() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&qemu_img, dir.path()).await;
    let disk = Image::qcow2(&path);
    let error = qemu_img
        .resize(disk, MIB, Resize::GrowOnly)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::WouldShrink, "{error}");
    qemu_img
        .resize(disk, MIB, Resize::AllowShrink)
        .await
        .unwrap();
    let info = qemu_img.info(disk, Locking::Respect).await.unwrap();
    assert_eq!(info.virtual_size, MIB);
}

#[tokio::test]
async fn a_conversion_tells_its_progress() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&qemu_img, dir.path()).await;
    for compression in [Compression::None, Compression::Zlib, Compression::Zstd] {
        let copy = dir.path().join("copy.qcow2");
        let convert =
            Convert::new(Image::qcow2(&path), Image::qcow2(&copy)).compression(compression);
        let mut seen = Vec::new();
        qemu_img
            .convert(&convert, |percent| seen.push(percent))
            .await
            .unwrap();
        assert_eq!(seen.last(), Some(&Percent::DONE), "{compression:?}");
        assert!(seen.is_sorted(), "{seen:?}");
        let size = fs::metadata(&copy).unwrap().len();
        assert_eq!(
            size > MIB,
            compression == Compression::None,
            "{compression:?}: {size}"
        );

        let back = dir.path().join("back.raw");
        let convert = Convert::new(Image::qcow2(&copy), Image::raw(&back));
        qemu_img.convert(&convert, |_| ()).await.unwrap();
        let original = fs::read(dir.path().join("filled.raw")).unwrap();
        assert!(fs::read(&back).unwrap() == original, "{compression:?}");
    }
}

#[tokio::test]
async fn a_check_finds_and_repairs() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&qemu_img, dir.path()).await;
    let disk = Image::qcow2(&path);
    let clean = fs::read(&path).unwrap();
    let l2_table = first_l2_table(&clean);

    // An L2 entry is forgotten: its cluster leaks.
    let mut leaking = clean.clone();
    leaking[l2_table..l2_table + 8].fill(0);
    fs::write(&path, &leaking).unwrap();
    let report = qemu_img.check(disk, Repair::Nothing).await.unwrap();
    assert_eq!((report.verdict, report.leaks), (Verdict::Leaks, 1));
    assert!(report.diagnostics.contains("Leaked cluster"), "{report:?}");
    let report = qemu_img.check(disk, Repair::Leaks).await.unwrap();
    assert_eq!((report.verdict, report.leaks_fixed), (Verdict::Clean, 1));

    // Two L2 entries name one cluster: the image is damaged.
    let mut damaged = clean;
    damaged.copy_within(l2_table..l2_table + 8, l2_table + 8);
    fs::write(&path, &damaged).unwrap();
    let report = qemu_img.check(disk, Repair::Leaks).await.unwrap();
    assert_eq!(report.verdict, Verdict::Corrupt);
    assert!(report.corruptions > 0, "{report:?}");
    let report = qemu_img.check(disk, Repair::Everything).await.unwrap();
    assert_eq!(report.verdict, Verdict::Clean);
    assert!(report.corruptions_fixed > 0, "{report:?}");

    let error = qemu_img
        .check(Image::raw(&path), Repair::Nothing)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::CheckUnsupported {
                format: Format::Raw,
                ..
            }
        ),
        "{error:?}"
    );
    let absent = dir.path().join("absent");
    let error = qemu_img
        .check(Image::qcow2(&absent), Repair::Nothing)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound, "{error}");
}

#[tokio::test]
async fn an_image_in_use_can_be_looked_at_by_force() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&qemu_img, dir.path()).await;
    let disk = Image::qcow2(&path);

    // qemu-io comes with qemu-img; it has the image open once it asks for a command.
    let mut holder = Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut prompt = [0; 7];
    holder
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut prompt)
        .unwrap();
    assert_eq!(&prompt, b"qemu-io");

    let error = qemu_img.info(disk, Locking::Respect).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InUse, "{error}");
    let error = qemu_img
        .resize(disk, 20 * MIB, Resize::GrowOnly)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::InUse, "{error}");
    let info = qemu_img.info(disk, Locking::ForceShare).await.unwrap();
    assert_eq!(info.virtual_size, 10 * MIB);

    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
}

#[tokio::test]
async fn failures_are_told_apart() {
    let qemu_img = qemu_img().await;
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&qemu_img, dir.path()).await;

    let raw = dir.path().join("filled.raw");
    let error = qemu_img
        .info(Image::qcow2(&raw), Locking::Respect)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::WrongFormat, "{error}");
    for outcome in [
        qemu_img.apply_snapshot(Image::qcow2(&path), "nope").await,
        qemu_img.delete_snapshot(Image::qcow2(&path), "nope").await,
    ] {
        assert_eq!(outcome.unwrap_err().reason(), Reason::NoSuchSnapshot);
    }
    let error = qemu_img
        .create(&Create::empty(Image::qcow2("/dev/full"), MIB))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::NoSpace, "{error}");
    let Error::Failed {
        operation,
        image,
        status,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(operation, Operation::Create);
    assert_eq!(image, Path::new("/dev/full"));
    assert_eq!(status.code(), Some(1));
    let error = qemu_img
        .info(Image::raw(""), Locking::Respect)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Path { .. }), "{error:?}");
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_does_not_block() {
    let call = stand_in();
    let image = Image::raw("flood");
    let outcome = tokio::time::timeout(DEADLINE, call.info(image, Locking::Respect)).await;
    let Err(Error::Failed { stderr, .. }) = outcome.expect("it hangs") else {
        panic!("it succeeded");
    };
    assert_eq!(stderr.len(), 64 << 10);
}

#[tokio::test]
async fn dropping_the_future_kills_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("held");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let held = fifo.clone();
    let call =
        tokio::spawn(async move { stand_in().info(Image::raw(&held), Locking::Respect).await });
    let open = tokio::task::spawn_blocking(move || {
        let mut reader = BufReader::new(fs::File::open(fifo).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        reader
    });
    let mut reader = tokio::time::timeout(DEADLINE, open).await.unwrap().unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The end of file comes when the last writer is dead.
    let end = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    let end = tokio::time::timeout(DEADLINE, end)
        .await
        .expect("it lives")
        .unwrap();
    assert_eq!(end.unwrap(), 0);
}
