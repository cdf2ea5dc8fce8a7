//! Changes values in a `colima.yaml` and leaves the rest of the user's text alone.

mod place;

use std::fmt;

use super::{
    Mounts, PortForwarder, Settings, Transport,
    document::{Content, Entry, Node},
};
use crate::Bytes;
use place::Place;

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewValue {
    /// A whole number.
    Number(u64),
    /// A size, written in GiB where that is tidy: `2`, `2.5`, else `1000MiB`.
    Size(Bytes),
    /// `true` or `false`.
    Truth(bool),
    /// Any text; quoted where YAML would read something else.
    Text(String),
    /// A list of texts, on one line.
    List(Vec<String>),
    /// Directories, on one line.
    Mounts(Mounts),
}

impl NewValue {
    /// Whether `node` says this already, however it is spelled.
    fn is_said_by(&self, node: &Node, text: &str) -> bool {
        match (self, &node.content) {
            (Self::Number(n), Content::Number(said)) => said.as_u64() == Some(*n),
            (Self::Size(size), _) => node
                .scalar_text(text)
                .is_some_and(|said| said.parse() == Ok(*size)),
            (Self::Truth(truth), Content::Bool(said)) => said == truth,
            (Self::Text(new), _) => node.scalar_text(text).as_ref() == Some(new),
            (Self::List(new), Content::List(items)) => {
                let said = items.iter().map(|item| item.scalar_text(text));
                said.eq(new.iter().cloned().map(Some))
            }
            (Self::Mounts(new), _) => new.to_json() == node.to_json(),
            _ => false,
        }
    }
}

