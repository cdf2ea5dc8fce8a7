//! The meaning of a line, and the commands we send. No I/O.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A command, of the few that a machine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Ends the negotiation after the greeting; the client sends it itself.
    QmpCapabilities,
    /// Which QEMU is this?
    QueryVersion,
    /// Does the guest run?
    QueryStatus,
    /// How much memory has the guest, the balloon considered?
    QueryBalloon,
    /// How many processors has it?
    QueryCpusFast,
    /// Which disks are there?
    QueryNamedBlockNodes,
    /// What are the sockets connected to?
    QueryChardev,
    /// Let the guest's processors run.
    Cont,
    /// Stop the guest's processors.
    Stop,
    /// Press the ACPI power button.
    SystemPowerdown,
    /// Reset, which ends a machine of ours.
    SystemReset,
    /// End QEMU now, after flushing its disks.
    Quit,
    /// Interrupt the guest with an NMI, which makes a hung Linux report itself.
    InjectNmi,
    /// Ask the balloon for a memory size.
    Balloon {
        /// The guest's memory in bytes.
        bytes: u64,
    },
    /// Grow a disk under a running guest.
    BlockResize {
        /// Index of the disk in the specification.
        disk: usize,
        /// Its new size in bytes.
        bytes: u64,
    },
    /// Keep the descriptor that comes with the command under a name; see [`super::Client::execute_with`].
    GetFd {
        /// The name, which does not begin with a digit.
        name: &'static str,
    },
    /// Switch on what a migration can do besides.
    MigrateSetCapabilities {
        /// What is switched on.
        capabilities: &'static [MigrationCapability],
    },
    /// Let a migration take all there is.
    MigrateSetParameters {
        /// Bytes per second.
        max_bandwidth: u64,
    },
    /// Write memory and devices into a descriptor that was given a name.
    Migrate {
        /// The name.
        fd: &'static str,
    },
    /// Read them from there; the machine was started to wait for this.
    MigrateIncoming {
        /// The name.
        fd: &'static str,
    },
    /// How far is the migration?
    QueryMigrate,
    /// Give the migration up.
    MigrateCancel,
}

/// What a migration can do besides (`MigrationCapability` of QEMU's `qapi/migration.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationCapability {
    /// Tell of every step by [`Event::Migration`].
    Events,
    /// Leave the disks alone until the guest runs.
    LateBlockActivate,
}

/// How far a migration is (`MigrationStatus` of QEMU's `qapi/migration.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MigrationStatus {
    /// There was none.
    None,
    /// It is about to begin.
    Setup,
    /// It is under way.
    Active,
    /// It is being given up.
    Cancelling,
    /// It was given up.
    Cancelled,
    /// Everything is written, or read.
    Completed,
    /// It failed.
    Failed,
    /// Anything else; it is under way.
    #[serde(other)]
    Other,
}

/// The answer to [`Command::QueryMigrate`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrationInfo {
    /// How far it is.
    #[serde(default = "no_migration")]
    pub status: MigrationStatus,
    /// Why it failed.
    pub error_desc: Option<String>,
}

const fn no_migration() -> MigrationStatus {
    MigrationStatus::None
}

impl Command {
    /// QEMU's name of the command.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::QmpCapabilities => "qmp_capabilities",
            Self::QueryVersion => "query-version",
            Self::QueryStatus => "query-status",
            Self::QueryBalloon => "query-balloon",
            Self::QueryCpusFast => "query-cpus-fast",
            Self::QueryNamedBlockNodes => "query-named-block-nodes",
            Self::QueryChardev => "query-chardev",
            Self::Cont => "cont",
            Self::Stop => "stop",
            Self::SystemPowerdown => "system_powerdown",
            Self::SystemReset => "system_reset",
            Self::Quit => "quit",
            Self::InjectNmi => "inject-nmi",
            Self::Balloon { .. } => "balloon",
            Self::BlockResize { .. } => "block_resize",
            Self::GetFd { .. } => "getfd",
            Self::MigrateSetCapabilities { .. } => "migrate-set-capabilities",
            Self::MigrateSetParameters { .. } => "migrate-set-parameters",
            Self::Migrate { .. } => "migrate",
            Self::MigrateIncoming { .. } => "migrate-incoming",
            Self::QueryMigrate => "query-migrate",
            Self::MigrateCancel => "migrate_cancel",
        }
    }

    /// The line that carries the command, with its end.
    #[must_use]
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let mut message = json!({"execute": self.name(), "id": id});
        match self {
            Self::Balloon { bytes } => message["arguments"] = json!({"value": bytes}),
            Self::BlockResize { disk, bytes } => {
                message["arguments"] = json!({"node-name": format!("disk{disk}"), "size": bytes});
            }
            Self::GetFd { name } => message["arguments"] = json!({"fdname": name}),
            Self::MigrateSetCapabilities { capabilities } => {
                let states = capabilities
                    .iter()
                    .map(|c| json!({"capability": c, "state": true}));
                message["arguments"] = json!({"capabilities": states.collect::<Vec<_>>()});
            }
            Self::MigrateSetParameters { max_bandwidth } => {
                message["arguments"] = json!({"max-bandwidth": max_bandwidth});
            }
            Self::Migrate { fd } | Self::MigrateIncoming { fd } => {
                message["arguments"] = json!({"uri": format!("fd:{fd}")});
            }
            _ => {}
        }
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// What QEMU says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Major, minor and micro version.
    pub version: (u32, u32, u32),
    /// What the distribution calls its build; may be empty.
    pub package: String,
}

