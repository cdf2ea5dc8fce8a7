//! The manifests as cargo itself reads them: a TOML parser would have to learn workspace inheritance.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

/// The part of `cargo metadata` that these tests look at.
#[derive(Debug, Deserialize)]
pub(super) struct Workspace {
    pub(super) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) rust_version: Option<String>,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `None` is an ordinary dependency; else `dev` or `build`.
    pub(super) kind: Option<String>,
    pub(super) features: Vec<String>,
    /// Set for what lies in this workspace.
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) kind: Vec<String>,
    pub(super) src_path: PathBuf,
}

impl Package {
    pub(super) fn directory(&self) -> &Path {
        self.manifest_path
            .parent()
            .expect("a manifest has a directory")
    }
}

/// The root of the checkout.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
}

/// The cargo that runs this test: the one that the caller chose, whatever is in PATH.
pub(super) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The outer call's flags are for the outer call.
    command
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Runs to the end and gives standard output; anything but success fails the test with both outputs.
pub(super) fn stdout_of(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// Every member of this workspace.
pub(super) fn workspace() -> Workspace {
    let json = stdout_of(cargo().current_dir(root()).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]));
    serde_json::from_str(&json).expect("cargo metadata keeps its format")
}