impl fmt::Display for NewValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Mounts(mounts) => write!(f, "{mounts}"),
            Self::Truth(value) => write!(f, "{value}"),
            Self::Size(size) => {
                let text = size.exact();
                // The bare number of GiB is what Colima itself would read.
                f.write_str(text.strip_suffix("GiB").unwrap_or(&text))
            }
            Self::Text(text) => f.write_str(&scalar(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| scalar(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// A text as a YAML scalar that is read as this text, inside of brackets, too.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    // A word such as `no` or `null` is none to YAML.
    let is_text =
        plain && Node::parse(text).is_ok_and(|node| matches!(node.content, Content::Text(_)));
    if is_text {
        text.to_owned()
    } else {
        // A JSON string is a double-quoted YAML scalar.
        serde_json::Value::from(text).to_string()
    }
}

/// Why a text could not be edited; it is unchanged then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditConfigError {
    /// The text is not one YAML document.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The text is written in a way that does not let this key be changed alone: an alias is involved, the
    /// value is of another kind or a block of lines, or a comment stands inside of it.
    #[error("{key} cannot be changed without changing more of the file")]
    Entangled {
        /// The key, with dots between levels.
        key: String,
    },
}

/// Sets keys, each named by the keys above it and itself, and keeps every other byte.
///
/// A key that says the value already is left as it is. One that is there gets the new value in the place
/// of the old; a missing one becomes a line of its own, behind its neighbours or at the end. The result is read back before it
/// is returned.
///
/// # Errors
///
/// Where the text is no YAML, or where a value cannot be replaced alone.
pub fn set_values(text: &str, values: &[(&[&str], NewValue)]) -> Result<String, EditConfigError> {
    let mut text = text.to_owned();
    for (path, value) in values {
        text = set_value(&text, path, value)?;
    }
    Ok(text)
}

/// Writes the settings of a layer into the text of a `colima.yaml`.
///
/// Variables, names and mirrors are written one by one or as a list; [`Settings::docker`],
/// [`Settings::provision`], [`Settings::protect`], [`Settings::port_bind`], [`Settings::stop_mode`], the certificates and the nerdctl,
/// which no flag can say, are not.
///
/// # Errors
///
/// As [`set_values`].
pub fn write_back(text: &str, settings: &Settings) -> Result<String, EditConfigError> {
    let size = |size: Option<Bytes>| size.map(NewValue::Size);
    let name = |name: Option<&str>| name.map(|name| NewValue::Text(name.to_owned()));
    let dns = settings.dns.as_ref();
    let dns = dns.map(|dns| dns.iter().map(ToString::to_string).collect());
    let single: [(&[&str], Option<NewValue>); 16] = [
        (&["cpu"], settings.cpus.map(|n| NewValue::Number(n.into()))),
        (&["memory"], size(settings.memory)),
        (&["disk"], size(settings.disk)),
        (&["rootDisk"], size(settings.root_disk)),
        (&["arch"], name(settings.arch.map(crate::Arch::as_str))),
        (&["runtime"], name(settings.runtime.as_deref())),
        (
            &["autoActivate"],
            settings.auto_activate.map(NewValue::Truth),
        ),
        (&["hostname"], name(settings.hostname.as_deref())),
        (
            &["portForwarder"],
            name(settings.port_forwarder.map(PortForwarder::as_str)),
        ),
        (
            &["forwardAgent"],
            settings.forward_agent.map(NewValue::Truth),
        ),
        (&["mounts"], settings.mounts.clone().map(NewValue::Mounts)),
        (&["sshConfig"], settings.ssh_config.map(NewValue::Truth)),
        (
            &["sshPort"],
            settings.ssh_port.map(|port| NewValue::Number(port.into())),
        ),
        (
            &["transport"],
            name(settings.transport.map(Transport::as_str)),
        ),
        (&["network", "dns"], dns.map(NewValue::List)),
        (
            &["docker", "registry-mirrors"],
            settings.registry_mirrors.clone().map(NewValue::List),
        ),
    ];
    let mut values: Vec<(Vec<&str>, NewValue)> = single
        .into_iter()
        .filter_map(|(path, value)| Some((path.to_vec(), value?)))
        .collect();
    for (name, value) in &settings.env {
        values.push((vec!["env", name], NewValue::Text(value.clone())));
    }
    for (name, target) in settings.dns_hosts.iter().flatten() {
        let path = vec!["network", "dnsHosts", name];
        values.push((path, NewValue::Text(target.clone())));
    }
    let values: Vec<(&[&str], NewValue)> = values
        .iter()
        .map(|(path, value)| (path.as_slice(), value.clone()))
        .collect();
    set_values(text, &values)
}

fn set_value(text: &str, path: &[&str], value: &NewValue) -> Result<String, EditConfigError> {
    let before = parse(text)?;
    let entangled = || EditConfigError::Entangled {
        key: path.join("."),
    };
    if find(&before, path).is_some_and(|entry| value.is_said_by(&entry.value, text)) {
        return Ok(text.to_owned());
    }
    let place = Place::find(text, &before, path).ok_or_else(entangled)?;
    let edited = place.write(text, value).ok_or_else(entangled)?;
    let after = parse(&edited).map_err(|_| entangled())?;
    if says(&after, &before, path, &value.to_string()) {
        Ok(edited)
    } else {
        Err(entangled())
    }
}

fn parse(text: &str) -> Result<Node, EditConfigError> {
    Node::parse(text).map_err(|error| EditConfigError::Syntax {
        line: error.line,
        reason: error.reason,
    })
}

/// The entry at the end of the path.
fn find<'n>(root: &'n Node, path: &[&str]) -> Option<&'n Entry> {
    let (first, below) = path.split_first()?;
    let Content::Map(entries) = &root.content else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == *first)?;
    if below.is_empty() {
        Some(entry)
    } else {
        find(&entry.value, below)
    }
}

