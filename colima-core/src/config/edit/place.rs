//! Where in the text a key is, or where it would be.

use std::ops::Range;

use super::{NewValue, scalar};
use crate::config::document::{Content, Entry, Node};

/// The place of one key.
#[derive(Debug)]
pub(super) enum Place {
    /// Between these bytes stands the value alone.
    Value(Range<usize>),
    /// The key has no value yet; it ends at this byte.
    NoValue(usize),
    /// These are the lines of the key and its list, without what is above and behind.
    Lines { lines: Range<usize>, key: String },
    /// Lines for these keys, each below the one before, go here.
    Missing {
        at: usize,
        indent: String,
        keys: Vec<String>,
    },
    /// The map on these bytes is empty, or no map at all; lines for these keys go below its line.
    Empty {
        map: Range<usize>,
        indent: String,
        keys: Vec<String>,
    },
    /// The map is written in braces, of which the last is this byte.
    Braces { end: usize, keys: Vec<String> },
}

/// A map and where its text ends.
struct Level<'n> {
    entries: &'n [Entry],
    end: usize,
}

impl Place {
    /// The place of the key at the end of the path; `None` where the text gives none.
    pub(super) fn find(text: &str, root: &Node, path: &[&str]) -> Option<Self> {
        let mut level = Level {
            entries: match &root.content {
                Content::Map(entries) => entries,
                Content::Null => &[],
                _ => return None,
            },
            end: text.len(),
        };
        for (depth, key) in path.iter().enumerate() {
            let below: Vec<String> = path[depth..].iter().map(|key| scalar(key)).collect();
            let Some(at) = level.entries.iter().position(|entry| entry.key == *key) else {
                return Some(match level.entries.last() {
                    None => Self::Missing {
                        at: text.len(),
                        indent: String::new(),
                        keys: below,
                    },
                    Some(last) if indent(text, last).is_none() => return braces(text, last, below),
                    Some(_) if depth == 0 => Self::Missing {
                        at: text.len(),
                        indent: String::new(),
                        keys: below,
                    },
                    Some(last) => Self::Missing {
                        at: without_comments(text, last.span.end..level.end),
                        indent: indent(text, last)?.to_owned(),
                        keys: below,
                    },
                });
            };
            let entry = &level.entries[at];
            // What follows begins at the line of the next key.
            let end = match level.entries.get(at + 1) {
                Some(next) => line_start(text, next.span.start),
                None => level.end,
            };
            if depth + 1 == path.len() {
                return Self::of(text, entry, end);
            }
            level = match &entry.value.content {
                Content::Map(entries) if !entries.is_empty() => Level { entries, end },
                Content::Map(_) | Content::Null => {
                    let indent = format!("{}  ", indent(text, entry)?);
                    let keys = path[depth + 1..].iter().map(|key| scalar(key)).collect();
                    return Some(Self::Empty {
                        map: entry.span.end..line_end(text, entry.span.end),
                        indent,
                        keys,
                    });
                }
                _ => return None,
            };
        }
        None
    }

    fn of(text: &str, entry: &Entry, end: usize) -> Option<Self> {
        let value = &entry.value;
        match &value.content {
            Content::Map(_) => None,
            Content::List(_) => {
                indent(text, entry)?;
                Some(Self::Lines {
                    lines: entry.span.start..without_comments(text, entry.span.end..end),
                    key: text.get(entry.span.clone())?.to_owned(),
                })
            }
            Content::Null if value.span.is_empty() => Some(Self::NoValue(entry.span.end)),
            _ => Some(Self::Value(value.span.clone())),
        }
    }

