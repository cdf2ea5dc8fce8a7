//! The integration tests of the crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod child_processes;
mod client_files;
mod client_recovery;
#[cfg(target_os = "linux")]
mod confined;
mod cut_streams;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_client_deaths;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_coherence;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_events;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_files;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod fuse_server_deaths;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod mounted;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod one_slow_request;
mod other_clients;
#[cfg(target_os = "linux")]
mod ownership;
mod packets;
mod peers;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod pjdfstest;
mod protection;
mod server_confinement;
mod server_differential;
mod server_sessions;
mod sshd;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod steady_work;
mod stock_client;
#[cfg(target_os = "linux")]
mod worker;
#[cfg(target_os = "linux")]
mod worker_size;

/// A promise without a test is none.
#[test]
fn every_test_that_the_semantics_name_exists() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = std::fs::read_to_string(here.join("SEMANTICS.md")).unwrap();
    let mut source = String::new();
    let mut directories = vec![here.join("tests"), here.join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => source += &std::fs::read_to_string(path).unwrap_or_default(),
            }
        }
    }
    let named = promises.split('`').skip(1).step_by(2);
    let is_test = |name: &&str| {
        let letters = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        name.matches('_').count() > 1 && name.chars().all(letters)
    };
    let tests: Vec<_> = named.filter(is_test).collect();
    assert!(tests.len() > 30);
    for test in tests {
        assert!(source.contains(&format!("fn {test}(")), "{test}");
    }
}

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