/// A line from QEMU.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The greeting.
    Greeting(Greeting),
    /// A command succeeded.
    Return {
        /// The id of the command.
        id: u64,
        /// Its result.
        value: Value,
    },
    /// A command failed.
    Failure {
        /// The id of the command; `None` when QEMU could not read the command.
        id: Option<u64>,
        /// Class of the error.
        class: String,
        /// Sentence for people.
        description: String,
    },
    /// Something happened.
    Event(Event),
    /// Nothing that the protocol knows.
    Garbage,
}

/// Something that happened to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The machine ends.
    Shutdown {
        /// Whether the guest asked for it.
        origin: Origin,
        /// Why.
        reason: ShutdownReason,
    },
    /// The power button was pressed.
    Powerdown,
    /// The machine was reset.
    Reset,
    /// The guest's processors stopped.
    Stop,
    /// The guest's processors run again.
    Resume,
    /// The guest's kernel panicked, said by its driver of the panic notifier.
    GuestPanicked,
    /// A disk had an I/O error on the host's side.
    BlockIoError {
        /// Node name of the disk, `diskN`.
        node: String,
        /// `read` or `write`.
        operation: String,
        /// The error for people, such as `No space left on device`.
        reason: String,
        /// Whether it was for want of room; QEMU stops the guest then (`werror=enospc`, its default).
        room: Room,
    },
    /// The guest opened or closed its end of a stream port.
    PortChange {
        /// QEMU's id of the port's device or of its socket; often empty.
        id: String,
        /// Whether the guest has it open.
        open: bool,
    },
    /// A migration went a step further; told once [`MigrationCapability::Events`] is on.
    Migration {
        /// How far it is.
        status: MigrationStatus,
    },
    /// Any other event.
    Other {
        /// QEMU's name of it.
        name: String,
    },
}

/// Room on the host's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is none.
    None,
    /// That is not the trouble.
    Some,
}

/// Who ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The guest, by powering off, resetting or panicking.
    Guest,
    /// The host.
    Host,
}

/// Why a machine ended (`ShutdownCause` of QEMU's `qapi/run-state.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// The guest powered off.
    GuestShutdown,
    /// The guest reset; a machine of ours ends then.
    GuestReset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// `quit` on the control channel.
    HostQuit,
    /// `system_reset` on the control channel.
    HostReset,
    /// A signal to QEMU.
    HostSignal,
    /// An error in QEMU.
    HostError,
    /// Anything else.
    Other,
}

/// The answer to [`Command::QueryStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Whether the guest's processors run.
    pub running: bool,
    /// What the machine does.
    pub status: RunState,
}

/// What a machine does (`RunState` of QEMU's `qapi/run-state.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunState {
    /// The guest runs.
    Running,
    /// Stopped by a command.
    Paused,
    /// Never started.
    Prelaunch,
    /// The guest's kernel panicked.
    GuestPanicked,
    /// A disk error stopped the guest.
    IoError,
    /// QEMU hit an error it cannot go on from.
    InternalError,
    /// The guest has powered off.
    Shutdown,
    /// A saved state is awaited or being loaded.
    #[serde(rename = "inmigrate")]
    Loading,
    /// The last of a state is being saved.
    #[serde(rename = "finish-migrate")]
    Saving,
    /// A state was saved: what runs on from here is not what the state is of.
    #[serde(rename = "postmigrate")]
    Saved,
    /// Anything else.
    #[serde(other)]
    Other,
}

