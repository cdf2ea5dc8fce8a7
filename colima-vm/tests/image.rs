//! Images as their users see them: stores that notice damage, and real builds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    future::{self, pending},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use colima_core::{Arch, Bytes};
use colima_vm::image::{
    BuildEvent, BuildStep, Builder, Digest, Error, FileRecord, ImageId, ImageStore, Manifest,
    PackageLock, Sources, image_id,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

const ARCH: Arch = Arch::X86_64;

fn qemu_img(args: &[&str]) {
    let status = Command::new("qemu-img").args(args).status();
    assert!(status.expect("qemu-img runs").success());
}

/// Puts an image into a store the way an import would: file by file.
fn put(store: &ImageStore, id: &ImageId) -> PathBuf {
    let directory = store.path().join(ARCH.as_str()).join(id.as_str());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("kernel"), [0x7f; 5000]).unwrap();
    fs::write(directory.join("initrd.img"), "070701").unwrap();
    let disk = directory.join("root.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", disk.to_str().unwrap(), "1M"]);
    write_manifest(&directory, id);
    directory
}

fn write_manifest(directory: &Path, id: &ImageId) {
    let record = |name: &str| {
        let (sha256, size) = Digest::of_file(&directory.join(name)).unwrap();
        FileRecord {
            name: name.to_owned(),
            size: Bytes::new(size),
            sha256,
        }
    };
    let manifest = Manifest {
        version: Manifest::VERSION,
        id: id.clone(),
        arch: ARCH,
        agent_protocol: 1,
        kernel_release: "6.12.1-cloud-amd64".to_owned(),
        package_lock: Digest::of("lock"),
        built: 1_760_000_000,
        kernel: record("kernel"),
        initrd: record("initrd.img"),
        root_disk: record("root.qcow2"),
    };
    fs::write(directory.join("manifest.json"), manifest.to_text()).unwrap();
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::new(directory.path().join("images"));
    (directory, store)
}

#[test]
fn an_empty_store_has_nothing() {
    let (_directory, store) = store();
    let id: ImageId = "trixie-1".parse().unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(matches!(store.get(ARCH, &id), Err(Error::NotFound { .. })));
    assert!(matches!(
        store.remove(ARCH, &id),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn images_are_listed_verified_and_removed() {
    let (_directory, store) = store();
    let (one, two): (ImageId, ImageId) = ("a-1".parse().unwrap(), "b-2".parse().unwrap());
    put(&store, &two);
    let first = put(&store, &one);
    fs::create_dir(store.path().join("x86_64/.new-c-3")).unwrap();

    let ids = |store: &ImageStore| -> Vec<String> {
        let images = store.list().unwrap().into_iter();
        images
            .map(|image| image.unwrap().manifest.id.to_string())
            .collect()
    };
    assert_eq!(ids(&store), ["a-1", "b-2"]);
    let image = store.verify(ARCH, &one).unwrap();
    assert_eq!(image.root_disk(), first.join("root.qcow2"));
    assert!(matches!(
        store.get(Arch::Aarch64, &one),
        Err(Error::NotFound { .. })
    ));
    store.remove(ARCH, &one).unwrap();
    assert!(!first.exists());
    assert_eq!(ids(&store), ["b-2"]);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (_directory, store) = store();
    let id: ImageId = "a-1".parse().unwrap();
    let directory = put(&store, &id);
    // Small numbers that repeat on every run; a linear congruence is random enough to pick bits.
    let mut random = 12_345_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % below
    };
    for name in ["kernel", "initrd.img", "root.qcow2"] {
        let path = directory.join(name);
        let good = fs::read(&path).unwrap();
        for _ in 0..100 {
            let mut bad = good.clone();
            let (byte, bit) = (next(bad.len()), next(8));
            bad[byte] ^= 1 << bit;
            fs::write(&path, bad).unwrap();
            let error = store.verify(ARCH, &id).unwrap_err();
            assert!(
                matches!(error, Error::Tampered { .. }),
                "{name} {byte}.{bit}"
            );
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(
            store.verify(ARCH, &id),
            Err(Error::Tampered { .. })
        ));
        fs::write(&path, &good).unwrap();
        store.verify(ARCH, &id).unwrap();
    }
}

#[test]
fn links_and_strangers_are_refused() {
    let (_directory, store) = store();
    let id: ImageId = "a-1".parse().unwrap();
    let directory = put(&store, &id);
    let kernel = directory.join("kernel");
    fs::rename(&kernel, directory.join("real")).unwrap();
    std::os::unix::fs::symlink("real", &kernel).unwrap();
    assert!(matches!(
        store.verify(ARCH, &id),
        Err(Error::Tampered { .. })
    ));

    let moved = store.path().join("x86_64/b-2");
    fs::rename(&directory, &moved).unwrap();
    let error = store.get(ARCH, &"b-2".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Misplaced { .. }), "{error}");

    fs::write(moved.join("manifest.json"), "{}").unwrap();
    let images = store.list().unwrap();
    assert!(matches!(images[..], [Err(Error::Manifest { .. })]));
}

#[test]
fn a_disk_with_a_backing_file_is_refused_even_when_the_manifest_lists_it() {
    let (_directory, store) = store();
    let id: ImageId = "a-1".parse().unwrap();
    let directory = put(&store, &id);
    let disk = directory.join("root.qcow2");
    fs::remove_file(&disk).unwrap();
    let backing = "/etc/passwd";
    qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        backing,
        disk.to_str().unwrap(),
        "1M",
    ]);
    write_manifest(&directory, &id);
    let error = store.verify(ARCH, &id).unwrap_err();
    assert!(matches!(error, Error::Disk { .. }), "{error}");
}

