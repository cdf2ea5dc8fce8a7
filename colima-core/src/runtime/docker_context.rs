//! The docker CLI's context store, as text.
//!
//! A context is a file `contexts/meta/<digest of the name>/meta.json` below the docker CLI's directory; the
//! current one is named by `currentContext` of its `config.json` (docker/cli, `cli/context/store`).

use std::{fmt, path::Path};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};

/// The context that always exists; `config.json` never names it.
pub const DEFAULT: &str = "default";

/// The path of a context's file below the docker CLI's directory.
#[must_use]
pub fn meta_path(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("contexts/meta/{hex}/meta.json")
}

/// The text of a context's file: a docker daemon behind a unix socket.
#[must_use]
pub fn meta_json(name: &str, description: &str, socket: &Path) -> String {
    json!({
        "Name": name,
        "Metadata": { "Description": description },
        "Endpoints": {
            "docker": { "Host": format!("unix://{}", socket.display()), "SkipTLSVerify": false },
        },
    })
    .to_string()
}

/// A `config.json` that is no JSON object; it is left alone.
#[derive(Debug, thiserror::Error)]
#[error("the docker configuration is not a JSON object")]
pub struct ParseDockerConfigError(#[from] serde_json::Error);

/// The current context that a `config.json` names; `None` is docker's default. An empty text names none.
///
/// # Errors
///
/// The text is not a JSON object.
pub fn current(config: &str) -> Result<Option<String>, ParseDockerConfigError> {
    let object = Object::parse(config)?;
    let Some((_, value)) = object.0.iter().find(|(key, _)| key == CURRENT) else {
        return Ok(None);
    };
    let name: String = serde_json::from_str(value.get())?;
    Ok(Some(name).filter(|name| !name.is_empty() && name != DEFAULT))
}

/// The text of a `config.json` with another current context; `None` is docker's default.
///
/// Every other key keeps its place and its value's exact text; the first level is laid out as the
/// docker CLI does.
///
/// # Errors
///
/// The text is not a JSON object.
pub fn with_current(config: &str, name: Option<&str>) -> Result<String, ParseDockerConfigError> {
    let mut object = Object::parse(config)?;
    let name = name.filter(|name| *name != DEFAULT);
    match (object.0.iter().position(|(key, _)| key == CURRENT), name) {
        (Some(at), Some(name)) => object.0[at].1 = raw(name)?,
        (None, Some(name)) => object.0.push((CURRENT.to_owned(), raw(name)?)),
        (Some(at), None) => {
            object.0.remove(at);
        }
        (None, None) => {}
    }
    let members: Vec<String> = object
        .0
        .iter()
        .map(|(key, value)| format!("\t{}: {value}", json!(key)))
        .collect();
    Ok(if members.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{\n{}\n}}", members.join(",\n"))
    })
}

/// What to say when the environment overrides our context, if it does.
///
/// `name` is our context and `socket` its docker socket.
#[must_use]
pub fn overridden(
    docker_host: Option<&str>,
    docker_context: Option<&str>,
    name: &str,
    socket: &Path,
) -> Option<String> {
    let ours = format!("unix://{}", socket.display());
    match (docker_host, docker_context) {
        // The docker CLI looks at DOCKER_HOST first.
        (Some(host), _) if host != ours => Some(format!(
            "DOCKER_HOST is set to {host}, so docker does not use the context {name}; \
             to change that: unset DOCKER_HOST"
        )),
        (None, Some(context)) if context != name => Some(format!(
            "DOCKER_CONTEXT is set to {context}, so docker does not use the context {name}; \
             to change that: unset DOCKER_CONTEXT"
        )),
        _ => None,
    }
}

const CURRENT: &str = "currentContext";

fn raw(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(json!(text).to_string())
}

/// The members of an object in their order, each value as it is spelled.
struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    fn parse(text: &str) -> Result<Self, ParseDockerConfigError> {
        if text.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        Ok(serde_json::from_str(text)?)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_the_docker_clis() {
        assert_eq!(
            meta_path("colima-x"),
            "contexts/meta/3959501fb6ba6e316183d7b40be637ebb4b60c4b19876aa906fe90cc0fbf5401/meta.json"
        );
        insta::assert_snapshot!(
            meta_json("colima-x", "colima [profile=x]", Path::new("/h/x/docker.sock")),
            @r#"{"Endpoints":{"docker":{"Host":"unix:///h/x/docker.sock","SkipTLSVerify":false}},"Metadata":{"Description":"colima [profile=x]"},"Name":"colima-x"}"#
        );
    }

    #[test]
    fn only_the_current_context_changes() {
        let config = "{\n\t\"auths\": {\n\t\t\"r\": {}\n\t},\n\t\"z\": 1.50,\n\t\"a\": 12345678901234567890123\n}";
        let ours = with_current(config, Some("colima")).unwrap();
        assert_eq!(
            ours,
            config.replace("123\n}", "123,\n\t\"currentContext\": \"colima\"\n}")
        );
        assert_eq!(current(&ours).unwrap().as_deref(), Some("colima"));
        assert_eq!(with_current(&ours, None).unwrap(), config);
        assert_eq!(with_current(&ours, Some("default")).unwrap(), config);
        assert_eq!(
            with_current(&ours, Some("other")).unwrap(),
            ours.replace("colima", "other")
        );
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(current("").unwrap(), None);
        assert_eq!(current("{}").unwrap(), None);
        assert_eq!(current(r#"{"currentContext":""}"#).unwrap(), None);
        assert_eq!(with_current("", None).unwrap(), "{}");
        for text in ["[]", "{", "null", "{\"currentContext\": 7}"] {
            assert!(current(text).is_err(), "{text}");
        }
        assert!(with_current("{,}", Some("x")).is_err());
    }

    #[test]
    fn what_overrides_us_is_pointed_out() {
        let said = |host, context| overridden(host, context, "colima", Path::new("/h/docker.sock"));
        assert_eq!(said(None, None), None);
        assert_eq!(said(Some("unix:///h/docker.sock"), Some("other")), None);
        assert_eq!(said(None, Some("colima")), None);
        assert!(
            said(Some("tcp://x:1"), None)
                .unwrap()
                .contains("unset DOCKER_HOST")
        );
        assert!(
            said(None, Some("x"))
                .unwrap()
                .contains("unset DOCKER_CONTEXT")
        );
    }
}
