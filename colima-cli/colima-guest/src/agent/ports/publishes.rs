//! What docker says about published ports: its answers to `/containers/json`, `/containers/ID/json` and
//! `/events` (Docker Engine API 1.45), read without I/O.

use std::collections::{BTreeMap, BTreeSet};

use colima_core::ports::{Asked, GuestPort, Protocol, Publish};
use serde::Deserialize;

/// Characters of a container's name that are told to the host.
const LONGEST_NAME: usize = 128;

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerEvent {
    /// It started, or is in another network than before.
    Started(String),
    /// It ended.
    Ended(String),
}

/// The path that follows the events that matter here.
pub(super) const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%5D%7D";

/// Reads one line of `/events`; `None` for what does not matter or cannot be read.
pub(super) fn event(line: &[u8]) -> Option<ContainerEvent> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        r#type: String,
        action: String,
        actor: Actor,
    }
    #[derive(Deserialize)]
    struct Actor {
        #[serde(rename = "ID")]
        id: String,
    }
    let event: Event = serde_json::from_slice(line).ok()?;
    match (event.r#type.as_str(), event.action.as_str()) {
        ("container", "start") => Some(ContainerEvent::Started(event.actor.id)),
        ("container", "die") => Some(ContainerEvent::Ended(event.actor.id)),
        _ => None,
    }
}

/// The ids in the answer to `/containers/json`.
pub(super) fn ids(body: &[u8]) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(rename = "Id")]
        id: String,
    }
    let listed: Vec<Listed> = serde_json::from_slice(body).ok()?;
    Some(listed.into_iter().map(|one| one.id).collect())
}

/// Whether docker would take this as a container's id or name, and a path as one segment.
pub(super) fn is_reference(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// A container as docker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: String,
    /// Empty when it does not run.
    pub(super) ports: Vec<GuestPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    state: State,
    host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
}

/// Port and protocol, such as `80/tcp`, to the places on the host.
type Bindings = Option<BTreeMap<String, Option<Vec<Binding>>>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Bindings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    ports: Bindings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

/// Reads the answer to `/containers/ID/json`.
pub(super) fn describe(body: &[u8]) -> Option<Described> {
    let inspected: Inspected = serde_json::from_slice(body).ok()?;
    let mut ports = Vec::new();
    let asked_for = inspected.host_config.port_bindings.unwrap_or_default();
    let effective = inspected.network_settings.ports.unwrap_or_default();
    for (container_port, bindings) in effective.iter().filter(|_| inspected.state.running) {
        let protocol = match container_port.split_once('/') {
            Some((_, "tcp")) => Protocol::Tcp,
            Some((_, "udp")) => Protocol::Udp,
            _ => continue,
        };
        let asked_for = asked_for
            .get(container_port)
            .and_then(Option::as_deref)
            .unwrap_or_default();
        for binding in bindings.iter().flatten() {
            let (Ok(address), Ok(port @ 1..)) =
                (binding.host_ip.parse(), binding.host_port.parse())
            else {
                continue;
            };
            ports.push(GuestPort {
                protocol,
                address,
                port,
                published: Some(Publish {
                    container: inspected.id.clone(),
                    name: inspected
                        .name
                        .trim_start_matches('/')
                        .chars()
                        .take(LONGEST_NAME)
                        .collect(),
                    asked: asked(asked_for, &binding.host_ip, port),
                }),
            });
        }
    }
    Some(Described {
        id: inspected.id,
        ports,
    })
}

/// Whether the address of a publish was named. docker fills in its default where none was, and the
/// result looks the same.
fn asked(asked_for: &[Binding], address: &str, port: u16) -> Asked {
    let named = asked_for
        .iter()
        .any(|binding| binding.host_ip == address && takes(&binding.host_port, port));
    if named { Asked::Address } else { Asked::Port }
}

