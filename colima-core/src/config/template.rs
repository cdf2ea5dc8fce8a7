//! The `colima.yaml` that a new profile begins with.

/// A `colima.yaml` with a comment on every key this version acts on, and nothing but defaults.
///
/// It is the text that people edit; [`write_back`](super::write_back) fills in what was typed.
pub const TEMPLATE: &str = include_str!("template.yaml");
