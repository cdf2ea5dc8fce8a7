//! How many packages come along with one of ours: each is somebody else's code in the user's process.

use std::collections::BTreeSet;

use super::manifests::{cargo, root, stdout_of};

/// What is built, with which features, and the most packages that it may consist of, itself included.
const BUDGETS: &[(&str, &[&str], usize)] = &[
    ("colima-guest", &[], 60),
    (
        "colima-net",
        &["--no-default-features", "--features=relay"],
        25,
    ),
    // The server alone: who mounts needs the feature `fuse`.
    ("colima-mount", &["--no-default-features"], 40),
    ("colima", &[], 160),
];

/// The packages of a build for this host, without those that only tests need or that only build.
fn packages(package: &str, features: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "--offline", "--edges=normal"];
    let form = ["--prefix=none", "--format={p}", "--package", package];
    let text = stdout_of(
        cargo()
            .current_dir(root())
            .args(tree)
            .args(form)
            .args(features),
    );
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)"));
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_build_keeps_to_its_budget() {
    for (package, features, most) in BUDGETS {
        let packages = packages(package, features);
        // Itself and one of those that it cannot do without: the list is not empty for another reason.
        for name in [package, "tokio"] {
            let named = packages
                .iter()
                .any(|line| line.starts_with(&format!("{name} v")));
            assert!(named, "{package} consists of {packages:?}");
        }
        assert!(
            packages.len() <= *most,
            "{package} {features:?} consists of {} packages, at most {most}:\n{}",
            packages.len(),
            packages.into_iter().collect::<Vec<_>>().join("\n")
        );
    }
}
