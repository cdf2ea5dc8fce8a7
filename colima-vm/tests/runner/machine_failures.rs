//! What goes wrong at the start, and what is said about it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use colima_vm::machine::{
    BoxError, Error, FirstByte, Machine, Qemu, QemuVersion, Readiness, Reason,
};

use crate::guest_code::{PATIENCE, Then, launched, qemu, qemu_program, spec};

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn launch_with(program: &Path, home: &Path) -> Error {
    let spec = spec(&home.join("boot.raw"), "never\n", Then::Hang);
    let qemu = Qemu {
        program: program.to_owned(),
        ..qemu()
    };
    Machine::launch(&spec, &qemu, &home.join("machine"))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn qemu_is_missing_or_crashes() {
    let home = tempfile::tempdir().unwrap();
    let error = launch_with(Path::new("/nonexistent/qemu"), home.path()).await;
    assert!(
        matches!(&error, Error::Spawn { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error:?}"
    );
    let program = home.path().join("crashing-qemu");
    script(&program, "echo the sky is falling >&2; kill -SEGV $$");
    let error = launch_with(&program, home.path()).await;
    assert!(matches!(error, Error::Launch { .. }), "{error:?}");
    assert!(
        error.to_string().contains("QEMU: the sky is falling"),
        "{error}"
    );
    assert!(!home.path().join("machine/machine.json").exists());
}

#[tokio::test]
async fn qemu_refuses_an_option() {
    let home = tempfile::tempdir().unwrap();
    let mut spec = spec(&home.path().join("boot.raw"), "never\n", Then::Hang);
    spec.disks[0].path = home.path().join("absent.raw");
    let error = Machine::launch(&spec, &qemu(), &home.path().join("machine"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("absent.raw"), "{error}");
}

#[tokio::test]
async fn versions_are_asked_and_checked() {
    let home = tempfile::tempdir().unwrap();
    let real = QemuVersion::of(&qemu_program(), PATIENCE).await.unwrap();
    assert!(real >= QemuVersion::OLDEST);
    let program = home.path().join("old-qemu");
    script(&program, "echo QEMU emulator version 6.2.0");
    let error = QemuVersion::of(&program, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("6.2.0"), "{error}");
    script(&program, "exec sleep 600");
    let error = QemuVersion::of(&program, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnusableQemu { .. }), "{error:?}");
}

#[tokio::test]
async fn a_panic_ends_the_wait() {
    let text = "[    1.0] Kernel panic - not syncing: VFS: \x1b[31mno root\r\n";
    let launched = launched(text, Then::Hang).await;
    let never = Readiness::custom("the agent says hello", std::future::pending());
    let error = launched
        .machine
        .wait_ready(never, PATIENCE)
        .await
        .unwrap_err();
    let Error::NotReady {
        step,
        reason,
        evidence,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(step, "waiting until the agent says hello");
    assert!(
        matches!(reason, Reason::Panicked { line: Some(_) }),
        "{reason:?}"
    );
    assert!(
        evidence
            .console
            .last()
            .unwrap()
            .contains("not syncing: VFS: \\x1b[31mno root")
    );
}

#[tokio::test]
async fn the_end_ends_the_wait() {
    let launched = launched("bye\n", Then::PowerOff).await;
    let readiness = Readiness::ConsoleLine("never printed".to_owned());
    let error = launched
        .machine
        .wait_ready(readiness, PATIENCE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            Error::NotReady {
                reason: Reason::Exited(_),
                ..
            }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("the guest powered off")
            && text.contains("console: ")
            && text.contains("bye"),
        "{text}"
    );
}

#[tokio::test]
async fn a_deadline_and_a_failure_of_the_callers_own() {
    let launched = launched("quiet\n", Then::Hang).await;
    let port = Readiness::Port {
        port: 3,
        expect: FirstByte::Any,
    };
    let error = launched
        .machine
        .wait_ready(port, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            Error::NotReady {
                reason: Reason::TimedOut { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let own = Readiness::custom("it is done", async { Err(BoxError::from("it broke")) });
    let error = launched
        .machine
        .wait_ready(own, PATIENCE)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("waiting until it is done: it broke"),
        "{error}"
    );
}
