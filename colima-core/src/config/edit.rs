//! Changes values in a `colima.yaml` and leaves the rest of the user's text alone.

use std::fmt;

use super::{
    PortForwarder, Settings,
    document::{Content, Node},
};
use crate::Bytes;

/// A value for a key of the document's first level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A whole number.
    Number(u64),
    /// A size, written in GiB where that is tidy: `2`, `2.5`, else `1000MiB`.
    Size(Bytes),
    /// `true` or `false`.
    Truth(bool),
    /// Any text; quoted where YAML would read something else.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Truth(value) => write!(f, "{value}"),
            Self::Size(size) => {
                let text = size.to_string();
                // The bare number of GiB is what Colima itself would read.
                f.write_str(text.strip_suffix("GiB").unwrap_or(&text))
            }
            Self::Text(text) => {
                let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
                // A word such as `no` or `null` is none to YAML.
                let is_text = plain
                    && Node::parse(text).is_ok_and(|node| matches!(node.content, Content::Text(_)));
                if is_text {
                    f.write_str(text)
                } else {
                    // A JSON string is a double-quoted YAML scalar.
                    write!(f, "{}", serde_json::Value::from(text.as_str()))
                }
            }
        }
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
    /// The text is written in a way that does not let this key be changed alone: an alias is involved, or
    /// the value is a list, a map or a block of lines.
    #[error("{key} cannot be changed without changing more of the file")]
    Entangled {
        /// The key.
        key: String,
    },
}

/// Sets keys of the document's first level, and keeps every other byte.
///
/// A key that is there gets the new value in the place of the old; a missing one is appended as a line
/// of its own. The result is read back before it is returned.
///
/// # Errors
///
/// Where the text is no YAML, or where a value cannot be replaced alone.
pub fn set_scalars(text: &str, values: &[(&str, Scalar)]) -> Result<String, EditConfigError> {
    let mut text = text.to_owned();
    for (key, value) in values {
        text = set_scalar(&text, key, value)?;
    }
    Ok(text)
}

/// Writes the scalar settings that a layer names into the text of a `colima.yaml`.
///
/// Maps ([`Settings::env`], [`Settings::docker`]) and what lies below another key
/// ([`Settings::port_bind`]) are not written: they hold for one run.
///
/// # Errors
///
/// As [`set_scalars`].
pub fn write_back(text: &str, settings: &Settings) -> Result<String, EditConfigError> {
    let size = |size: Option<Bytes>| size.map(Scalar::Size);
    let name = |name: Option<&str>| name.map(|name| Scalar::Text(name.to_owned()));
    let values: Vec<(&str, Scalar)> = [
        ("cpu", settings.cpus.map(|n| Scalar::Number(n.into()))),
        ("memory", size(settings.memory)),
        ("disk", size(settings.disk)),
        ("rootDisk", size(settings.root_disk)),
        ("arch", name(settings.arch.map(crate::Arch::as_str))),
        ("runtime", name(settings.runtime.as_deref())),
        ("autoActivate", settings.auto_activate.map(Scalar::Truth)),
        ("hostname", name(settings.hostname.as_deref())),
        (
            "portForwarder",
            name(settings.port_forwarder.map(|forwarder| match forwarder {
                PortForwarder::On => "ssh",
                PortForwarder::Off => "none",
            })),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect();
    set_scalars(text, &values)
}

fn set_scalar(text: &str, key: &str, value: &Scalar) -> Result<String, EditConfigError> {
    let before = parse(text)?;
    let written = value.to_string();
    let edited = match find(&before, key) {
        Some((_, node)) if matches!(node.content, Content::List(_) | Content::Map(_)) => {
            return Err(entangled(key));
        }
        Some((key_end, node)) if matches!(node.content, Content::Null) => {
            fill_in(text, key_end, node, &written)
        }
        Some((_, node)) => {
            let (head, tail) = (text.get(..node.span.start), text.get(node.span.end..));
            let (Some(head), Some(tail)) = (head, tail) else {
                return Err(entangled(key));
            };
            format!("{head}{written}{tail}")
        }
        None => append(text, key, &written),
    };
    let after = parse(&edited).map_err(|_| entangled(key))?;
    if says(&after, &before, key, &written) {
        Ok(edited)
    } else {
        Err(entangled(key))
    }
}

fn parse(text: &str) -> Result<Node, EditConfigError> {
    Node::parse(text).map_err(|error| EditConfigError::Syntax {
        line: error.line,
        reason: error.reason,
    })
}

fn entangled(key: &str) -> EditConfigError {
    EditConfigError::Entangled {
        key: key.to_owned(),
    }
}

/// The byte behind the key, and its value.
fn find<'n>(root: &'n Node, key: &str) -> Option<(usize, &'n Node)> {
    match &root.content {
        Content::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| (entry.span.end, &entry.value)),
        _ => None,
    }
}