/// Whether `after` is `before` but for the key, which holds what was written.
fn says(after: &Node, before: &Node, path: &[&str], written: &str) -> bool {
    use serde_json::{Map, Value};
    let Ok(value) = Node::parse(written) else {
        return false;
    };
    let mut expected = before.to_json();
    let mut at = &mut expected;
    for key in path {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else {
            return false;
        };
        at = map.entry(*key).or_insert(Value::Null);
    }
    *at = value.to_json();
    after.to_json() == expected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, key: &str, value: NewValue) -> String {
        set_values(text, &[(&[key], value)]).unwrap()
    }

    #[test]
    fn only_the_value_changes() {
        let text = "# mine\ncpu: 2 # two\n\nmemory:   2.50\r\nx: |\n  cpu: 3\ndisk:  # none\n";
        assert_eq!(
            set(text, "cpu", NewValue::Number(12)),
            text.replace("cpu: 2 ", "cpu: 12 ")
        );
        assert_eq!(
            set(text, "memory", NewValue::Size(Bytes::gib(4))),
            text.replace("2.50", "4")
        );
        assert_eq!(
            set(text, "disk", NewValue::Size(Bytes::gib(60))),
            text.replace("disk:", "disk: 60")
        );
    }

    #[test]
    fn missing_keys_are_appended() {
        assert_eq!(set("", "cpu", NewValue::Number(1)), "cpu: 1\n");
        assert_eq!(set("# c", "cpu", NewValue::Number(1)), "# c\ncpu: 1\n");
        assert_eq!(
            set("a: 1\r\n", "cpu", NewValue::Number(1)),
            "a: 1\r\ncpu: 1\r\n"
        );
    }

    #[test]
    fn every_spelling_of_a_value_is_replaced() {
        for old in ["'no'", "\"a\\tb\"", "plain text", "~", "null", "&a x"] {
            let text = format!("hostname: {old}\ncpu: 3\n");
            let edited = set(&text, "hostname", NewValue::Text("true".to_owned()));
            assert!(edited.contains("\"true\""), "{edited}");
            assert!(edited.ends_with("\ncpu: 3\n"), "{edited}");
        }
    }

    #[test]
    fn what_cannot_be_changed_alone_is_refused() {
        for text in [
            "cpu: [1]\n",
            "a: &n 2\ncpu: *n\n",
            "cpu: &n 2\na: *n\n",
            "- list\n",
            "cpu: |\n  2\n",
            "a: 1\n...\n",
        ] {
            let edited = set_values(text, &[(&["cpu"], NewValue::Number(4))]);
            assert!(edited.is_err(), "{text:?} became {edited:?}");
        }
    }

    #[test]
    fn write_back_writes_what_was_typed() {
        let flags = Settings {
            cpus: Some(4),
            memory: Some(Bytes::mib(1000)),
            hostname: Some("box".to_owned()),
            ..Settings::default()
        };
        assert_eq!(
            write_back("memory: 2\n", &flags).unwrap(),
            "memory: 1000MiB\ncpu: 4\nhostname: box\n"
        );
    }

    fn text(words: &[&str]) -> NewValue {
        NewValue::List(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_is_said_already_is_left_as_it_is_spelled() {
        let text =
            "memory: 2.50\ncpu: 0x4\nhostname: 'box'\nnetwork:\n  dns:\n    - 1.1.1.1 # one\n";
        let same: &[(&[&str], NewValue)] = &[
            (&["memory"], NewValue::Size(Bytes::mib(2560))),
            (&["cpu"], NewValue::Number(4)),
            (&["hostname"], NewValue::Text("box".to_owned())),
            (&["network", "dns"], self::text(&["1.1.1.1"])),
        ];
        assert_eq!(set_values(text, same).unwrap(), text);
    }

    #[test]
    fn keys_below_keys() {
        let dns: &[&str] = &["network", "dns"];
        let value = || text(&["1.1.1.1", "fd00::1"]);
        let written = r#"dns: ["1.1.1.1", "fd00::1"]"#;
        for (before, after) in [
            ("", "network:\n  dns: _\n"),
            ("cpu: 1\n", "cpu: 1\nnetwork:\n  dns: _\n"),
            (
                "network:\n    address: false # no\n    # last\n\ncpu: 1\n",
                "network:\n    address: false # no\n    dns: _\n    # last\n\ncpu: 1\n",
            ),
            (
                "network: # mine\n  # servers\n  dns:\n    # first\n    - 8.8.8.8\n    - 9.9.9.9\n  mode: shared\n",
                "network: # mine\n  # servers\n  dns: _\n    # first\n  mode: shared\n",
            ),
            (
                "network:\n  dns: [\"a #b\"] # see [1]\n",
                "network:\n  dns: _ # see [1]\n",
            ),
            (
                "network:\n  dns: [] # none\n",
                "network:\n  dns: _ # none\n",
            ),
            (
                "network:\n  dns:\n  mode: shared\n",
                "network:\n  dns: _\n  mode: shared\n",
            ),
            (
                "network: {} # none\ncpu: 1\n",
                "network: # none\n  dns: _\ncpu: 1\n",
            ),
            ("network:\ncpu: 1\n", "network:\n  dns: _\ncpu: 1\n"),
            ("network: ~\r\n", "network:\r\n  dns: _\r\n"),
            (
                "network: {mode: shared}\n",
                "network: {mode: shared, dns: _}\n",
            ),
        ] {
            let expected = after.replace("dns: _", written);
            assert_eq!(
                set_values(before, &[(dns, value())]).unwrap(),
                expected,
                "{before}"
            );
        }
    }

    #[test]
    fn a_comment_is_rather_kept_than_a_list_changed() {
        let text = "network:\n  dns:\n    - 1.1.1.1 # the office's\n";
        let edited = set_values(text, &[(&["network", "dns"], self::text(&["8.8.8.8"]))]);
        assert!(
            matches!(edited, Err(EditConfigError::Entangled { .. })),
            "{edited:?}"
        );
    }

    #[test]
    fn variables_are_written_one_by_one() {
        let flags = Settings {
            env: [("B", "x: y"), ("C.d", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            registry_mirrors: Some(vec!["http://m.test".to_owned()]),
            ..Settings::default()
        };
        assert_eq!(
            write_back("env:\n  A: 1 # one\n  B: 2\ndocker: {}\n", &flags).unwrap(),
            "env:\n  A: 1 # one\n  B: \"x: y\"\n  C.d: \"1\"\ndocker:\n  registry-mirrors: [\"http://m.test\"]\n"
        );
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "# [ -~é]{0,20}",
            "k[a-z]{1,6}: [a-z0-9]{1,8}( # [a-z: ]{0,9})?",
            "s[a-z]{1,6}: \"[a-z:# ]{0,9}\"",
            "m[a-z]{1,6}:\n  cpu: [0-9]{1,2} # x\n  - ?",
            "l[a-z]{1,6}:\n  - [a-z]{1,4}\n  - cpu",
            "b[a-z]{1,6}: \\|\n  cpu: 7\n\n  # kept",
        ]
    }

    proptest! {
        /// Lines in any order: those without the key are all there afterwards, in the same order.
        #[test]
        fn no_line_is_lost(
            lines in proptest::collection::vec(line(), 0..12),
            place in any::<prop::sample::Index>(),
            present in any::<bool>(),
            value in 0_u64..1000,
        ) {
            let mut with_key = lines.clone();
            if present {
                with_key.insert(place.index(lines.len() + 1), "cpu: 1005 # mine".to_owned());
            }
            let text = with_key.iter().map(|line| format!("{line}\n")).collect::<String>();
            prop_assume!(Node::parse(&text).is_ok());
            let edited = set_values(&text, &[(&["cpu"], NewValue::Number(value))]).unwrap();
            let expected = if present {
                text.replace("cpu: 1005 # mine", &format!("cpu: {value} # mine"))
            } else {
                format!("{text}cpu: {value}\n")
            };
            prop_assert_eq!(edited, expected);
        }

        #[test]
        fn any_text_is_answered(text in "([a-c:#\\-\\[\\]{}&*|>'\"\n ]|cpu: ){0,40}", word in ".{0,8}") {
            if let Ok(edited) = set_values(&text, &[(&["cpu"], NewValue::Text(word.clone()))]) {
                let root = Node::parse(&edited).unwrap();
                let node = &find(&root, &["cpu"]).unwrap().value;
                prop_assert!(matches!(&node.content, Content::Text(text) if *text == word), "{}", edited);
            }
        }
    }
}