fn builder(cache: &Path) -> Builder {
    Builder {
        arch: ARCH,
        suite: "trixie".to_owned(),
        sources: Sources::Default,
        cache: cache.to_owned(),
        scratch: "/var/tmp".into(),
        env: Vec::new(),
    }
}

fn steps(events: &mut UnboundedReceiver<BuildEvent>) -> Vec<BuildStep> {
    let mut steps: Vec<BuildStep> = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "nobody sends any more")]
    while let Ok(event) = events.try_recv() {
        steps.push(event.step);
    }
    steps.dedup();
    steps
}

#[tokio::test]
async fn missing_programs_are_named_with_their_package() {
    let (directory, _) = store();
    let mut builder = builder(&directory.path().join("cache"));
    builder.env = vec![("PATH".into(), directory.path().into())];
    let (events, _) = mpsc::unbounded_channel();
    let error = builder.resolve(1, &events, pending()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "mmdebstrap is not installed: install the package mmdebstrap"
    );
}

#[tokio::test]
async fn a_lock_without_a_kernel_builds_nothing() {
    let (directory, store) = store();
    let lock = PackageLock {
        arch: ARCH,
        suite: "trixie".to_owned(),
        epoch: 1,
        sources: Vec::new(),
        packages: Vec::new(),
    };
    let (events, _) = mpsc::unbounded_channel();
    let built = builder(directory.path())
        .build(&store, &lock, &events, pending())
        .await;
    assert!(matches!(
        built,
        Err(Error::IncompleteLock { what: "kernel" })
    ));
    assert!(!store.path().exists());
}

/// The whole of it: resolve, build, build again without a network, compare every byte, cancel.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs mmdebstrap, a Debian mirror and three minutes; run by `make image-test`"]
async fn two_builds_from_one_lock_are_equal() {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-build");
    fs::create_dir_all(&base).unwrap();
    let mut builder = builder(&base.join("cache"));
    let (events, mut received) = mpsc::unbounded_channel();
    let lock = builder
        .resolve(1_760_000_000, &events, pending())
        .await
        .unwrap();
    let lock: PackageLock = lock.to_string().parse().unwrap();
    let stores = ["one", "two"].map(|name| ImageStore::new(base.join(name)));
    let _ = stores
        .each_ref()
        .map(|store| fs::remove_dir_all(store.path()));

    let one = builder
        .build(&stores[0], &lock, &events, pending())
        .await
        .unwrap();
    assert_eq!(one.manifest.id, image_id(&lock));
    assert!(steps(&mut received).ends_with(&[BuildStep::Disk, BuildStep::Publish]));
    let mode = fs::metadata(one.kernel()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);

    // No archive is at hand now.
    builder.sources = Sources::Lines(vec![
        "deb http://unreachable.invalid/ trixie main".to_owned(),
    ]);
    let two = builder
        .build(&stores[1], &lock, &events, pending())
        .await
        .unwrap();
    assert_eq!(one.manifest, two.manifest);
    for (a, b) in [
        (one.kernel(), two.kernel()),
        (one.initrd(), two.initrd()),
        (one.root_disk(), two.root_disk()),
    ] {
        assert!(
            fs::read(&a).unwrap() == fs::read(&b).unwrap(),
            "{}",
            a.display()
        );
    }
    stores[1].verify(ARCH, &two.manifest.id).unwrap();
    steps(&mut received);

    // What is there is not built again.
    builder
        .build(&stores[1], &lock, &events, pending())
        .await
        .unwrap();
    assert_eq!(steps(&mut received), []);

    // Cancelled in the middle: nothing stays, and the image can be built later.
    stores[1].remove(ARCH, &two.manifest.id).unwrap();
    let installing = async {
        while let Some(event) = received.recv().await {
            if event.step == BuildStep::Install {
                return;
            }
        }
        future::pending::<()>().await;
    };
    let cancelled = builder.build(&stores[1], &lock, &events, installing).await;
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let left: Vec<_> = fs::read_dir(stores[1].path().join("x86_64"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [format!(".lock-{}", two.manifest.id).as_str()]);
}

#[test]
fn a_bundle_from_elsewhere_is_imported_whole() {
    let (_there, elsewhere) = store();
    let (_here, store) = store();
    let id: ImageId = "a-1".parse().unwrap();
    let directory = put(&elsewhere, &id);
    let image = store.import(&directory).unwrap();
    assert_eq!(image, store.verify(ARCH, &id).unwrap());
    assert!(image.directory.starts_with(store.path()));
    // Once more, and from itself.
    assert_eq!(store.import(&directory).unwrap(), image);
    assert_eq!(store.import(&image.directory).unwrap(), image);
}

#[test]
fn a_bundle_that_is_not_whole_is_not_imported() {
    let (_there, elsewhere) = store();
    let (_here, store) = store();
    let id: ImageId = "a-1".parse().unwrap();
    put(&elsewhere, &id);
    let image = elsewhere.get(ARCH, &id).unwrap();
    let change = |path: &std::path::Path, content: Option<&[u8]>| {
        fs::remove_file(path).unwrap();
        if let Some(content) = content {
            fs::write(path, content).unwrap();
        }
    };
    let kernel = fs::read(image.kernel()).unwrap();
    for content in [None, Some(&b"another"[..])] {
        change(&image.kernel(), content);
        let error = store.import(&image.directory).unwrap_err();
        assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
        assert!(store.list().unwrap().is_empty());
        fs::write(image.kernel(), &kernel).unwrap();
    }
    change(&image.directory.join("manifest.json"), None);
    assert!(matches!(
        store.import(&image.directory),
        Err(Error::File { .. })
    ));
}
