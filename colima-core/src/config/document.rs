//! A YAML document as a tree that remembers where everything stands in the text.

use std::{fmt, ops::Range};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// One node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Line of the node's beginning, from 1.
    pub(super) line: u64,
    /// Bytes of a scalar, quotes included; of no use for lists and maps.
    pub(super) span: Range<usize>,
}

/// What a node holds. Numbers keep their spelling, so that `1.10` stays `1.10`.
#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key, from 1.
    pub(super) line: u64,
    /// Bytes of the key.
    pub(super) span: Range<usize>,
    pub(super) value: Node,
}

/// A text that is not one YAML document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) reason: String,
}

impl Node {
    /// Reads `text`, which holds at most one document; an empty one is [`Content::Null`].
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        match serde_saphyr::from_str::<Spanned<Raw>>(text) {
            Ok(raw) => Ok(Self::from_raw(raw)),
            Err(error) => {
                let error = error.without_snippet();
                let (line, column) = error
                    .location()
                    .map_or((1, 1), |place| (place.line(), place.column()));
                let place = format!(" at line {line}, column {column}");
                let reason = error.to_string().replace(&place, "");
                // The library's advice names options that only programmers have.
                let reason = match reason.split_once(", set DuplicateKeyPolicy") {
                    Some((reason, _)) => reason.to_owned(),
                    None => match reason.split_once("; use from_str_multiple") {
                        Some((reason, _)) => reason.to_owned(),
                        None => reason,
                    },
                };
                Err(SyntaxError {
                    line,
                    column,
                    reason,
                })
            }
        }
    }

    fn from_raw(raw: Spanned<Raw>) -> Self {
        Self {
            line: raw.referenced.line(),
            span: bytes_of(&raw.defined),
            content: match raw.value {
                Raw::Null => Content::Null,
                Raw::Bool(value) => Content::Bool(value),
                Raw::Number(value) => Content::Number(value),
                Raw::Text(value) => Content::Text(value),
                Raw::List(nodes) => Content::List(nodes.into_iter().map(Self::from_raw).collect()),
                Raw::Map(entries) => Content::Map(
                    entries
                        .into_iter()
                        .map(|(key, value)| Entry {
                            line: key.referenced.line(),
                            span: bytes_of(&key.defined),
                            key: key.value,
                            value: Self::from_raw(value),
                        })
                        .collect(),
                ),
            },
        }
    }

    /// The text of a scalar: what a string says, and how a number or truth value is spelled.
    pub(super) fn scalar_text(&self, text: &str) -> Option<String> {
        match &self.content {
            Content::Text(value) => Some(value.clone()),
            Content::Bool(_) | Content::Number(_) => {
                text.get(self.span.clone()).map(ToOwned::to_owned)
            }
            Content::Null | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The node as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Null => serde_json::Value::Null,
            Content::Bool(value) => (*value).into(),
            Content::Number(value) => value.clone().into(),
            Content::Text(value) => value.as_str().into(),
            Content::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }
}

fn bytes_of(place: &serde_saphyr::Location) -> Range<usize> {
    let span = place.span();
    let number = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = number(span.byte_offset());
    start..start + number(span.byte_len())
}

enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        // The parser refuses infinities and NaN before they get here.
        Ok(serde_json::Number::from_f64(value).map_or(Raw::Null, Raw::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Raw::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = items.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
