//! What of a share the guest may read and not change, and what it does not see.
//!
//! A home directory has files that the host's user runs without looking: whoever can write them is that user at the
//! next login. A container must not, and neither must it reach the machine's own files through the share.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use colima_core::config::Protect;
use serde::{Deserialize, Serialize};

/// What is protected, as it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectSettings {
    /// The user's home directory; `None` where none was known.
    pub home: Option<PathBuf>,
    /// What of it is protected.
    pub paths: Protect,
}

/// Of the home directory. Whole directories, and files that need not exist.
const USUAL: &[&str] = &[
    ".ssh",
    // What shells begin and end with, by their manual pages.
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/fish",
    ".cshrc",
    ".kshrc",
    ".login",
    ".logout",
    ".mkshrc",
    ".oh-my-zsh",
    ".profile",
    ".tcshrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    // What sessions begin with: pam_env(8), environment.d(5), systemd.unit(5), Xsession(5), the desktop's
    // autostart specification, and those of Plasma and macOS.
    ".config/autostart",
    ".config/autostart-scripts",
    ".config/environment.d",
    ".config/plasma-workspace",
    ".config/systemd",
    ".local/share/systemd",
    ".pam_environment",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".xsessionrc",
    "Library/LaunchAgents",
];

/// Paths of a share, relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guarding {
    /// May be read and not changed, or made.
    pub(super) protected: Vec<OsString>,
    /// Is not there.
    pub(super) hidden: Vec<OsString>,
}

/// Decides for the share of `location`, which has no links in it. `resolve` gives a path without links, as far as it
/// exists.
///
/// A share that is a protected path, or lies in one, was named by somebody who wants it: it is not protected.
pub(super) fn guarding(
    location: &Path,
    settings: &ProtectSettings,
    state: &Path,
    resolve: &dyn Fn(&Path) -> PathBuf,
) -> Guarding {
    let inside = |path: &Path| {
        let rest = path.strip_prefix(location).ok()?;
        (!rest.as_os_str().is_empty()).then(|| rest.as_os_str().to_owned())
    };
    let home = settings.home.as_deref().map(resolve);
    let written: Vec<&str> = match &settings.paths {
        Protect::Usual => USUAL.to_vec(),
        Protect::None => Vec::new(),
        Protect::These(paths) => paths.iter().map(String::as_str).collect(),
    };
    let mut protected = Vec::new();
    for path in written {
        let Some(path) = absolute(path, home.as_deref()) else {
            continue;
        };
        // By its own name and, where a link leads elsewhere in the share, what the link means.
        let target = resolve(&path);
        for path in [&path, &target] {
            if let Some(rest) = inside(path)
                && !protected.contains(&rest)
            {
                protected.push(rest);
            }
        }
    }
    Guarding {
        protected,
        hidden: inside(&resolve(state)).into_iter().collect(),
    }
}

/// `None` for one that depends on a home directory where there is none, or climbs out of where it begins.
fn absolute(path: &str, home: Option<&Path>) -> Option<PathBuf> {
    let path = path.strip_prefix("~/").unwrap_or(path);
    let absolute = match path.starts_with('/') {
        true => PathBuf::from(path),
        false => home?.join(path),
    };
    let climbs = |path: &Path| {
        path.components()
            .any(|it| it == std::path::Component::ParentDir)
    };
    (!climbs(&absolute)).then(|| absolute.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(paths: Protect) -> ProtectSettings {
        ProtectSettings {
            home: Some("/home/ada".into()),
            paths,
        }
    }

    fn of(location: &str, paths: Protect) -> Guarding {
        let state = Path::new("/home/ada/.colima");
        // A dotfiles repository, and a configuration directory that is elsewhere.
        let resolve = |path: &Path| match path.to_str() {
            Some("/home/ada/.bashrc") => PathBuf::from("/home/ada/dots/bashrc"),
            Some("/home/ada/.zshrc") => PathBuf::from("/nix/zshrc"),
            _ => path.to_owned(),
        };
        guarding(Path::new(location), &settings(paths), state, &resolve)
    }

    fn these(paths: &[&str]) -> Protect {
        Protect::These(paths.iter().map(|path| (*path).to_owned()).collect())
    }

    #[test]
    fn a_home_has_its_keys_and_beginnings_protected_and_the_state_hidden() {
        let home = of("/home/ada", Protect::Usual);
        assert_eq!(home.hidden, [".colima"]);
        for path in [
            ".ssh",
            ".bashrc",
            "dots/bashrc",
            ".zshrc",
            ".config/autostart",
        ] {
            assert!(home.protected.contains(&path.into()), "{path}");
        }
        assert_eq!(home.protected.len(), USUAL.len() + 1);
        let above = of("/home", Protect::Usual);
        assert_eq!(above.hidden, ["ada/.colima"]);
        assert!(above.protected.contains(&"ada/.ssh".into()));
        // Nothing of it lies there.
        assert_eq!(of("/srv", Protect::Usual), Guarding::default());
        assert_eq!(of("/home/ada/src", Protect::Usual), Guarding::default());
        assert_eq!(of("/home/ad", Protect::Usual), Guarding::default());
    }

    #[test]
    fn what_is_named_itself_is_not_protected() {
        for location in ["/home/ada/.ssh", "/home/ada/.ssh/keys", "/home/ada/.colima"] {
            assert_eq!(
                of(location, Protect::Usual),
                Guarding::default(),
                "{location}"
            );
        }
        let config = of("/home/ada/.config", Protect::Usual);
        assert!(config.protected.contains(&"autostart".into()));
    }

    #[test]
    fn a_list_is_instead_and_none_is_nothing() {
        let paths = these(&[
            "~/notes",
            "papers/",
            "/srv/keys",
            "/home/ada/x",
            "../y",
            "~",
        ]);
        let home = of("/home/ada", paths.clone());
        assert_eq!(home.protected, ["notes", "papers", "x", "~"]);
        assert_eq!(home.hidden, [".colima"]);
        assert_eq!(of("/srv", paths).protected, ["keys"]);
        let none = of("/home/ada", Protect::None);
        assert_eq!((none.protected.len(), none.hidden.len()), (0, 1));
        let homeless = ProtectSettings::default();
        let state = Path::new("/state");
        let guarding = guarding(Path::new("/"), &homeless, state, &Path::to_owned);
        assert_eq!(guarding.protected, [""; 0]);
        assert_eq!(guarding.hidden, ["state"]);
    }
}