/// Gives a value to a key that has none, or a spelled-out null.
fn fill_in(text: &str, key_end: usize, node: &Node, written: &str) -> String {
    if !node.span.is_empty() {
        return format!(
            "{}{written}{}",
            &text[..node.span.start],
            &text[node.span.end..]
        );
    }
    let colon = text[key_end..]
        .find(':')
        .map_or(text.len(), |at| key_end + at + 1);
    format!("{} {written}{}", &text[..colon], &text[colon..])
}

fn append(text: &str, key: &str, written: &str) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        newline
    };
    format!("{text}{gap}{key}: {written}{newline}")
}

/// Whether `after` is `before` but for `key`, which holds what was written.
fn says(after: &Node, before: &Node, key: &str, written: &str) -> bool {
    let map = |node: &Node| match node.to_json() {
        serde_json::Value::Object(map) => Some(map),
        serde_json::Value::Null => Some(serde_json::Map::new()),
        _ => None,
    };
    let (Some(after), Some(mut before), Ok(value)) =
        (map(after), map(before), Node::parse(written))
    else {
        return false;
    };
    before.insert(key.to_owned(), value.to_json());
    after == before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, key: &str, value: Scalar) -> String {
        set_scalars(text, &[(key, value)]).unwrap()
    }

    #[test]
    fn only_the_value_changes() {
        let text = "# mine\ncpu: 2 # two\n\nmemory:   2.50\r\nx: |\n  cpu: 3\ndisk:  # none\n";
        assert_eq!(
            set(text, "cpu", Scalar::Number(12)),
            text.replace("cpu: 2 ", "cpu: 12 ")
        );
        assert_eq!(
            set(text, "memory", Scalar::Size(Bytes::gib(4))),
            text.replace("2.50", "4")
        );
        assert_eq!(
            set(text, "disk", Scalar::Size(Bytes::gib(60))),
            text.replace("disk:", "disk: 60")
        );
    }

    #[test]
    fn missing_keys_are_appended() {
        assert_eq!(set("", "cpu", Scalar::Number(1)), "cpu: 1\n");
        assert_eq!(set("# c", "cpu", Scalar::Number(1)), "# c\ncpu: 1\n");
        assert_eq!(
            set("a: 1\r\n", "cpu", Scalar::Number(1)),
            "a: 1\r\ncpu: 1\r\n"
        );
    }

    #[test]
    fn every_spelling_of_a_value_is_replaced() {
        for old in ["'no'", "\"a\\tb\"", "plain text", "~", "null", "&a x"] {
            let text = format!("hostname: {old}\ncpu: 3\n");
            let edited = set(&text, "hostname", Scalar::Text("true".to_owned()));
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
            let edited = set_scalars(text, &[("cpu", Scalar::Number(4))]);
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
                with_key.insert(place.index(lines.len() + 1), "cpu: 5 # mine".to_owned());
            }
            let text = with_key.iter().map(|line| format!("{line}\n")).collect::<String>();
            prop_assume!(Node::parse(&text).is_ok());
            let edited = set_scalars(&text, &[("cpu", Scalar::Number(value))]).unwrap();
            let expected = if present {
                text.replace("cpu: 5 # mine", &format!("cpu: {value} # mine"))
            } else {
                format!("{text}cpu: {value}\n")
            };
            prop_assert_eq!(edited, expected);
        }

        #[test]
        fn any_text_is_answered(text in "([a-c:#\\-\\[\\]{}&*|>'\"\n ]|cpu: ){0,40}", word in ".{0,8}") {
            if let Ok(edited) = set_scalars(&text, &[("cpu", Scalar::Text(word.clone()))]) {
                let root = Node::parse(&edited).unwrap();
                let (_, node) = find(&root, "cpu").unwrap();
                prop_assert!(matches!(&node.content, Content::Text(text) if *text == word), "{}", edited);
            }
        }
    }
}
