//! The table of what is the same as in Colima, against what the program really takes.

use std::{collections::BTreeMap, fs, path::Path};

use clap::CommandFactory as _;
use colima::args::Cli;
use colima_core::config::{Config, ConfigFile, Standing, explain};

const WORDS: [&str; 4] = ["same", "differs", "not yet", "no effect"];

/// What the table says, by `colima start --cpus`, `colima stop` or `kubernetes.enabled`.
fn table() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPATIBILITY.md");
    let text = fs::read_to_string(path).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(WORDS.contains(&cells[2]), "{line}");
        // A word of its own is owed to whoever reads that something is otherwise.
        assert!(cells[2] != "differs" || !cells[3].is_empty(), "{line}");
        for name in cells[1].split(", ") {
            let name = name.trim_matches('`').to_owned();
            let before = rows.insert(name, cells[2].to_owned());
            assert_eq!(before, None, "twice: {line}");
        }
    }
    rows
}

/// The verbs of Colima with all their names.
#[test]
fn verbs() {
    let table = table();
    let command = Cli::command();
    let mut listed = 0;
    for verb in command.get_subcommands() {
        let names = std::iter::once(verb.get_name()).chain(verb.get_all_aliases());
        for name in names {
            listed += usize::from(table.contains_key(&format!("colima {name}")));
        }
    }
    let verbs = table
        .keys()
        .filter(|key| key.starts_with("colima ") && !key.contains(" -"));
    for key in verbs.clone() {
        let mut words = key.split(' ').skip(1);
        let name = words.next().unwrap();
        let found = command.find_subcommand(name);
        assert!(found.is_some(), "{key}: the program does not know it");
    }
    let verbs = verbs.filter(|key| key.split(' ').count() == 2).count();
    assert_eq!(listed, verbs);
    // Colima's own, without its hidden ones.
    for verb in [
        "start",
        "stop",
        "restart",
        "delete",
        "status",
        "list",
        "ls",
        "ssh",
        "exec",
        "x",
        "ssh-config",
        "kubernetes",
        "kube",
        "k8s",
        "k3s",
        "k",
        "nerdctl",
        "nerd",
        "n",
        "template",
        "tmpl",
        "tpl",
        "t",
        "update",
        "u",
        "up",
        "prune",
        "version",
        "completion",
        "model",
    ] {
        assert!(
            table.contains_key(&format!("colima {verb}")),
            "{verb} is missing"
        );
    }
}

/// Every flag of every verb that the table has is taken; every flag of `start` is in the table.
#[test]
fn flags() {
    let table = table();
    let command = Cli::command();
    let flags = |verb: &str| -> Vec<String> {
        let verb = command.find_subcommand(verb).unwrap();
        let arguments = verb.get_arguments().chain(command.get_arguments());
        let long = arguments.map(|argument| {
            let mut names: Vec<String> =
                argument.get_long().map(str::to_owned).into_iter().collect();
            names.extend(
                argument
                    .get_all_aliases()
                    .into_iter()
                    .flatten()
                    .map(str::to_owned),
            );
            names
        });
        long.flatten().collect()
    };
    for key in table.keys().filter(|key| key.contains(" --")) {
        let (verb, flag) = key.split_once(" --").unwrap();
        let verb = verb.strip_prefix("colima ").unwrap();
        assert!(
            flags(verb).iter().any(|known| known == flag),
            "{key}: not taken"
        );
    }
    let ours = [
        "very-verbose",
        "verbose",
        "profile",
        "progress",
        "help",
        "version",
    ];
    for flag in flags("start") {
        let listed = table.contains_key(&format!("colima start --{flag}"));
        assert!(
            listed || ours.contains(&flag.as_str()),
            "start --{flag} is not in the table"
        );
    }
}

/// The word of every key is the one that the reader of `colima.yaml` acts by.
#[test]
fn keys() {
    let table = table();
    let none = ConfigFile::default();
    let explained = explain(&Config::default(), &none, &none);
    for key in &explained {
        let word = table
            .get(&key.key)
            .unwrap_or_else(|| panic!("{} is missing", key.key));
        let allowed: &[&str] = match key.standing {
            None => &["same", "differs"],
            Some(Standing::DoesNotApply) => &["no effect"],
            Some(_) => &["not yet"],
        };
        assert!(allowed.contains(&word.as_str()), "{}: {word}", key.key);
    }
    let keys = table.keys().filter(|key| !key.starts_with("colima "));
    for key in keys {
        assert!(
            explained.iter().any(|one| one.key == *key),
            "{key} is no key"
        );
    }
}
