//! Each library crate, as its package would be published, used by a small program that lives outside
//! of the workspace and has nothing else of ours.
//!
//! The packages come from `cargo package`, so a file or feature that only the workspace provides is
//! missed here first. Everything is built offline: the workspace's lock names every dependency, and
//! building the workspace has put them into cargo's cache.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::manifests;

/// A program that uses one crate: dependencies beside the crate itself, and what it must print.
struct Program {
    package: &'static str,
    features: &'static [&'static str],
    dependencies: &'static str,
    source: &'static str,
    prints: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        package: "colima-core",
        features: &[],
        dependencies: "",
        source: include_str!("programs/colima_core.rs"),
        prints: "colima-work gets 4294967296 bytes\n",
    },
    Program {
        package: "qemu-img-wrapper",
        features: &[],
        dependencies: TOKIO,
        source: include_str!("programs/qemu_img_wrapper.rs"),
        prints: "the disk has 3145728 bytes\n",
    },
    Program {
        package: "colima-vm",
        features: &[],
        dependencies: CORE,
        source: include_str!("programs/colima_vm.rs"),
        prints: "invalid machine: memory must be whole MiB and at least 16MiB\n",
    },
    Program {
        package: "colima-net",
        features: &["relay"],
        dependencies: CORE_AND_TOKIO,
        source: include_str!("programs/colima_net.rs"),
        prints: "through the relay\n",
    },
    Program {
        package: "colima-mount",
        features: &[],
        dependencies: "",
        source: include_str!("programs/colima_mount.rs"),
        prints: "linked\n",
    },
];

const CORE: &str = "colima-core = \"0.1\"\n";
const TOKIO: &str = "tokio = { version = \"1\", features = [\"rt\", \"macros\"] }\n";
const CORE_AND_TOKIO: &str = "colima-core = \"0.1\"\ntokio = { version = \"1\", \
    features = [\"rt\", \"macros\", \"net\", \"io-util\", \"sync\"] }\n";

#[test]
fn each_library_crate_works_outside_of_the_workspace() {
    let directory = tempfile::tempdir().unwrap();
    // Kept between runs, and shared by the programs: only the first run compiles dependencies.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crates-alone");
    let packages = unpack_packages(directory.path(), &target);
    for program in PROGRAMS {
        let project = directory.path().join("user-of").join(program.package);
        write_project(&project, program, &packages).unwrap();
        let printed = manifests::stdout_of(
            manifests::cargo()
                .current_dir(&project)
                .args(["run", "--offline", "--quiet", "--target-dir"])
                .arg(&target),
        );
        assert_eq!(
            printed, program.prints,
            "the program that uses {}",
            program.package
        );
    }
}

/// Packages every library and unpacks it; gives name and directory of each.
fn unpack_packages(directory: &Path, target: &Path) -> Vec<(&'static str, PathBuf)> {
    PROGRAMS
        .iter()
        .map(|Program { package, .. }| {
            manifests::stdout_of(
                manifests::cargo()
                    .current_dir(manifests::root())
                    .args(["package", "--offline", "--allow-dirty", "--no-verify"])
                    // Its siblings are in no registry, so there is no lock of a package alone.
                    .args(["--exclude-lockfile", "--package", package, "--target-dir"])
                    .arg(target),
            );
            let stem = format!("{package}-{}", env!("CARGO_PKG_VERSION"));
            let archive = target.join("package").join(format!("{stem}.crate"));
            manifests::stdout_of(
                Command::new("tar")
                    .arg("-xzf")
                    .arg(archive)
                    .arg("-C")
                    .arg(directory),
            );
            (*package, directory.join(stem))
        })
        .collect()
}

/// A project with one program. Siblings that the crate itself needs are found by `[patch]`, which is
/// what the registry would give.
fn write_project(
    project: &Path,
    program: &Program,
    packages: &[(&str, PathBuf)],
) -> io::Result<()> {
    let Program {
        package,
        features,
        dependencies,
        source,
        ..
    } = program;
    let mut manifest = format!(
        "[workspace]\n\n[package]\nname = \"user-of-{package}\"\nedition = \"2024\"\n\n\
         [dependencies]\n{package} = {{ version = \"{}\", features = {features:?} }}\n{dependencies}\n\
         [patch.crates-io]\n",
        env!("CARGO_PKG_VERSION"),
    );
    for (name, path) in packages {
        writeln!(manifest, "{name} = {{ path = {path:?} }}").expect("a String takes everything");
    }
    fs::create_dir_all(project.join("src"))?;
    fs::write(project.join("Cargo.toml"), manifest)?;
    fs::write(project.join("src/main.rs"), source)?;
    fs::copy(
        manifests::root().join("Cargo.lock"),
        project.join("Cargo.lock"),
    )?;
    Ok(())
}
