//! Accelerators are proven with a kernel of a few bytes.

use std::{fs, time::Duration};

use colima_core::Arch;
use colima_vm::machine::accelerator::{
    Accelerator, DEFAULT_LIMIT, Outcome, Verdict, choose, prove,
};

use crate::guest_code::{PATIENCE, multiboot_kernel, qemu_program};

#[tokio::test]
async fn a_kernel_that_speaks_and_one_that_hangs() {
    let home = tempfile::tempdir().unwrap();
    let kernel = home.path().join("kernel");
    let trial = async |limit| {
        let program = qemu_program();
        prove(
            Accelerator::Tcg,
            &program,
            Arch::X86_64,
            &kernel,
            home.path(),
            limit,
        )
        .await
        .unwrap()
        .outcome
    };
    fs::write(&kernel, multiboot_kernel("Linux version 0\n")).unwrap();
    assert_eq!(trial(PATIENCE).await, Outcome::Works);
    fs::write(&kernel, multiboot_kernel("")).unwrap();
    let limit = Duration::from_secs(2);
    assert_eq!(trial(limit).await, Outcome::Hangs { limit_ms: 2000 });
    fs::remove_file(&kernel).unwrap();
    assert!(matches!(trial(PATIENCE).await, Outcome::Fails { .. }));
    assert!(!home.path().join("prove-tcg").exists());
}

/// Which one is chosen depends on the host; that it was tried, works, and is remembered does not.
#[tokio::test]
async fn the_choice_is_remembered() {
    let home = tempfile::tempdir().unwrap();
    let (kernel, memory) = (home.path().join("kernel"), home.path().join("verdict.json"));
    fs::write(&kernel, multiboot_kernel("Linux version 0\n")).unwrap();
    let decide = async || {
        let program = qemu_program();
        choose(
            &program,
            Arch::X86_64,
            &kernel,
            home.path(),
            &memory,
            DEFAULT_LIMIT,
        )
        .await
        .unwrap()
    };
    let verdict = decide().await;
    println!(
        "chosen here: {} because {}",
        verdict.accelerator,
        verdict.reason()
    );
    let last = verdict.trials.last().unwrap();
    assert_eq!(last.accelerator, verdict.accelerator);
    assert!(matches!(last.outcome, Outcome::Works | Outcome::Untried));
    // Without a kernel a new trial would fail: this one is not tried again.
    fs::remove_file(&kernel).unwrap();
    assert_eq!(decide().await, verdict);

    let stored: Verdict = serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap();
    assert!(stored.holds(Arch::X86_64, &stored.host_boot_id, stored.qemu));
    assert!(!stored.holds(Arch::X86_64, "another boot", stored.qemu));
    assert!(!stored.holds(Arch::X86_64, &stored.host_boot_id, (99, 0, 0).into()));
    assert!(!stored.holds(Arch::Aarch64, &stored.host_boot_id, stored.qemu));
}
