//! Every key that a released Colima had, and what becomes of it here.

use serde_json::{Value, json};

/// Why a key of Colima's is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It will work in a later version.
    NotYet,
    /// It steers something that this program does not have.
    DoesNotApply,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    /// It is read into the settings.
    Acted,
    /// It is accepted; a value that differs from the default is mentioned.
    Known(Standing, Default),
    /// A map with a fixed set of keys below it.
    Section(&'static [(&'static str, Key)]),
    /// A list of maps with a fixed set of keys; mentioned unless it is empty.
    List(Standing, &'static [&'static str]),
}

/// Colima's default for a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    Null,
    Bool(bool),
    Number(u32),
    Text(&'static str),
    /// The empty list, or the one list of a single text.
    List(&'static [&'static str]),
    /// The empty map, or a map of one text.
    Map(&'static [(&'static str, &'static str)]),
}

impl Default {
    /// Whether `value` is what Colima does anyway. Empty values always are.
    pub(super) fn is(self, value: &Value) -> bool {
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        empty
            || *value
                == match self {
                    Self::Null => Value::Null,
                    Self::Bool(default) => json!(default),
                    Self::Number(default) => json!(default),
                    Self::Text(default) => json!(default),
                    Self::List(default) => json!(default),
                    Self::Map(default) => default
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), json!(value)))
                        .collect(),
                }
    }
}

use Standing::{DoesNotApply, NotYet};

/// The keys of the document. From Colima 0.10; those of earlier versions are marked.
pub(super) const ROOT: &[(&str, Key)] = &[
    ("arch", Key::Acted),
    ("autoActivate", Key::Acted),
    ("binfmt", Key::Known(NotYet, Default::Bool(true))),
    ("cpu", Key::Acted),
    ("cpuType", Key::Known(NotYet, Default::Text("host"))),
    ("disk", Key::Acted),
    ("diskImage", Key::Known(NotYet, Default::Null)),
    ("diskImageMirror", Key::Known(DoesNotApply, Default::Null)),
    (
        "forceDiskImage",
        Key::Known(DoesNotApply, Default::Bool(false)),
    ),
    ("docker", Key::Acted),
    ("env", Key::Acted),
    ("forwardAgent", Key::Known(NotYet, Default::Bool(false))),
    ("hostname", Key::Acted),
    ("kubernetes", Key::Section(KUBERNETES)),
    ("layer", Key::Known(DoesNotApply, Default::Bool(false))), // 0.4 and 0.5
    ("memory", Key::Acted),
    ("modelRunner", Key::Known(NotYet, Default::Text("docker"))),
    ("mountInotify", Key::Known(NotYet, Default::Bool(false))),
    (
        "mounts",
        Key::List(NotYet, &["location", "mountPoint", "writable"]),
    ),
    ("mountType", Key::Known(NotYet, Default::Text("sshfs"))),
    (
        "nestedVirtualization",
        Key::Known(NotYet, Default::Bool(false)),
    ),
    ("network", Key::Section(NETWORK)),
    ("portForwarder", Key::Acted),
    ("provision", Key::List(NotYet, &["mode", "script"])),
    ("rootDisk", Key::Acted),
    ("rosetta", Key::Known(DoesNotApply, Default::Bool(false))),
    ("runtime", Key::Acted),
    ("sshConfig", Key::Known(NotYet, Default::Bool(true))),
    ("sshPort", Key::Known(NotYet, Default::Number(0))),
    ("vmType", Key::Known(DoesNotApply, Default::Text("qemu"))),
];

const KUBERNETES: &[(&str, Key)] = &[
    (
        "disable",
        Key::Known(DoesNotApply, Default::List(&["traefik"])),
    ), // before 0.5
    ("enabled", Key::Known(NotYet, Default::Bool(false))),
    ("ingress", Key::Known(DoesNotApply, Default::Bool(false))), // before 0.4
    (
        "k3sArgs",
        Key::Known(NotYet, Default::List(&["--disable=traefik"])),
    ),
    ("port", Key::Known(NotYet, Default::Number(0))),
    ("version", Key::Known(NotYet, Default::Text("v1.35.0+k3s1"))),
];

const NETWORK: &[(&str, Key)] = &[
    ("address", Key::Known(NotYet, Default::Bool(false))),
    ("dns", Key::Known(NotYet, Default::List(&[]))),
    (
        "dnsHosts",
        Key::Known(
            NotYet,
            Default::Map(&[("host.docker.internal", "host.lima.internal")]),
        ),
    ),
    ("driver", Key::Known(DoesNotApply, Default::Null)), // before 0.5
    (
        "gatewayAddress",
        Key::Known(NotYet, Default::Text("192.168.5.2")),
    ),
    ("hostAddresses", Key::Known(NotYet, Default::Bool(false))),
    ("interface", Key::Known(DoesNotApply, Default::Text("en0"))),
    ("mode", Key::Known(NotYet, Default::Text("shared"))),
    ("portBind", Key::Acted), // ours
    ("preferredRoute", Key::Known(NotYet, Default::Bool(false))),
];

/// The known key closest to `unknown`, if it is close enough to have been meant.
pub(super) fn nearest<'k>(unknown: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let bound = (unknown.chars().count() / 3).max(1);
    known
        .map(|key| (edit_distance(unknown, key), key))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, key)| key)
}

/// How many letters to insert, drop, replace or swap with their neighbour to get from one word to the
/// other; case is free.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.to_lowercase().chars().collect();
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_key() {
        let keys = || ROOT.iter().map(|(key, _)| *key);
        for (typed, meant) in [
            ("cpus", Some("cpu")),
            ("memroy", Some("memory")),
            ("root_disk", Some("rootDisk")),
            ("Runtime", Some("runtime")),
            ("mount", Some("mounts")),
            ("banana", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, keys()), meant, "{typed}");
        }
    }
}
