//! What editors are told of a `colima.yaml`.

use colima_core::config::{Config, ConfigFile, TEMPLATE, explain, schema};
use serde_json::Value;

#[test]
fn the_schema() {
    insta::assert_json_snapshot!(schema());
}

/// The schema and the reader come from one table; this walks what the reader explains.
#[test]
fn every_key_that_is_explained_is_in_the_schema() {
    let none = ConfigFile::default();
    let schema = schema();
    let explained = explain(&Config::default(), &none, &none);
    assert!(explained.len() >= 40, "{}", explained.len());
    for key in explained {
        let at = key.key.replace('.', "/properties/");
        let property = schema.pointer(&format!("/properties/{at}"));
        let about = property.and_then(|property| property["description"].as_str());
        assert!(about.is_some(), "{}", key.key);
        let told = about.is_some_and(|about| {
            about.ends_with("Not available yet.") || about.ends_with("Has no effect here.")
        });
        assert_eq!(told, key.standing.is_some(), "{}", key.key);
    }
}

/// A small reading of the schema: kinds, words and closed maps, which is what it consists of.
fn refuses(schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{path}: {value} is not of {words:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let takes = |kind: &str| match &schema["type"] {
        Value::String(one) => one == kind,
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        _ => true,
    };
    let taken = takes(kind) || (kind == "integer" && takes("number"));
    if !taken {
        return Some(format!("{path}: {kind}"));
    }
    let below = |key: &str, value: &Value| match &schema["properties"][key] {
        Value::Null => match &schema["additionalProperties"] {
            Value::Bool(false) => Some(format!("{path}.{key} is unknown")),
            other => refuses(other, value, key),
        },
        property => refuses(property, value, &format!("{path}.{key}")),
    };
    match value {
        Value::Object(map) => map.iter().find_map(|(key, value)| below(key, value)),
        Value::Array(items) => items
            .iter()
            .find_map(|item| refuses(&schema["items"], item, path)),
        _ => None,
    }
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let samples = super::sample_configs::SAMPLES.iter().map(|(_, text)| *text);
    for text in samples.chain([TEMPLATE]) {
        let file = serde_saphyr::from_str::<Value>(text).unwrap();
        assert_eq!(refuses(&schema(), &file, ""), None);
    }
    for wrong in [
        "cpus: 4",
        "cpu: many",
        "network: {dnss: []}",
        "provision: [{mode: later}]",
        "runtime: podman",
    ] {
        let value = serde_saphyr::from_str::<Value>(wrong).unwrap();
        assert!(refuses(&schema(), &value, "").is_some(), "{wrong}");
        // The reader leaves the words of the runtime to the limits.
        assert!(
            ConfigFile::parse(wrong).is_err() || wrong.starts_with("runtime"),
            "{wrong}"
        );
    }
}
