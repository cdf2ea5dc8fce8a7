//! What `status` and `list` print, for people and for programs.
//!
//! The JSON has Colima's keys and values, and a `state` that says more than Colima's `status` can.

use std::{
    fmt::{self, Write},
    path::PathBuf,
};

use colima_core::{Arch, Bytes, boot::Runtime, mounts::MountAccess};
use serde_json::{Map, Value, json};

use crate::{
    instance::{PortReport, Problem},
    mounts::MountHealth,
};

/// Version of the JSON of `status` and `list`. It grows when a key goes or changes its meaning; one more key is no
/// new version.
pub const SCHEMA_VERSION: u32 = 1;

/// The state of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// On its way up.
    Starting,
    /// Everything answers.
    Running,
    /// The machine runs, and something does not answer.
    Degraded,
    /// On its way down.
    Stopping,
    /// Nothing runs.
    Stopped,
    /// Nothing runs, and the next start goes on from where it was stopped.
    Suspended,
    /// It can neither run nor be started as it is.
    Broken,
}

impl State {
    /// The word in JSON, lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::Broken => "broken",
        }
    }

    /// The nearest of Colima's three words.
    #[must_use]
    pub const fn colima_word(self) -> &'static str {
        match self {
            Self::Running | Self::Degraded | Self::Stopping => "Running",
            Self::Starting | Self::Stopped | Self::Suspended => "Stopped",
            Self::Broken => "Broken",
        }
    }

    /// The state in a table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Degraded => "Degraded",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Suspended => "Suspended",
            Self::Broken => "Broken",
        }
    }
}

/// What `status` tells.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusReport {
    /// See [`colima_core::ProfileName::display_name`].
    pub display_name: String,
    /// The profile's state.
    pub state: State,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What runs the machine, such as `QEMU`, and how, such as `tcg`.
    pub driver: String,
    /// How processors are virtualised: `kvm`, `hvf`, `tcg`.
    pub accelerator: Option<String>,
    /// The guest's architecture.
    pub arch: Arch,
    /// The container runtime.
    pub runtime: Runtime,
    /// How host directories are shared; Colima's name.
    pub mount_type: Option<String>,
    /// An address of the guest that the host can reach.
    pub ip_address: Option<String>,
    /// The docker socket on the host.
    pub docker_socket: Option<PathBuf>,
    /// The containerd socket on the host.
    pub containerd_socket: Option<PathBuf>,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory: Bytes,
    /// Disk for images, containers, volumes.
    pub disk: Bytes,
    /// The guest's ports on the host; `None` where they are not forwarded.
    pub ports: Option<PortReport>,
    /// Directories of the host in the guest.
    pub mounts: Vec<MountHealth>,
}

/// How much `status` tells people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What runs.
    Brief,
    /// And its resources.
    Extended,
}

impl StatusReport {
    /// Lines for people, each ended.
    #[must_use]
    pub fn human(&self, detail: Detail) -> String {
        let mut rows = vec![("state", self.state.as_str().to_owned())];
        let driver = match &self.accelerator {
            Some(accelerator) => format!("{} ({accelerator})", self.driver),
            None => self.driver.clone(),
        };
        rows.push(("driver", driver));
        rows.push(("arch", self.arch.to_string()));
        rows.push(("runtime", self.runtime.as_str().to_owned()));
        let mut optional = |name, value: Option<String>| {
            if let Some(value) = value {
                rows.push((name, value));
            }
        };
        optional("mountType", self.mount_type.clone());
        optional("address", self.ip_address.clone());
        optional("docker socket", url(self.docker_socket.as_ref()));
        optional("containerd socket", url(self.containerd_socket.as_ref()));
        optional("ports", self.ports.as_ref().and_then(PortReport::brief));
        for mount in &self.mounts {
            rows.push(("mount", mount.brief()));
        }
        if detail == Detail::Extended {
            rows.push(("cpu", self.cpus.to_string()));
            rows.push(("mem", self.memory.to_string()));
            rows.push(("disk", self.disk.to_string()));
        }
        let mut text = format!("{}\n", escaped(&self.display_name));
        for (name, value) in rows {
            push(&mut text, format_args!("  {name}: {}\n", escaped(&value)));
        }
        let ports = self.ports.iter();
        for conflict in ports.flat_map(|ports| &ports.conflicts) {
            push(
                &mut text,
                format_args!("  port conflict: {}\n", escaped(conflict)),
            );
        }
        for Problem { what, hint } in &self.problems {
            push(&mut text, format_args!("  problem: {}\n", escaped(what)));
            push(&mut text, format_args!("    hint: {}\n", escaped(hint)));
        }
        text
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("schema_version", json!(SCHEMA_VERSION));
        put("display_name", json!(self.display_name));
        put("driver", json!(self.driver));
        put("arch", json!(self.arch));
        put("runtime", json!(self.runtime.as_str()));
        put(
            "mount_type",
            json!(self.mount_type.as_deref().unwrap_or("")),
        );
        if let Some(address) = &self.ip_address {
            put("ip_address", json!(address));
        }
        for (key, socket) in [
            ("docker_socket", &self.docker_socket),
            ("containerd_socket", &self.containerd_socket),
        ] {
            if let Some(url) = url(socket.as_ref()) {
                put(key, json!(url));
            }
        }
        put("kubernetes", json!(false));
        put("cpu", json!(self.cpus));
        put("memory", json!(self.memory));
        put("disk", json!(self.disk));
        put("state", json!(self.state.as_str()));
        if let Some(accelerator) = &self.accelerator {
            put("accelerator", json!(accelerator));
        }
        if let Some(ports) = &self.ports {
            put("ports", json!(ports.open));
            put("port_conflicts", json!(ports.conflicts));
        }
        let mounts: Vec<Value> = self.mounts.iter().map(object_of).collect();
        put("mounts", json!(mounts));
        put("problems", json!(self.problems));
        format!("{}\n", Value::Object(object))
    }
}

