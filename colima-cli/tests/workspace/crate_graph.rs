//! Dependencies run one way: `core <- {vm, net, mount} <- cli`.

use super::manifests::{self, Dependency, Package, Workspace};

/// Which members each member may name. A new member has to be put here, which is the moment to
/// think about its place.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("colima-core", &[]),
    ("qemu-img-wrapper", &[]),
    ("colima-vm", &["colima-core", "qemu-img-wrapper"]),
    ("colima-net", &["colima-core"]),
    ("colima-mount", &["colima-core"]),
    (
        "colima-guest",
        &["colima-core", "colima-net", "colima-mount"],
    ),
    (
        "colima",
        &[
            "colima-core",
            "colima-vm",
            "colima-net",
            "colima-mount",
            "qemu-img-wrapper",
        ],
    ),
    (
        "colima-examples",
        &[
            "colima-core",
            "colima-vm",
            "colima-net",
            "colima-mount",
            "qemu-img-wrapper",
        ],
    ),
    (
        "colima-benches",
        &[
            "colima-core",
            "colima-vm",
            "colima-net",
            "colima-mount",
            "qemu-img-wrapper",
            "colima",
        ],
    ),
];

/// The crates that other projects use alone.
const LIBRARIES: &[&str] = &[
    "colima-core",
    "qemu-img-wrapper",
    "colima-vm",
    "colima-net",
    "colima-mount",
];

/// Features of colima-core that only the program itself needs.
const HEAVY_FEATURES: &[&str] = &["config", "runtime"];

/// Decisions of a program that a library must not make for its user.
const NOT_IN_A_LIBRARY: &[&str] = &[
    "anyhow",
    "clap",
    "env_logger",
    "signal-hook",
    "tracing-subscriber",
];

fn violations(workspace: &Workspace) -> Vec<String> {
    workspace.packages.iter().flat_map(violations_of).collect()
}

fn violations_of(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, may_name)) = MAY_NAME.iter().find(|(member, _)| *member == name) else {
        return vec![format!("{name} has no place in the crate graph")];
    };
    let library = LIBRARIES.contains(&name);
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        let Dependency {
            name: other,
            kind,
            features,
            path,
        } = dependency;
        if path.is_some() && other != name && !may_name.contains(&other.as_str()) {
            found.push(format!("{name} names {other}"));
        }
        if library && kind.is_none() && NOT_IN_A_LIBRARY.contains(&other.as_str()) {
            found.push(format!("{name} is a library and depends on {other}"));
        }
        if library && other == "colima-core" {
            for feature in features
                .iter()
                .filter(|f| HEAVY_FEATURES.contains(&f.as_str()))
            {
                found.push(format!("{name} uses colima-core with feature {feature}"));
            }
        }
    }
    found
}

#[test]
fn dependencies_run_one_way() {
    let workspace = manifests::workspace();
    assert_eq!(violations(&workspace), [""; 0]);
    // The table has no line for a member that is gone.
    for (member, _) in MAY_NAME {
        assert!(
            workspace
                .packages
                .iter()
                .any(|package| package.name == *member),
            "{member} is in the table but not in the workspace"
        );
    }
}

#[test]
fn wrong_edges_are_found() {
    let workspace: Workspace = serde_json::from_value(serde_json::json!({ "packages": [
        package("colima-net", &[("colima-vm", &[])]),
        package("qemu-img-wrapper", &[("colima-core", &[])]),
        package("colima-mount", &[("colima-core", &["config"])]),
        package("colima-vm", &[("colima-core", &[])]),
        package("colima-new", &[]),
    ] }))
    .unwrap();
    assert_eq!(
        violations(&workspace),
        [
            "colima-net names colima-vm",
            "qemu-img-wrapper names colima-core",
            "colima-mount uses colima-core with feature config",
            "colima-new has no place in the crate graph",
        ]
    );
}

fn package(name: &str, dependencies: &[(&str, &[&str])]) -> serde_json::Value {
    let dependencies: Vec<_> = dependencies
        .iter()
        .map(|(name, features)| {
            serde_json::json!({
                "name": name, "kind": null, "features": features, "path": "/somewhere",
            })
        })
        .collect();
    serde_json::json!({
        "name": name, "rust_version": null, "manifest_path": "/somewhere/Cargo.toml",
        "dependencies": dependencies, "targets": [],
    })
}

/// The manifests could agree and the features still leak in through a default.
#[test]
fn libraries_do_not_pull_in_what_heavy_features_bring() {
    for library in LIBRARIES {
        let tree = manifests::stdout_of(
            manifests::cargo()
                .current_dir(manifests::root())
                .args(["tree", "--offline", "--edges=normal", "--prefix=none"])
                .args(["--package", library]),
        );
        assert!(tree.starts_with(library), "no tree of {library}: {tree}");
        assert!(
            !tree.contains("serde-saphyr"),
            "{library} reads YAML:\n{tree}"
        );
    }
}

#[test]
fn every_member_states_the_same_oldest_rust() {
    for package in manifests::workspace().packages {
        assert_eq!(
            package.rust_version.as_deref(),
            Some("1.89"),
            "{}",
            package.name
        );
    }
}