impl Message {
    /// Gives a line its meaning. Never fails: what cannot be read is [`Message::Garbage`].
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(line) else {
            return Self::Garbage;
        };
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(value) = object.get("return") {
            return match id {
                Some(id) => Self::Return {
                    id,
                    value: value.clone(),
                },
                None => Self::Garbage,
            };
        }
        if let Some(error) = object.get("error") {
            return Self::Failure {
                id,
                class: text(error, "class"),
                description: text(error, "desc"),
            };
        }
        if let Some(Value::String(name)) = object.get("event") {
            let data = object.get("data").unwrap_or(&Value::Null);
            return Self::Event(Event::parse(name, data));
        }
        match object.get("QMP").map(|qmp| &qmp["version"]) {
            Some(version) => Self::Greeting(Greeting {
                version: (
                    number(&version["qemu"]["major"]),
                    number(&version["qemu"]["minor"]),
                    number(&version["qemu"]["micro"]),
                ),
                package: text(version, "package"),
            }),
            None => Self::Garbage,
        }
    }
}

impl Event {
    fn parse(name: &str, data: &Value) -> Self {
        match name {
            "SHUTDOWN" => Self::Shutdown {
                origin: match data["guest"].as_bool() {
                    Some(true) => Origin::Guest,
                    _ => Origin::Host,
                },
                reason: ShutdownReason::parse(&text(data, "reason")),
            },
            "POWERDOWN" => Self::Powerdown,
            "RESET" => Self::Reset,
            "STOP" => Self::Stop,
            "RESUME" => Self::Resume,
            "GUEST_PANICKED" => Self::GuestPanicked,
            "BLOCK_IO_ERROR" => Self::BlockIoError {
                node: text(data, "node-name"),
                operation: text(data, "operation"),
                reason: text(data, "reason"),
                room: match data["nospace"].as_bool() {
                    Some(true) => Room::None,
                    _ => Room::Some,
                },
            },
            "VSERPORT_CHANGE" => Self::PortChange {
                id: text(data, "id"),
                open: data["open"].as_bool() == Some(true),
            },
            "MIGRATION" => Self::Migration {
                status: MigrationStatus::deserialize(&data["status"])
                    .unwrap_or(MigrationStatus::Other),
            },
            _ => Self::Other {
                name: name.to_owned(),
            },
        }
    }
}

impl ShutdownReason {
    fn parse(name: &str) -> Self {
        match name {
            "guest-shutdown" => Self::GuestShutdown,
            "guest-reset" | "subsystem-reset" => Self::GuestReset,
            "guest-panic" => Self::GuestPanic,
            "host-qmp-quit" => Self::HostQuit,
            "host-qmp-system-reset" => Self::HostReset,
            "host-signal" => Self::HostSignal,
            "host-error" => Self::HostError,
            _ => Self::Other,
        }
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_real_qemu_says() {
        let lines = include_str!("transcript.jsonl");
        let messages: Vec<Message> = lines
            .lines()
            .map(|l| Message::parse(l.as_bytes()))
            .collect();
        insta::assert_debug_snapshot!(messages);
    }

    #[test]
    fn what_the_protocol_does_not_know() {
        for line in [
            "",
            "null",
            "[]",
            "{}",
            "{\"return\":1}",
            "{\"return\":{},\"id\":\"7\"}",
            "{\"event\":7}",
            "{\"return\":{},\"id\":-1}",
            "\u{feff}{}",
            "{\"return\":",
        ] {
            assert_eq!(Message::parse(line.as_bytes()), Message::Garbage, "{line}");
        }
        assert_eq!(Message::parse(b"{\"event\":\"\xc3\"}"), Message::Garbage);
    }

    #[test]
    fn commands_are_one_line() {
        let resize = Command::BlockResize { disk: 1, bytes: 7 }.encode(3);
        let resize = String::from_utf8(resize).unwrap();
        assert_eq!(resize.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&resize).unwrap();
        assert_eq!(
            value,
            json!({"execute": "block_resize", "id": 3, "arguments": {"node-name": "disk1", "size": 7}})
        );
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Message::parse(&line);
        }

        #[test]
        fn any_event_is_answered(name in "[A-Z_]{1,20}", data in "[ -~]{0,40}") {
            let line = json!({"event": name, "data": data}).to_string();
            prop_assert!(matches!(Message::parse(line.as_bytes()), Message::Event(_)));
        }
    }
}
