//! Reads `colima.yaml`.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    MountEntry, Mounts, PortForwarder, Protect, Settings, StopMode, Transport,
    document::{Content, Entry, Node},
    known_keys::{Key, ROOT, Role, Standing},
    spelling::nearest,
};
use crate::{
    Bytes,
    boot::{Provision, ProvisionMode},
};

/// What a `colima.yaml` says.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfigFile {
    /// The values of the keys that are acted on.
    pub settings: Settings,
    /// Keys of Colima's that differ from its default and have no effect here.
    pub not_acted_on: Vec<NotActedOn>,
    /// The values of all keys that have no effect here, by key with dots between levels.
    pub others: BTreeMap<String, serde_json::Value>,
}

/// A key of Colima's that was set and has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotActedOn {
    /// The key, with dots between levels: `network.dns`.
    pub key: String,
    /// The value in one line.
    pub value: String,
    /// Line of the key in the file, from 1.
    pub line: u64,
    /// Why it has no effect.
    pub standing: Standing,
}

impl fmt::Display for NotActedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = match self.standing {
            Standing::NotYet => "is not available yet",
            Standing::DoesNotApply => "does not apply here",
        };
        let Self { key, value, .. } = self;
        write!(f, "{key}: {value} {standing} and is left aside")
    }
}

/// Why a `colima.yaml` could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseConfigError {
    /// The text is not one YAML document.
    #[error("not valid YAML: line {line}, column {column}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        reason: String,
    },
    /// Keys or values that mean nothing.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

impl ParseConfigError {
    /// Everything that is wrong, one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Syntax { .. } => vec![self.to_string()],
            Self::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// One thing that is wrong in a `colima.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No Colima ever had this key.
    UnknownKey {
        /// Line of the key, from 1.
        line: u64,
        /// The key, with dots between levels.
        key: String,
        /// The key that was probably meant.
        meant: Option<String>,
    },
    /// The value is not of the key's kind.
    WrongValue {
        /// Line of the value, from 1.
        line: u64,
        /// The key, with dots between levels.
        key: String,
        /// What it takes.
        wanted: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { line, key, meant } => {
                write!(f, "line {line}: unknown key {key:?}")?;
                match meant {
                    Some(meant) => write!(f, ", did you mean {meant:?}?"),
                    None => Ok(()),
                }
            }
            Self::WrongValue { line, key, wanted } => write!(f, "line {line}: {key}: {wanted}"),
        }
    }
}

impl ConfigFile {
    /// Reads the text of a `colima.yaml`. An empty one says nothing.
    ///
    /// # Errors
    ///
    /// The place and reason where it is no YAML; otherwise all keys and values that mean nothing. Limits
    /// are not checked here but in [`Config::merge`](super::Config::merge).
    pub fn parse(text: &str) -> Result<Self, ParseConfigError> {
        let root = Node::parse(text).map_err(|error| ParseConfigError::Syntax {
            line: error.line,
            column: error.column,
            reason: error.reason,
        })?;
        let mut reader = Reader {
            text,
            file: Self::default(),
            problems: Vec::new(),
        };
        reader.section("", ROOT, &root);
        if reader.problems.is_empty() {
            Ok(reader.file)
        } else {
            Err(ParseConfigError::Problems(reader.problems))
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    file: ConfigFile,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn wrong(&mut self, node: &Node, key: &str, wanted: impl Into<String>) {
        self.problems.push(Problem::WrongValue {
            line: node.line,
            key: key.to_owned(),
            wanted: wanted.into(),
        });
    }

    /// The entries of a map; nothing where the value is empty, a problem where it is something else.
    fn entries<'n>(&mut self, key: &str, node: &'n Node) -> &'n [Entry] {
        match &node.content {
            Content::Map(entries) => entries,
            Content::Null => &[],
            _ => {
                let key = if key.is_empty() { "the document" } else { key };
                self.wrong(node, key, "it takes keys with values, such as cpu: 2");
                &[]
            }
        }
    }

    fn section(&mut self, path: &str, known: &'static [Key], node: &Node) {
        for entry in self.entries(path, node) {
            let key = join(path, &entry.key);
            let Some(found) = known.iter().find(|known| known.name == entry.key) else {
                self.unknown(entry, path, known);
                continue;
            };
            match found.role {
                Role::Acted(..) => self.setting(&key, &entry.value),
                Role::Known(standing, _, default) => {
                    let value = entry.value.to_json();
                    if !default.is(&value) {
                        self.note(entry, key.clone(), value.to_string(), standing);
                    }
                    self.other(key, value);
                }
                Role::Section(below) => self.section(&key, below, &entry.value),
                Role::Items(below) => {
                    self.items(&key, &entry.value, below);
                    self.list(&key, &entry.value);
                }
            }
        }
    }

    /// What a key without effect says, for those who show it. An empty value says nothing.
    fn other(&mut self, key: String, value: serde_json::Value) {
        if !value.is_null() {
            self.file.others.insert(key, value);
        }
    }

