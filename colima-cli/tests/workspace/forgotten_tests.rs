//! Every Rust file below a `tests` directory is compiled into exactly one test binary, or is the text of
//! a program that a test compiles.
//!
//! A file that no `mod` line names is never compiled and its tests never fail.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::manifests::{self, Package};

#[test]
fn every_test_file_is_reached_once() {
    let mut wrong = Vec::new();
    let mut files = 0;
    for package in manifests::workspace().packages {
        let tests = package.directory().join("tests");
        let reached = reached_from_targets(&package);
        for file in rust_files(&tests) {
            files += 1;
            let name = file
                .strip_prefix(manifests::root())
                .unwrap_or(&file)
                .display()
                .to_string();
            match reached.get(&file) {
                None => wrong.push(format!("{name} is in no test binary")),
                Some(0 | 1) => {}
                Some(n) => wrong.push(format!("{name} is compiled {n} times")),
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(
        files >= 5,
        "only {files} files seen: this test looks in the wrong place"
    );
}

/// How often each file is compiled into the test binaries of a package: 0 when it is only included.
fn reached_from_targets(package: &Package) -> BTreeMap<PathBuf, usize> {
    let mut reached = BTreeMap::new();
    for target in &package.targets {
        if target.kind.iter().any(|kind| kind == "test") {
            let home = target.src_path.parent().expect("a file has a directory");
            follow(&target.src_path, home, &mut reached);
        }
    }
    reached
}

/// Counts `file` and everything its `mod` lines lead to; `home` is where its modules live. What does
/// not exist is left to the compiler, which knows a `mod` line from text that looks like one.
fn follow(file: &Path, home: &Path, reached: &mut BTreeMap<PathBuf, usize>) {
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    *reached.entry(file.to_owned()).or_default() += 1;
    let beside = file.parent().expect("a file has a directory");
    for reference in references(&text) {
        match reference {
            Reference::Module(path) => {
                let module = home.join(path);
                follow(&module.with_extension("rs"), &module, reached);
                follow(&module.join("mod.rs"), &module, reached);
            }
            Reference::ModuleAt(path) => {
                let module = beside.join(path);
                let home = module.parent().expect("a file has a directory");
                follow(&module, home, reached);
            }
            // Text of a program that a test compiles itself, or of a file that is compiled as well.
            Reference::Included(path) => {
                reached.entry(beside.join(path)).or_insert(0);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reference {
    /// `mod a;`, with the inline modules around it as directories.
    Module(PathBuf),
    /// `#[path = "a.rs"] mod b;`
    ModuleAt(PathBuf),
    /// `include_str!("a.rs")`
    Included(PathBuf),
}

/// The references of a file that rustfmt has formatted: one item per line, indented by its depth.
fn references(text: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut inline: Vec<(usize, &str)> = Vec::new();
    let mut path_attribute = None;
    for line in text.lines() {
        let item = line.trim_start();
        let depth = line.len() - item.len();
        if let Some((_, rest)) = item.split_once("include_str!(\"")
            && let Some((path, _)) = rest.split_once("\")")
            && path.ends_with(".rs")
        {
            found.push(Reference::Included(path.into()));
        }
        if let Some(path) = item
            .strip_prefix("#[path = \"")
            .and_then(|p| p.strip_suffix("\"]"))
        {
            path_attribute = Some(PathBuf::from(path));
            continue;
        }
        if item == "}" && inline.last().is_some_and(|(at, _)| *at == depth) {
            inline.pop();
            continue;
        }
        let declared = item.rsplit_once("mod ").filter(|(before, _)| {
            before.is_empty()
                || *before == "pub "
                || (before.starts_with("pub(") && before.ends_with(") "))
        });
        let Some((_, declared)) = declared else {
            continue;
        };
        if let Some(name) = declared.strip_suffix(" {") {
            inline.push((depth, name));
        } else if let Some(name) = declared.strip_suffix(';') {
            found.push(match path_attribute.take() {
                Some(path) => Reference::ModuleAt(path),
                None => {
                    let around = inline.iter().map(|(_, name)| *name).collect::<PathBuf>();
                    Reference::Module(around.join(name))
                }
            });
        }
    }
    found
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("the directory stays readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn references_of_all_kinds_are_seen() {
    let text = r#"
mod plain;
pub(crate) mod visible;
// mod commented_out;
mod outer {
    mod inner;
    mod deeper {
        pub mod deepest;
    }
    mod after;
}
#[path = "elsewhere/file.rs"]
mod renamed;
mod last;
const PROGRAM: &str = include_str!("programs/a.rs");
const TEXT: &str = include_str!("notes.txt");
"#;
    let module = |path: &str| Reference::Module(path.into());
    assert_eq!(
        references(text),
        [
            module("plain"),
            module("visible"),
            module("outer/inner"),
            module("outer/deeper/deepest"),
            module("outer/after"),
            Reference::ModuleAt("elsewhere/file.rs".into()),
            module("last"),
            Reference::Included("programs/a.rs".into()),
        ]
    );
}

#[test]
fn a_file_that_nobody_names_is_not_reached() {
    let directory = tempfile::tempdir().unwrap();
    let tests = directory.path().join("tests");
    fs::create_dir_all(tests.join("runner")).unwrap();
    let runner = tests.join("runner.rs");
    fs::write(&runner, "mod runner {\n    mod named;\n}\n").unwrap();
    fs::write(tests.join("runner/named.rs"), "").unwrap();
    fs::write(tests.join("runner/forgotten.rs"), "").unwrap();

    let mut reached = BTreeMap::new();
    follow(&runner, &tests, &mut reached);

    let missed: Vec<_> = rust_files(&tests)
        .into_iter()
        .filter(|f| !reached.contains_key(f))
        .collect();
    assert_eq!(missed, [tests.join("runner/forgotten.rs")]);
}
