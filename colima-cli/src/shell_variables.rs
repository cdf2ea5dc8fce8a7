//! Variables as text that a shell reads.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

/// A shell that reads variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// sh, bash, zsh and their relatives.
    Sh,
    /// fish.
    Fish,
}

/// The variables that lead clients to a profile's docker; `None` where its path is no text.
///
/// `DOCKER_HOST` is what nearly everything reads. Testcontainers mounts the socket into a container of its own, where
/// the path is the guest's: `TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE` tells it so.
#[must_use]
pub fn docker_variables(socket: &Path) -> Option<[(&'static str, String); 2]> {
    let socket = std::str::from_utf8(socket.as_os_str().as_bytes()).ok()?;
    Some([
        ("DOCKER_HOST", format!("unix://{socket}")),
        (
            "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE",
            "/var/run/docker.sock".to_owned(),
        ),
    ])
}

impl Shell {
    /// A line that sets a variable for the shell's children.
    #[must_use]
    pub fn export(self, name: &str, value: &str) -> String {
        match self {
            Self::Sh => format!("export {name}='{}'\n", value.replace('\'', "'\\''")),
            Self::Fish => {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                format!("set -gx {name} '{value}'\n")
            }
        }
    }

    /// A line that takes it away.
    #[must_use]
    pub fn unset(self, name: &str) -> String {
        match self {
            Self::Sh => format!("unset {name}\n"),
            Self::Fish => format!("set -e {name}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed() {
        let variables = docker_variables(Path::new("/h/it's $HOME/docker.sock")).unwrap();
        let text = |shell: Shell| -> String {
            let lines = variables.iter();
            lines
                .map(|(name, value)| shell.export(name, value))
                .collect()
        };
        insta::assert_snapshot!(text(Shell::Sh) + &text(Shell::Fish));
        assert_eq!(Shell::Sh.unset("A"), "unset A\n");
        assert_eq!(Shell::Fish.unset("A"), "set -e A\n");
        let raw = std::ffi::OsStr::from_bytes(b"/\xff");
        assert!(docker_variables(Path::new(raw)).is_none());
    }

    /// The shell reads back what was written, whatever it is.
    #[test]
    fn a_shell_reads_it_back() {
        for value in [
            "plain",
            "a b",
            "it's",
            "$(id) `id` \\n \"",
            "two\nlines",
            "é%",
            "",
        ] {
            let script = format!("{}printf '<%s>' \"$V\"", Shell::Sh.export("V", value));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!("<{value}>")
            );
        }
    }
}
