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

/// A key of one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) role: Role,
    /// One sentence for editors.
    pub(super) about: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// It is read into the settings.
    Acted(Form, Default),
    /// It is accepted; a value that differs from the default is mentioned.
    Known(Standing, Form, Default),
    /// A map with a fixed set of keys below it.
    Section(&'static [Key]),
    /// A list of maps with a fixed set of keys that is read into the settings.
    Items(&'static [Key]),
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A whole number.
    Count,
    /// A number of GiB, or a size with its unit.
    Size,
    /// `true` or `false`.
    Truth,
    /// A text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// Texts by name.
    Variables,
    /// Any map.
    Map,
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
        empty || *value == self.to_json()
    }

    pub(super) fn to_json(self) -> Value {
        match self {
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

use Form::{Choice, Count, Map, Size, Text, Texts, Truth, Variables};
use Role::{Acted, Items, Known, Section};
use Standing::{DoesNotApply, NotYet};

const fn key(name: &'static str, role: Role, about: &'static str) -> Key {
    Key { name, role, about }
}

const EMPTY: Default = Default::Map(&[]);
const OFF: Default = Default::Bool(false);
const ON: Default = Default::Bool(true);

/// The keys of the document. From Colima 0.10; those of earlier versions are marked.
pub(super) const ROOT: &[Key] = &[
    key(
        "arch",
        Acted(
            Choice(&["host", "x86_64", "aarch64"]),
            Default::Text("host"),
        ),
        "Architecture of the guest.",
    ),
    key(
        "autoActivate",
        Acted(Truth, ON),
        "Make the profile the current docker context while it runs.",
    ),
    key(
        "binfmt",
        Known(NotYet, Truth, ON),
        "Run programs of other architectures.",
    ),
    key(
        "certificates",
        Acted(Texts, Default::List(&[])),
        "Files of this host, or directories of them, with certificates that the machine trusts.",
    ), // ours
    key(
        "cpu",
        Acted(Count, Default::Number(2)),
        "Processors of the virtual machine.",
    ),
    key(
        "cpuType",
        Known(NotYet, Text, Default::Text("host")),
        "QEMU's name of the processor.",
    ),
    key(
        "disk",
        Acted(Size, Default::Number(100)),
        "Disk for images, containers and volumes; it can grow, not shrink.",
    ),
    key(
        "diskImage",
        Known(NotYet, Text, Default::Null),
        "A disk image to boot from.",
    ),
    key(
        "diskImageMirror",
        Known(DoesNotApply, Text, Default::Null),
        "Where disk images are downloaded from.",
    ),
    key(
        "forceDiskImage",
        Known(DoesNotApply, Truth, OFF),
        "Take a disk image whatever its digest is.",
    ),
    key(
        "docker",
        Acted(Map, EMPTY),
        "Settings of the docker daemon, as in its daemon.json.",
    ),
    key(
        "env",
        Acted(Variables, EMPTY),
        "Environment of the machine's sessions and of the container runtime.",
    ),
    key(
        "forwardAgent",
        Acted(Truth, OFF),
        "Let sessions in the machine use the host's ssh agent.",
    ),
    key(
        "hostname",
        Acted(Text, Default::Text("")),
        "Host name of the machine; empty follows the profile's name.",
    ),
    key(
        "kubernetes",
        Section(KUBERNETES),
        "Kubernetes in the machine.",
    ),
    key(
        "layer",
        Known(DoesNotApply, Truth, OFF),
        "A second system as a container around the first.",
    ), // 0.4 and 0.5
    key(
        "memory",
        Acted(Size, Default::Number(2)),
        "Memory of the virtual machine.",
    ),
    key(
        "modelRunner",
        Known(NotYet, Text, Default::Text("docker")),
        "What runs language models.",
    ),
    key(
        "mountInotify",
        Known(NotYet, Truth, OFF),
        "Tell the machine of changes in shared directories.",
    ),
    key(
        "mounts",
        Items(MOUNT),
        "Directories of the host to share; none listed are the home directory and /tmp/colima, null is none at all.",
    ),
    key(
        "mountType",
        Known(
            DoesNotApply,
            Choice(&["9p", "sshfs", "virtiofs"]),
            Default::Text("sshfs"),
        ),
        "How directories are shared.",
    ),
    key(
        "nestedVirtualization",
        Known(NotYet, Truth, OFF),
        "Virtual machines in the machine.",
    ),
    key(
        "nerdctl",
        Section(NERDCTL),
        "A nerdctl of this host for the machine, which has none.",
    ), // ours
    key("network", Section(NETWORK), "The machine's network."),
    key(
        "portForwarder",
        Acted(Choice(&["ssh", "grpc", "none"]), Default::Text("ssh")),
        "What brings published ports to the host.",
    ),
    key(
        "protect",
        Acted(Texts, Default::List(&[])),
        "What of shared directories the machine may not change; empty is ssh keys and start-up files, none is nothing.",
    ), // ours
    key(
        "provision",
        Items(PROVISION),
        "Scripts that run in the machine when it boots.",
    ),
    key(
        "rootDisk",
        Acted(Size, Default::Number(20)),
        "Disk for the machine's system; it can grow, not shrink.",
    ),
    key(
        "rosetta",
        Known(DoesNotApply, Truth, OFF),
        "Apple's translation of x86-64 programs.",
    ),
    key(
        "runtime",
        Acted(
            Choice(&["docker", "containerd", "incus", "none"]),
            Default::Text("docker"),
        ),
        "Container runtime.",
    ),
    key(
        "sshConfig",
        Acted(Truth, OFF),
        "Keep the file ssh_config of the state directory, and the line in ~/.ssh/config that includes it.",
    ),
    key(
        "sshPort",
        Acted(Count, Default::Number(0)),
        "Port of 127.0.0.1 that leads to the machine's ssh server; 0 is none.",
    ),
    key(
        "stopMode",
        Acted(Choice(&["suspend", "shutdown"]), Default::Text("suspend")),
        "What `colima stop` does: keep the machine's memory in a file, or power it off.",
    ), // ours
    key(
        "transport",
        Acted(Choice(super::Transport::WORDS), Default::Text("auto")),
        "What carries streams between host and machine: a virtio-serial port, or ssh; auto is virtio.",
    ), // ours
    key(
        "vmType",
        Known(
            DoesNotApply,
            Choice(&["qemu", "vz", "krunkit"]),
            Default::Text("qemu"),
        ),
        "What runs the virtual machine.",
    ),
];

const KUBERNETES: &[Key] = &[
    key(
        "disable",
        Known(DoesNotApply, Texts, Default::List(&["traefik"])),
        "Parts of k3s to leave out.",
    ), // before 0.5
    key("enabled", Known(NotYet, Truth, OFF), "Run Kubernetes."),
    key(
        "ingress",
        Known(DoesNotApply, Truth, OFF),
        "Run an ingress controller.",
    ), // before 0.4
    key(
        "k3sArgs",
        Known(NotYet, Texts, Default::List(&["--disable=traefik"])),
        "Further arguments of k3s.",
    ),
    key(
        "port",
        Known(NotYet, Count, Default::Number(0)),
        "Port of the Kubernetes API.",
    ),
    key(
        "version",
        Known(NotYet, Text, Default::Text("v1.35.0+k3s1")),
        "Version of k3s.",
    ),
];

const NERDCTL: &[Key] = &[
    key(
        "digest",
        Acted(Text, Default::Text("")),
        "SHA-256 of the file, as sha256sum prints it.",
    ),
    key(
        "path",
        Acted(Text, Default::Text("")),
        "Absolute path of the file on this host.",
    ),
];

const NETWORK: &[Key] = &[
    key(
        "address",
        Known(NotYet, Truth, OFF),
        "Give the machine an address that the host can reach.",
    ),
    key(
        "dns",
        Acted(Texts, Default::List(&[])),
        "Addresses of name servers; at most three are asked.",
    ),
    key(
        "dnsHosts",
        Acted(
            Variables,
            Default::Map(&[("host.docker.internal", "host.lima.internal")]),
        ),
        "Names in the machine: an address each, or host.lima.internal for the host.",
    ),
    key(
        "driver",
        Known(DoesNotApply, Text, Default::Null),
        "The network's driver.",
    ), // before 0.5
    key(
        "gatewayAddress",
        Known(NotYet, Text, Default::Text("192.168.5.2")),
        "The host's address in the machine.",
    ),
    key(
        "hostAddresses",
        Known(NotYet, Truth, OFF),
        "Give the machine the host's addresses.",
    ),
    key(
        "interface",
        Known(DoesNotApply, Text, Default::Text("en0")),
        "The host's interface to bridge to.",
    ),
    key(
        "mode",
        Known(
            NotYet,
            Choice(&["shared", "bridged"]),
            Default::Text("shared"),
        ),
        "How the machine is on the host's network.",
    ),
    key(
        "portBind",
        Acted(Text, Default::Text("")),
        "Where published ports appear: an address of this host, or all; empty is 127.0.0.1 and ::1.",
    ), // ours
    key(
        "preferredRoute",
        Known(NotYet, Truth, OFF),
        "Prefer the reachable address for outgoing traffic.",
    ),
];

const MOUNT: &[Key] = &[
    key(
        "location",
        Acted(Text, Default::Null),
        "Directory of the host.",
    ),
    key(
        "mountPoint",
        Acted(Text, Default::Null),
        "Where it is in the machine; the same path unless said otherwise.",
    ),
    key(
        "writable",
        Acted(Truth, OFF),
        "Whether the machine may change it.",
    ),
];

const PROVISION: &[Key] = &[
    key(
        "mode",
        Acted(
            Choice(crate::boot::ProvisionMode::WORDS),
            Default::Text("system"),
        ),
        "When the script runs, and as whom.",
    ),
    key(
        "script",
        Acted(Text, Default::Null),
        "Text of the script; a shell script unless it begins with #!.",
    ),
];

/// Every value of the document in the table's order, with dots between levels.
pub(super) fn leaves() -> Vec<(String, &'static Key)> {
    fn walk(path: &str, keys: &'static [Key], leaves: &mut Vec<(String, &'static Key)>) {
        for key in keys {
            let path = format!("{path}{}", key.name);
            match key.role {
                Section(below) => walk(&format!("{path}."), below, leaves),
                _ => leaves.push((path, key)),
            }
        }
    }
    let mut found = Vec::new();
    walk("", ROOT, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once_and_explained() {
        let leaves = leaves();
        for (path, key) in &leaves {
            assert_eq!(
                leaves.iter().filter(|(other, _)| other == path).count(),
                1,
                "{path}"
            );
            assert!(key.about.ends_with('.'), "{path}");
        }
        assert_eq!(leaves.len(), 50);
    }
}
