//! Names of profiles, and the names derived from them.

use std::{fmt, str::FromStr};

/// The name of one instance, valid wherever it ends up: file names, docker contexts, host names.
///
/// At most 48 characters of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit. As in Colima, the
/// empty name, `default` and `colima` are one profile, and a leading `colima-` is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileName(String);

const LONGEST: usize = 48;

impl ProfileName {
    /// The short name: a directory below the home, the value of `--profile`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the virtual machine and of its docker context: `colima` or `colima-NAME`.
    #[must_use]
    pub fn instance(&self) -> String {
        if self.is_default() {
            "colima".to_owned()
        } else {
            format!("colima-{}", self.0)
        }
    }

    /// The name for sentences: `colima` or `colima [profile=NAME]`.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.is_default() {
            "colima".to_owned()
        } else {
            format!("colima [profile={}]", self.0)
        }
    }

    /// The host name the guest gets unless the configuration names one (RFC 1123 labels).
    #[must_use]
    pub fn host_name(&self) -> String {
        self.instance()
            .replace(['_', '.'], "-")
            .trim_end_matches('-')
            .to_owned()
    }

    fn is_default(&self) -> bool {
        self.0 == "default"
    }
}

impl Default for ProfileName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a profile name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be a profile name: it takes 1 to {LONGEST} of a-z A-Z 0-9 . _ - and starts with a letter or digit"
)]
pub struct ParseProfileNameError {
    /// The text that was given.
    pub name: String,
}

impl FromStr for ProfileName {
    type Err = ParseProfileNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let short = match name {
            "" | "default" | "colima" => return Ok(Self::default()),
            _ => name.strip_prefix("colima-").unwrap_or(name),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if short.len() > LONGEST
            || !short.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !short.chars().all(allowed)
        {
            return Err(ParseProfileNameError {
                name: name.to_owned(),
            });
        }
        Ok(Self(short.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colimas_synonyms() {
        for name in ["", "default", "colima", "colima-default"] {
            assert_eq!(
                name.parse::<ProfileName>().unwrap(),
                ProfileName::default(),
                "{name}"
            );
        }
        let work: ProfileName = "colima-work".parse().unwrap();
        assert_eq!(work.as_str(), "work");
        assert_eq!(work.instance(), "colima-work");
        assert_eq!(work.display_name(), "colima [profile=work]");
        assert_eq!(
            "my_vm.".parse::<ProfileName>().unwrap().host_name(),
            "colima-my-vm"
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "-x", "..", ".hidden", "_store", "a b", "a/b", "a\nb", "a,b", "%h", "$(id)", "\"", "é",
            "colima-",
        ] {
            assert!(name.parse::<ProfileName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(48).parse::<ProfileName>().is_ok());
        assert!("x".repeat(49).parse::<ProfileName>().is_err());
    }
}
