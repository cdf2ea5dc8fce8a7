//! The JSON Schema of a `colima.yaml`, for editors that complete and check what is typed.

use serde_json::{Map, Value, json};

use super::known_keys::{Form, Key, ROOT, Role, Standing};

/// The JSON Schema (draft 7, which editors know) of a `colima.yaml`, from the table that also reads it.
#[must_use]
pub fn schema() -> Value {
    let mut schema = section(ROOT);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("colima.yaml");
    schema["description"] = json!("What a profile of Colima wants.");
    schema
}

/// An empty value is none, wherever it stands.
fn section(keys: &[Key]) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

fn property(key: &Key) -> Value {
    let (mut schema, default, standing) = match key.role {
        Role::Acted(form, default) => (value(form), default.to_json(), None),
        Role::Known(standing, form, default) => (value(form), default.to_json(), Some(standing)),
        Role::Section(below) => (section(below), Value::Null, None),
        Role::Items(below) => (items(below), json!([]), None),
    };
    let about = key.about;
    schema["description"] = match standing {
        None => json!(about),
        Some(Standing::NotYet) => json!(format!("{about} Not available yet.")),
        Some(Standing::DoesNotApply) => json!(format!("{about} Has no effect here.")),
    };
    if !default.is_null() {
        schema["default"] = default;
    }
    schema
}

fn items(below: &[Key]) -> Value {
    json!({ "type": ["array", "string", "null"], "items": section(below) })
}

fn value(form: Form) -> Value {
    match form {
        Form::Count => json!({ "type": ["integer", "null"], "minimum": 0 }),
        Form::Size => json!({
            "type": ["number", "string", "null"],
            "minimum": 0,
            "pattern": "^[0-9]+(\\.[0-9]{1,9})? *([kKmMgGtT]([iI]?[bB])?|[bB])?$",
        }),
        Form::Truth => json!({ "type": ["boolean", "null"] }),
        Form::Text => json!({ "type": ["string", "null"] }),
        Form::Choice(words) => {
            let mut words: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            words.push(Value::Null);
            json!({ "enum": words })
        }
        Form::Texts => json!({ "type": ["array", "null"], "items": { "type": "string" } }),
        Form::Variables => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
        }),
        Form::Map => json!({ "type": ["object", "null"] }),
    }
}
