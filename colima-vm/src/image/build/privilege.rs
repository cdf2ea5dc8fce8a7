//! Who may build: a user in a user namespace of their own, or root.

use std::fs;

use super::{
    super::Error,
    tool::{Cancel, Tool, Toolbox},
};

/// How the files of the image get their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    /// In a user namespace with the subordinate ids of `/etc/subuid`.
    UserNamespace,
    /// As root itself.
    Root,
}

impl Privilege {
    /// What mmdebstrap calls it.
    pub(super) const fn mode(self) -> &'static str {
        match self {
            Self::UserNamespace => "unshare",
            Self::Root => "root",
        }
    }

    /// The least privilege that works here: tried, not assumed.
    pub(super) async fn find(toolbox: &Toolbox, cancel: &mut Cancel<'_>) -> Result<Self, Error> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::Root);
        }
        let probe = in_namespace("true", [""; 0]);
        match toolbox.run(&probe, cancel).await {
            Ok(_) => Ok(Self::UserNamespace),
            Err(Error::Tool { .. }) => {
                let newuidmap = Tool::new("newuidmap", "uidmap");
                let uidmap = match toolbox.run(&newuidmap, cancel).await {
                    Err(Error::ToolMissing { .. }) => Uidmap::Missing,
                    _ => Uidmap::Installed,
                };
                let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok();
                let (reason, remedy) = diagnose(
                    uidmap,
                    setting("kernel/unprivileged_userns_clone").as_deref(),
                    setting("user/max_user_namespaces").as_deref(),
                    setting("kernel/apparmor_restrict_unprivileged_userns").as_deref(),
                    rustix::process::geteuid().as_raw(),
                );
                Err(Error::Privilege { reason, remedy })
            }
            Err(error) => Err(error),
        }
    }
}

/// A program as root of a user namespace with our subordinate ids.
pub(super) fn in_namespace<S: Into<std::ffi::OsString>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Tool {
    Tool::new("mmdebstrap", "mmdebstrap")
        .args(["--unshare-helper", program])
        .args(args)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uidmap {
    Installed,
    Missing,
}

/// Why a user namespace could not be made, and the one line that changes it.
fn diagnose(
    uidmap: Uidmap,
    userns_clone: Option<&str>,
    max_namespaces: Option<&str>,
    apparmor: Option<&str>,
    uid: u32,
) -> (&'static str, String) {
    let is = |setting: Option<&str>, value: &str| setting.is_some_and(|text| text.trim() == value);
    if uidmap == Uidmap::Missing {
        (
            "newuidmap is not installed",
            "apt-get install uidmap".to_owned(),
        )
    } else if is(userns_clone, "0") {
        (
            "user namespaces are switched off",
            "sysctl -w kernel.unprivileged_userns_clone=1".to_owned(),
        )
    } else if is(max_namespaces, "0") {
        (
            "user namespaces are limited to none",
            "sysctl -w user.max_user_namespaces=15000".to_owned(),
        )
    } else if is(apparmor, "1") {
        (
            "AppArmor restricts user namespaces",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned(),
        )
    } else {
        (
            "the user has no 65536 subordinate ids in /etc/subuid and /etc/subgid",
            format!(
                "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un {uid})"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_to_type_for_every_obstacle() {
        let lines: Vec<String> = [
            diagnose(Uidmap::Missing, Some("0"), None, None, 1000),
            diagnose(Uidmap::Installed, Some("0\n"), None, None, 1000),
            diagnose(Uidmap::Installed, Some("1\n"), Some("0\n"), None, 1000),
            diagnose(Uidmap::Installed, None, Some("9\n"), Some("1\n"), 1000),
            diagnose(Uidmap::Installed, None, Some("9\n"), Some("0\n"), 1000),
        ]
        .into_iter()
        .map(|(reason, remedy)| Error::Privilege { reason, remedy }.to_string())
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
