//! `colima.yaml` through the program: shown, edited, begun from a template.

use super::home::Home;

#[test]
fn every_value_with_its_origin() {
    let home = Home::new();
    home.write(
        "work/colima.yaml",
        "cpu: 4\nenv: {A: file, B: file}\nmounts: [{location: /src}]\nnetwork:\n  dns: [1.1.1.1]\n",
    );
    let shown = home.run(&[
        "config",
        "show",
        "work",
        "--memory",
        "0.75",
        "--env",
        "B=flag",
        "--registry-mirror",
        "https://m.test",
    ]);
    insta::assert_snapshot!(shown.all());
    assert!(!home.has("_version"), "looking changes nothing");
}

#[test]
fn a_template_is_where_a_profile_begins() {
    let home = Home::new();
    home.write("_templates/default.yaml", "cpu: 7\n# the team's\n");
    home.write("old/colima.yaml", "memory: 4\n");
    let cpu = |profile: &str| {
        let shown = home.run(&["config", "show", profile, "--json"]);
        let keys: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        let keys = keys.as_array().unwrap();
        let cpu = keys.iter().find(|key| key["key"] == "cpu").unwrap().clone();
        (cpu["value"].clone(), cpu["origin"].clone())
    };
    assert_eq!(cpu("new"), (7.into(), "template".into()));
    assert_eq!(cpu("old"), (2.into(), "default".into()));
}

#[test]
fn the_schema_is_json() {
    let schema = Home::new().run(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema, colima_core::config::schema());
}

#[test]
fn the_template_is_printed_and_edited() {
    let home = Home::new();
    let printed = home.run(&["template", "--print"]);
    assert_eq!(printed.stdout, colima_core::config::TEMPLATE);
    let editor = home.script("editor", "sed -i 's/^cpu: 2/cpu: 5/' \"$1\"");
    let edited = home.run(&["template", "--editor", &editor]);
    assert_eq!(edited.code, Some(0), "{}", edited.all());
    let expected = colima_core::config::TEMPLATE.replace("\ncpu: 2\n", "\ncpu: 5\n");
    assert_eq!(home.read("_templates/default.yaml"), expected);
    assert_eq!(home.run(&["tmpl", "--print"]).stdout, expected);
}

/// Names of what an edit has left in the state directory.
fn drafts(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.path("c")).unwrap();
    entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("_draft")
        })
        .count()
}

#[test]
fn an_empty_file_gives_up() {
    let home = Home::new();
    home.write("default/colima.yaml", "cpu: 3\n");
    let editor = home.script("editor", ": > \"$1\"");
    let given_up = home.run(&["start", "--edit", "--editor", &editor]);
    insta::assert_snapshot!(given_up.all());
    assert_eq!(home.read("default/colima.yaml"), "cpu: 3\n");
    assert_eq!(drafts(&home), 0);
}

#[test]
fn a_mistake_in_the_editor_is_not_lost() {
    let home = Home::new();
    home.write("default/colima.yaml", "cpu: 3 # mine\n");
    let editor = home.script("editor", "cat \"$1\" > seen; echo 'cpus: 4' >> \"$1\"");
    let mut start = home.command(&["start", "--edit", "--memory", "3"]);
    // As git has it: a command with arguments.
    start.env("EDITOR", format!("sh {editor}"));
    let refused = home.finish(start.current_dir(home.path("")));
    let text = refused.all();
    let draft = regex_free(&text);
    insta::assert_snapshot!(draft);
    assert_eq!(home.read("default/colima.yaml"), "cpu: 3 # mine\n");
    assert_eq!(drafts(&home), 1);
    let seen = std::fs::read_to_string(home.path("seen")).unwrap();
    assert!(seen.starts_with("# ---"), "{seen}");
    assert!(seen.ends_with("\ncpu: 3 # mine\nmemory: 3\n"), "{seen}");
}

/// The number of a process is different every time.
fn regex_free(text: &str) -> String {
    let mut plain = String::new();
    for word in text.split_inclusive("colima-default-") {
        let digits = plain.ends_with("colima-default-");
        let rest = word.trim_start_matches(|c: char| digits && c.is_ascii_digit());
        if digits {
            plain.push_str("[pid]");
        }
        plain.push_str(rest);
    }
    plain
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let home = Home::new();
    home.write("default/colima.yaml", "cpu: 3\n");
    let failed = home.run(&["start", "--edit", "--editor", "false"]);
    insta::assert_snapshot!(failed.all());
    let none = home.run(&["template"]);
    insta::assert_snapshot!("no_editor", none.all());
}
