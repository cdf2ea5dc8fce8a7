//! One test program for the crate: every other file here is a module of it.

#[cfg(feature = "config")]
mod config_errors;
#[cfg(feature = "config")]
mod config_files;
#[cfg(feature = "config")]
mod config_limits;
#[cfg(feature = "config")]
mod template;

#[test]
fn no_test_file_is_forgotten() {
    let runner = include_str!("runner.rs");
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap() {
        let path = file.unwrap().path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            continue;
        };
        if path.extension().is_some_and(|extension| extension == "rs") && name != "runner" {
            assert!(
                runner.contains(&format!("\nmod {name};")),
                "{name} is in no test program"
            );
        }
    }
}
