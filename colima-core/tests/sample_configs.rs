//! Files as people have them: they are read, and nothing of their text changes that nobody asked for.

use colima_core::config::{
    ConfigFile, EditConfigError, MountEntry, Mounts, NewValue, Settings, set_values, write_back,
};

macro_rules! samples {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each file.
        pub(crate) const SAMPLES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("sample_configs/", $name, ".yaml")))),*
        ];
    };
}

samples!(
    "stock",
    "anchors",
    "apple_silicon",
    "carriage_returns",
    "corporate_proxy",
    "elasticsearch",
    "everything_off",
    "kubernetes",
    "minimal",
    "no_final_newline",
    "own_dns",
    "version_0_4",
);

#[test]
fn none_is_forgotten() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sample_configs");
    let files = std::fs::read_dir(directory).unwrap().count();
    assert_eq!(files, SAMPLES.len());
}

#[test]
fn they_are_read() {
    let mut told = String::new();
    for (name, text) in SAMPLES {
        let file = ConfigFile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        told.push_str(&format!("{name}\n"));
        for note in &file.not_acted_on {
            told.push_str(&format!("  {note}\n"));
        }
    }
    insta::assert_snapshot!(told);
}

/// What a start does that says what the file says already: every value written where it stands.
#[test]
fn what_nobody_changed_keeps_every_byte() {
    for (name, text) in SAMPLES {
        let said = ConfigFile::parse(text).unwrap().settings;
        assert_ne!(said, Settings::default(), "{name}: a test of nothing");
        assert_eq!(write_back(text, &said).unwrap(), *text, "{name}");
        assert_eq!(
            write_back(text, &Settings::default()).unwrap(),
            *text,
            "{name}"
        );
    }
}

/// The lines of `new` that `old` does not have, and the other way round.
fn changed(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let missing = |from: &str, of: &str| {
        let mut there: Vec<&str> = of.split_inclusive('\n').collect();
        let mut missing = Vec::new();
        for line in from.split_inclusive('\n') {
            match there.iter().position(|other| *other == line) {
                Some(at) => drop(there.remove(at)),
                None => missing.push(line.to_owned()),
            }
        }
        missing
    };
    (missing(old, new), missing(new, old))
}

#[test]
fn one_flag_changes_one_line() {
    for (name, text) in SAMPLES {
        let disk: &[(&[&str], NewValue)] = &[(&["disk"], NewValue::Number(333))];
        let edited = set_values(text, disk).unwrap();
        let (gone, new) = changed(text, &edited);
        let had_disk = text.lines().any(|line| line.starts_with("disk:"));
        // A last line without its end gets one when another follows.
        let ended = usize::from(!had_disk && !text.ends_with('\n'));
        assert_eq!(
            gone.len(),
            usize::from(had_disk) + ended,
            "{name}: {gone:?}"
        );
        assert_eq!(new.len(), 1 + ended, "{name}: {new:?}");
        assert!(
            new.iter().any(|line| line.trim_end() == "disk: 333"),
            "{name}: {new:?}"
        );
    }
}

#[test]
fn what_flags_say_is_written_into_each() {
    let flags = Settings {
        dns: Some(vec!["9.9.9.9".parse().unwrap()]),
        env: [("TZ".to_owned(), "UTC".to_owned())].into(),
        registry_mirrors: Some(vec!["https://m.example".to_owned()]),
        mounts: Some(Mounts::These(vec![MountEntry {
            location: "~/it's \"here\"".to_owned(),
            mount_point: Some("/x".to_owned()),
            writable: true,
        }])),
        forward_agent: Some(true),
        ..Settings::default()
    };
    let mut told = String::new();
    for (name, text) in SAMPLES {
        let edited = match write_back(text, &flags) {
            Ok(edited) => edited,
            // It says so instead of dropping a comment.
            Err(EditConfigError::Entangled { key }) => {
                told.push_str(&format!("{name}: refused for {key}\n"));
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        let before = ConfigFile::parse(text).unwrap();
        let after = ConfigFile::parse(&edited).unwrap();
        assert_eq!(after.settings.dns, flags.dns, "{name}");
        assert_eq!(after.settings.mounts, flags.mounts, "{name}");
        assert_eq!(after.settings.env["TZ"], "UTC", "{name}");
        assert_eq!(after.settings.forward_agent, Some(true), "{name}");
        assert_eq!(after.settings.cpus, before.settings.cpus, "{name}");
        assert_eq!(
            after.settings.provision, before.settings.provision,
            "{name}"
        );
        assert_eq!(after.others, before.others, "{name}");
        for comment in text
            .lines()
            .filter(|line| line.trim_start().starts_with('#'))
        {
            assert!(edited.contains(comment), "{name}: {comment}");
        }
        let (gone, new) = changed(text, &edited);
        told.push_str(&format!("{name}\n"));
        told.extend(gone.iter().map(|line| format!("  - {}\n", line.trim_end())));
        told.extend(new.iter().map(|line| format!("  + {}\n", line.trim_end())));
    }
    insta::assert_snapshot!(told);
}
