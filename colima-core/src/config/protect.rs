//! What of shared directories the guest may not change.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What of shared directories the guest may read and not change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protect {
    /// What a host's user runs without looking: keys, and what shells and sessions begin with.
    #[default]
    Usual,
    /// Nothing.
    None,
    /// These paths, and not the usual ones. They may begin with `~`; relative ones are of the home directory.
    These(Vec<String>),
}

impl Protect {
    /// The word that switches it off.
    const OFF: &'static str = "none";

    /// From the texts of the file.
    pub(super) fn of(texts: Vec<String>) -> Self {
        match &*texts {
            [] => Self::Usual,
            [word] if word == Self::OFF => Self::None,
            _ => Self::These(texts),
        }
    }

    /// As it could stand in the file.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Usual => json!([]),
            Self::None => json!(Self::OFF),
            Self::These(paths) => json!(paths),
        }
    }
}