    /// Checks the keys of a list of maps.
    fn items(&mut self, key: &str, node: &Node, below: &'static [Key]) {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            Content::Null => &[],
            _ => {
                self.wrong(node, key, "it takes a list");
                &[]
            }
        };
        for item in items {
            for field in self.entries(key, item) {
                if !below.iter().any(|known| known.name == field.key) {
                    self.unknown(field, key, below);
                }
            }
        }
    }

    /// A list whose keys were looked at.
    fn list(&mut self, key: &str, node: &Node) {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            // The one key for which to be empty is to say something: to Colima a missing list is no list.
            Content::Null if key == "mounts" => {
                self.file.settings.mounts = Some(Mounts::None);
                return;
            }
            _ => return,
        };
        match key {
            "provision" => self.file.settings.provision = Some(self.scripts(key, items)),
            "mounts" if items.is_empty() => {}
            "mounts" => {
                self.file.settings.mounts = Some(Mounts::These(self.mounts(key, items)));
            }
            _ => unreachable!("the table of known keys marks {key} as a list that is acted on"),
        }
    }

    /// Each has a location.
    fn mounts(&mut self, key: &str, items: &[Node]) -> Vec<MountEntry> {
        let mut mounts = Vec::new();
        for item in items {
            let mut word =
                |name: &str| field(item, name).and_then(|node| self.word(&join(key, name), node));
            let (location, mount_point) = (word("location"), word("mountPoint"));
            let writable = field(item, "writable")
                .and_then(|node| self.truth(&join(key, "writable"), node))
                .unwrap_or(false);
            match location {
                Some(location) => mounts.push(MountEntry {
                    location,
                    mount_point,
                    writable,
                }),
                None => self.wrong(item, key, "each takes a location, a directory of this host"),
            }
        }
        mounts
    }

    /// One without text says nothing.
    fn scripts(&mut self, key: &str, items: &[Node]) -> Vec<Provision> {
        let mut scripts = Vec::new();
        for item in items {
            let mode = match field(item, "mode") {
                // Lima's default, which Colima hands on.
                None => Some(ProvisionMode::System),
                Some(node) => {
                    let word = node.scalar_text(self.text).unwrap_or_default();
                    let mode = word.parse().ok();
                    if mode.is_none() {
                        let wanted = format!("it takes {}", ProvisionMode::WORDS.join(", "));
                        self.wrong(node, &join(key, "mode"), wanted);
                    }
                    mode
                }
            };
            let script =
                field(item, "script").and_then(|node| self.word(&join(key, "script"), node));
            if let (Some(mode), Some(script)) = (mode, script) {
                scripts.push(Provision { mode, script });
            }
        }
        scripts
    }

    fn note(&mut self, entry: &Entry, key: String, value: String, standing: Standing) {
        self.file.not_acted_on.push(NotActedOn {
            key,
            value,
            line: entry.line,
            standing,
        });
    }

    fn unknown(&mut self, entry: &Entry, path: &str, known: &'static [Key]) {
        let names = known.iter().map(|key| key.name);
        self.problems.push(Problem::UnknownKey {
            line: entry.line,
            key: join(path, &entry.key),
            meant: nearest(&entry.key, names).map(|meant| join(path, meant)),
        });
    }

    /// A value that is acted on. An empty one says nothing.
    fn setting(&mut self, key: &str, node: &Node) {
        if matches!(node.content, Content::Null) {
            return;
        }
        match key {
            "cpu" => self.file.settings.cpus = self.number(key, node),
            "memory" => self.file.settings.memory = self.size(key, node),
            "disk" => self.file.settings.disk = self.size(key, node),
            "rootDisk" => self.file.settings.root_disk = self.size(key, node),
            "runtime" => self.file.settings.runtime = self.word(key, node),
            "hostname" => self.file.settings.hostname = self.word(key, node),
            "autoActivate" => self.file.settings.auto_activate = self.truth(key, node),
            "portForwarder" => match self.word(key, node).as_deref() {
                Some("ssh" | "grpc") => {
                    self.file.settings.port_forwarder = Some(PortForwarder::On);
                }
                Some("none") => self.file.settings.port_forwarder = Some(PortForwarder::Off),
                Some(_) => self.wrong(node, key, "it takes ssh, grpc or none"),
                None => {}
            },
            "stopMode" => match self.word(key, node).as_deref() {
                Some("suspend") => self.file.settings.stop_mode = Some(StopMode::Suspend),
                Some("shutdown") => self.file.settings.stop_mode = Some(StopMode::Shutdown),
                Some(_) => self.wrong(node, key, "it takes suspend or shutdown"),
                None => {}
            },
            "network.portBind" => {
                if let Some(word) = self.word(key, node) {
                    match addresses(&word) {
                        Some(addresses) => self.file.settings.port_bind = Some(addresses),
                        None => self.wrong(
                            node,
                            key,
                            "it takes an address such as 127.0.0.1, or all for every address",
                        ),
                    }
                }
            }
            "forwardAgent" => self.file.settings.forward_agent = self.truth(key, node),
            "sshConfig" => self.file.settings.ssh_config = self.truth(key, node),
            "sshPort" => self.file.settings.ssh_port = self.number(key, node),
            "transport" => {
                if let Some(word) = self.word(key, node) {
                    self.file.settings.transport = Transport::of(&word);
                    if self.file.settings.transport.is_none() {
                        self.wrong(node, key, "it takes auto, virtio or ssh");
                    }
                }
            }
            "certificates" => self.file.settings.certificates = self.texts(key, node),
            "protect" => self.file.settings.protect = self.texts(key, node).map(Protect::of),
            "nerdctl.path" => self.file.settings.nerdctl_path = self.word(key, node),
            "nerdctl.digest" => self.file.settings.nerdctl_digest = self.word(key, node),
            "env" => self.file.settings.env = self.variables(key, node),
            "network.dns" => self.file.settings.dns = self.addresses(key, node),
            "network.dnsHosts" => {
                self.file.settings.dns_hosts = Some(self.variables(key, node));
            }
            "docker" => match node.to_json() {
                serde_json::Value::Object(map) => self.file.settings.docker = Some(map),
                _ => self.wrong(
                    node,
                    key,
                    "it takes keys with values of docker's daemon.json",
                ),
            },
            "arch" => {
                // `host` is how Colima spells its default.
                if let Some(name) = self.word(key, node).filter(|name| name != "host") {
                    match name.parse() {
                        Ok(arch) => self.file.settings.arch = Some(arch),
                        Err(_) => self.wrong(node, key, "it takes host, x86_64 or aarch64"),
                    }
                }
            }
            _ => unreachable!("the table of known keys marks {key} as acted on"),
        }
    }

    fn number(&mut self, key: &str, node: &Node) -> Option<u32> {
        let number = match &node.content {
            Content::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => None,
        };
        if number.is_none() {
            self.wrong(node, key, "it takes a whole number");
        }
        number
    }

    fn size(&mut self, key: &str, node: &Node) -> Option<Bytes> {
        let size = node
            .scalar_text(self.text)
            .and_then(|text| text.parse().ok());
        if size.is_none() {
            self.wrong(
                node,
                key,
                "it takes a number of GiB such as 2 or 2.5, or a size with its unit such as 512MiB",
            );
        }
        size
    }

    /// A text that is not empty; an empty one says nothing.
    fn word(&mut self, key: &str, node: &Node) -> Option<String> {
        match node.scalar_text(self.text) {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => {
                self.wrong(node, key, "it takes a text");
                None
            }
        }
    }

    fn truth(&mut self, key: &str, node: &Node) -> Option<bool> {
        match node.content {
            Content::Bool(value) => Some(value),
            _ => {
                self.wrong(node, key, "it takes true or false");
                None
            }
        }
    }

    /// Addresses in a list, or one alone.
    fn addresses(&mut self, key: &str, node: &Node) -> Option<Vec<IpAddr>> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let text = self.text;
        let addresses: Option<Vec<IpAddr>> = items
            .iter()
            .map(|item| item.scalar_text(text)?.parse().ok())
            .collect();
        if addresses.is_none() {
            self.wrong(node, key, "it takes a list of addresses, such as [1.1.1.1]");
        }
        addresses
    }

    /// Texts in a list, or one alone.
    fn texts(&mut self, key: &str, node: &Node) -> Option<Vec<String>> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let text = self.text;
        let texts: Option<Vec<String>> = items.iter().map(|item| item.scalar_text(text)).collect();
        if texts.is_none() {
            self.wrong(node, key, "it takes a list of texts");
        }
        texts
    }

    fn variables(&mut self, key: &str, node: &Node) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for entry in self.entries(key, node) {
            let value = match entry.value.content {
                Content::Null => Some(String::new()),
                _ => entry.value.scalar_text(self.text),
            };
            match value {
                Some(value) => {
                    variables.insert(entry.key.clone(), value);
                }
                None => {
                    let key = join(key, &entry.key);
                    self.wrong(&entry.value, &key, "a variable takes a text");
                }
            }
        }
        variables
    }
}

/// What stands below a key of an item; an empty value is none.
fn field<'n>(item: &'n Node, name: &str) -> Option<&'n Node> {
    let Content::Map(fields) = &item.content else {
        return None;
    };
    fields
        .iter()
        .find(|field| field.key == name)
        .map(|field| &field.value)
        .filter(|value| !matches!(value.content, Content::Null))
}

/// `all`, or one address.
fn addresses(word: &str) -> Option<Vec<IpAddr>> {
    match word {
        "all" => Some(vec![
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
        ]),
        address => Some(vec![address.parse().ok()?]),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