/// What `status --json` says of a profile whose machine cannot be asked.
#[must_use]
pub fn at_rest_json(display_name: &str, state: State, problems: &[Problem]) -> String {
    let object = json!({
        "schema_version": SCHEMA_VERSION,
        "display_name": display_name,
        "state": state.as_str(),
        "problems": problems,
    });
    format!("{object}\n")
}

/// How a socket is told to its clients.
fn url(socket: Option<&PathBuf>) -> Option<String> {
    Some(format!("unix://{}", socket?.display()))
}

/// A line of `list`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListEntry {
    /// Short name of the profile.
    pub name: String,
    /// The profile's state.
    pub state: State,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The guest's architecture.
    pub arch: Arch,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory: Bytes,
    /// Disk for images, containers, volumes.
    pub disk: Bytes,
    /// The container runtime; `None` where nothing runs.
    pub runtime: Option<Runtime>,
    /// An address of the guest that the host can reach.
    pub address: Option<String>,
}

/// A table for people. Without profiles it is the heading alone.
#[must_use]
pub fn list_table(entries: &[ListEntry]) -> String {
    let heading = [
        "PROFILE", "STATUS", "ARCH", "CPUS", "MEMORY", "DISK", "RUNTIME", "ADDRESS",
    ];
    let mut rows = vec![heading.map(ToOwned::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            escaped(&entry.name),
            entry.state.title().to_owned(),
            entry.arch.to_string(),
            entry.cpus.to_string(),
            entry.memory.to_string(),
            entry.disk.to_string(),
            entry.runtime.map_or("", Runtime::as_str).to_owned(),
            escaped(entry.address.as_deref().unwrap_or_default()),
        ]
    }));
    aligned(&rows)
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        // Colima's distance between columns.
        widths.max().unwrap_or(0) + 4
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            push(&mut line, format_args!("{cell:width$}"));
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

impl PortReport {
    /// The open ports in one line, as far as one line goes.
    fn brief(&self) -> Option<String> {
        const MOST: usize = 8;
        let mut texts: Vec<String> = self
            .open
            .iter()
            .take(MOST)
            .map(|port| format!("{}/{}", port.host, port.protocol))
            .collect();
        if self.open.len() > MOST {
            texts.push(format!("and {} more", self.open.len() - MOST));
        }
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// A table of open ports for people. Without ports it is the heading alone.
#[must_use]
pub fn port_table(ports: &PortReport) -> String {
    let heading = ["HOST", "PROTOCOL", "GUEST", "CONTAINER"];
    let mut rows = vec![heading.map(ToOwned::to_owned)];
    rows.extend(ports.open.iter().map(|port| {
        [
            escaped(&port.host),
            escaped(&port.protocol),
            escaped(&port.guest),
            escaped(port.container.as_deref().unwrap_or_default()),
        ]
    }));
    aligned(&rows)
}

/// One JSON object per line and open port, then one per conflict.
#[must_use]
pub fn port_json(ports: &PortReport) -> String {
    let open = ports.open.iter().map(|port| json!(port));
    let conflicts = ports
        .conflicts
        .iter()
        .map(|conflict| json!({ "conflict": conflict }));
    open.chain(conflicts)
        .map(|object| format!("{object}\n"))
        .collect()
}

/// A table of the directories that are shared, its heading first.
#[must_use]
pub fn mount_table(mounts: &[MountHealth]) -> String {
    let heading = ["HOST", "MACHINE", "ACCESS", "STATE"];
    let mut rows = vec![heading.map(ToOwned::to_owned)];
    rows.extend(mounts.iter().map(|mount| {
        [
            escaped(&mount.share.location),
            escaped(&mount.share.guest.path),
            mount.access_word().to_owned(),
            mount.state_word().to_owned(),
        ]
    }));
    aligned(&rows)
}

/// One JSON object per line and directory.
#[must_use]
pub fn mount_json(mounts: &[MountHealth]) -> String {
    let lines = mounts.iter().map(|mount| format!("{}\n", object_of(mount)));
    lines.collect()
}

fn object_of(mount: &MountHealth) -> Value {
    json!({
        "location": mount.share.location,
        "mountPoint": mount.share.guest.path,
        "writable": mount.share.guest.access == MountAccess::ReadWrite,
        "state": mount.state_word(),
        "problem": mount.problem,
    })
}

/// One JSON object per line and profile.
#[must_use]
pub fn list_json(entries: &[ListEntry]) -> String {
    let mut lines = String::new();
    for entry in entries {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("schema_version", json!(SCHEMA_VERSION));
        put("name", json!(entry.name));
        put("status", json!(entry.state.colima_word()));
        put("arch", json!(entry.arch));
        put("cpus", json!(entry.cpus));
        put("memory", json!(entry.memory));
        put("disk", json!(entry.disk));
        if let Some(address) = &entry.address {
            put("address", json!(address));
        }
        if let Some(runtime) = entry.runtime {
            put("runtime", json!(runtime.as_str()));
        }
        put("state", json!(entry.state.as_str()));
        put("problems", json!(entry.problems));
        push(&mut lines, format_args!("{}\n", Value::Object(object)));
    }
    lines
}

/// `text` with control characters spelled out, newlines and tabs included: the guest cannot move the
/// cursor, colour a terminal or fake a line of ours.
#[must_use]
pub fn escaped(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| {
            if harmful(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

fn push(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}