    /// The text with the value in this place; `None` where something else would be lost.
    pub(super) fn write(&self, text: &str, value: &NewValue) -> Option<String> {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        match self {
            Self::Value(place) => splice(text, place, &value.to_string()),
            Self::NoValue(key_end) => {
                let colon = key_end + text.get(*key_end..)?.find(':')? + 1;
                splice(text, &(colon..colon), &format!(" {value}"))
            }
            Self::Lines { lines, key } => {
                let (NewValue::List(_) | NewValue::Mounts(_)) = value else {
                    return None;
                };
                let old = text.get(lines.clone())?;
                let written = format!("{key}: {value}{}", kept_comments(old, newline)?);
                splice(text, lines, &written)
            }
            Self::Missing { at, indent, keys } => {
                let before = text.get(..*at)?;
                let gap = if before.is_empty() || before.ends_with('\n') {
                    ""
                } else {
                    newline
                };
                let lines = nested(indent, keys, value, newline);
                splice(text, &(*at..*at), &format!("{gap}{lines}"))
            }
            Self::Empty { map, indent, keys } => {
                let rest = text.get(map.clone())?;
                let comment = rest.find('#').map_or("", |at| &rest[at..]);
                let gap = if comment.is_empty() { "" } else { " " };
                let lines = nested(indent, keys, value, newline);
                let lines = lines.trim_end();
                splice(text, map, &format!(":{gap}{comment}{newline}{lines}"))
            }
            Self::Braces { end, keys } => {
                let (last, above) = keys.split_last()?;
                let open: String = above.iter().map(|key| format!("{key}: {{")).collect();
                let close = "}".repeat(above.len());
                splice(
                    text,
                    &(*end..*end),
                    &format!(", {open}{last}: {value}{close}"),
                )
            }
        }
    }
}

fn splice(text: &str, place: &Range<usize>, new: &str) -> Option<String> {
    let (head, tail) = (text.get(..place.start)?, text.get(place.end..)?);
    Some(format!("{head}{new}{tail}"))
}

/// One line per key, each indented below the one before, the last with the value.
fn nested(indent: &str, keys: &[String], value: &NewValue, newline: &str) -> String {
    let mut lines = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let deeper = "  ".repeat(depth);
        let said = if depth + 1 == keys.len() {
            format!(" {value}")
        } else {
            String::new()
        };
        lines.push_str(&format!("{indent}{deeper}{key}:{said}{newline}"));
    }
    lines
}

/// The comments of a list that is replaced: whole lines, and the one behind a list on one line. `None`
/// where one stands behind an item, whose place is lost.
fn kept_comments(old: &str, newline: &str) -> Option<String> {
    let ends = old.ends_with('\n');
    let mut lines = old.lines();
    let first = lines.next().unwrap_or_default();
    let mut kept = comment_of(first)?.to_owned();
    for line in lines {
        if line.trim_start().starts_with('#') {
            kept.push_str(newline);
            kept.push_str(line);
        } else if line.contains(" #") {
            return None;
        }
    }
    if ends {
        kept.push_str(newline);
    }
    Some(kept)
}

/// The comment at the end of a line, with the space before it; empty where there is none, `None` where it cannot be
/// told. What says the same without it is one, and not a part of a text in quotes.
fn comment_of(line: &str) -> Option<&str> {
    let said = |text: &str| Node::parse(text).map(|node| node.to_json()).ok();
    if !line.contains(" #") {
        return Some("");
    }
    let whole = said(line)?;
    let comment = line
        .match_indices(" #")
        .find(|(at, _)| said(&line[..*at]).as_ref() == Some(&whole));
    Some(comment.map_or("", |(at, _)| &line[at..]))
}

/// The byte behind the last closing value of a map in braces, found from its last entry.
fn braces(text: &str, last: &Entry, keys: Vec<String>) -> Option<Place> {
    let end = match last.value.content {
        Content::List(_) | Content::Map(_) => return None,
        _ => last.value.span.end.max(last.span.end),
    };
    let rest = text.get(end..)?;
    let closing = rest.find('}')?;
    rest[..closing]
        .trim()
        .is_empty()
        .then_some(Place::Braces { end, keys })
}

/// The spaces before a key that stands first on its line; `None` for one in braces.
fn indent<'t>(text: &'t str, entry: &Entry) -> Option<&'t str> {
    let before = text.get(line_start(text, entry.span.start)..entry.span.start)?;
    before.bytes().all(|byte| byte == b' ').then_some(before)
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline + 1)
}

/// The end of the line, its break not counted.
fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    at + line.trim_end_matches('\r').len()
}

/// The end of the lines in a range, without the blank lines and comments at its end: those belong to what
/// follows.
fn without_comments(text: &str, range: Range<usize>) -> usize {
    let lines = text.get(range.clone()).unwrap_or_default();
    let mut end = range.start;
    let mut at = range.start;
    for (number, line) in lines.split_inclusive('\n').enumerate() {
        at += line.len();
        let said = line.trim();
        if number == 0 || !(said.is_empty() || said.starts_with('#')) {
            end = at;
        }
    }
    end
}
