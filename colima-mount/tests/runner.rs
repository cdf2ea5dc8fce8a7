//! The integration tests of the crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod child_processes;
mod client_files;
mod client_recovery;
mod cut_streams;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_client_deaths;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_coherence;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_files;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_server_deaths;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod mounted;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod one_slow_request;
mod packets;
mod peers;
mod server_confinement;
mod server_differential;
mod server_sessions;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod steady_work;
mod stock_client;

/// A file that is in no binary would never run.
#[test]
fn no_test_file_is_forgotten() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let source = std::fs::read_to_string(here.join("runner.rs")).unwrap();
    for entry in std::fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let known = name == "runner" || source.contains(&format!("mod {name};"));
        assert!(known || path.is_dir(), "{name} is in no test binary");
    }
}