/// Whether what was asked for, a port, a range or nothing, may have become `port`.
fn takes(asked_for: &str, port: u16) -> bool {
    match asked_for.split_once('-') {
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        },
        None => matches!(asked_for, "" | "0") || asked_for.parse() == Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inspected(running: bool, asked_for: &str, effective: &str) -> Vec<u8> {
        format!(
            r#"{{"Id":"4a1b","Name":"/web","State":{{"Status":"x","Running":{running}}},
            "HostConfig":{{"NetworkMode":"bridge","PortBindings":{asked_for}}},
            "NetworkSettings":{{"Bridge":"","Ports":{effective}}}}}"#
        )
        .into_bytes()
    }

    fn shown(body: &[u8]) -> Vec<String> {
        let described = describe(body).unwrap();
        let line = |port: &GuestPort| {
            let publish = port.published.as_ref().unwrap();
            assert_eq!((&*publish.container, &*publish.name), ("4a1b", "web"));
            format!("{port} {:?}", publish.asked)
        };
        described.ports.iter().map(line).collect()
    }

    #[test]
    fn whether_an_address_was_asked_for() {
        let both = r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"443/tcp":null}"#;
        for (asked_for, effective, expected) in [
            // -p 8080:80
            (
                r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#,
                both,
                &["0.0.0.0:8080/tcp Port", "[::]:8080/tcp Port"][..],
            ),
            // -P, -p 80, a range
            ("{}", both, &["0.0.0.0:8080/tcp Port", "[::]:8080/tcp Port"]),
            (
                "null",
                both,
                &["0.0.0.0:8080/tcp Port", "[::]:8080/tcp Port"],
            ),
            (
                r#"{"80/tcp":[{"HostIp":"","HostPort":"8000-8100"}]}"#,
                both,
                &["0.0.0.0:8080/tcp Port", "[::]:8080/tcp Port"],
            ),
            // -p 0.0.0.0:8080:80
            (
                r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}"#,
                r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}"#,
                &["0.0.0.0:8080/tcp Address"],
            ),
            // -p 0.0.0.0::80 -p 9090:80
            (
                r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":""},{"HostIp":"","HostPort":"9090"}]}"#,
                r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"}]}"#,
                &["0.0.0.0:32768/tcp Address"],
            ),
            // -p 127.0.0.1:53:53/udp
            (
                r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}]}"#,
                r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"9/sctp":[{"HostIp":"0.0.0.0","HostPort":"9"}]}"#,
                &["127.0.0.1:53/udp Address"],
            ),
            // docker's setting `ip`
            (
                r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#,
                r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}"#,
                &["127.0.0.1:8080/tcp Port"],
            ),
        ] {
            let body = inspected(true, asked_for, effective);
            assert_eq!(shown(&body), expected, "{asked_for}");
        }
        assert_eq!(shown(&inspected(false, "{}", both)), [""; 0]);
    }

    #[test]
    fn what_docker_26_says() {
        let start = br#"{"status":"start","id":"4a1b","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"4a1b","Attributes":{"image":"busybox","name":"web"}},"scope":"local","time":1,"timeNano":1}"#;
        assert_eq!(event(start), Some(ContainerEvent::Started("4a1b".into())));
        let die = br#"{"Type":"container","Action":"die","Actor":{"ID":"4a1b","Attributes":{"exitCode":"137"}}}"#;
        assert_eq!(event(die), Some(ContainerEvent::Ended("4a1b".into())));
        let other = br#"{"Type":"container","Action":"exec_create: sh","Actor":{"ID":"4a1b"}}"#;
        assert_eq!(event(other), None);
        let list = br#"[{"Id":"4a1b","Names":["/web"]},{"Id":"77"}]"#;
        assert_eq!(
            ids(list).unwrap(),
            BTreeSet::from(["4a1b".to_owned(), "77".to_owned()])
        );
    }

    #[test]
    fn references() {
        for good in ["4a1b", "web-1", "a_b.c", "A"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "..",
            ".",
            "a/b",
            "a b",
            "a%2fb",
            "é",
            "a?b",
            &"a".repeat(256),
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            asked_for in "[0-9-]{0,12}",
            port: u16,
        ) {
            let _ = describe(&bytes);
            let _ = ids(&bytes);
            let _ = event(&bytes);
            let _ = takes(&asked_for, port);
        }
    }
}
