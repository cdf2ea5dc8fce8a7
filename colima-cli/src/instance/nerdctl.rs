//! A nerdctl of the user's, put into the guest: the image has none.

use std::{fs, path::PathBuf};

use colima_core::{Command, Guest as _, config::Nerdctl};
use colima_net::{agent::Agent, mux::Mux};
use colima_vm::image::Digest;
use serde::{Deserialize, Serialize};

use super::failure;
use crate::command_error::{CommandError, ErrorKind};

/// A program of the host for the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNerdctl {
    /// Where it is on the host.
    pub path: PathBuf,
    /// SHA-256, in lower-case hexadecimal digits.
    pub digest: String,
}

/// Puts standard input into the place of the program, unless what is there has the digest. The name is the last
/// thing that changes.
const INSTALL: &str = r#"
set -e
place=/usr/local/bin/nerdctl
new=$place.colima-new
trap 'rm -f "$new"' EXIT
cat >"$new"
echo "$1  $new" | sha256sum --check --status
chmod 755 "$new"
mv "$new" "$place"
"#;

/// Succeeds where the program is there already.
const IS_THERE: &str =
    r#"echo "$1  /usr/local/bin/nerdctl" | sha256sum --check --status 2>/dev/null"#;

impl GuestNerdctl {
    /// The program that `wanted` names, which has to be the one that its digest names.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is another.
    pub fn find(wanted: &Nerdctl) -> Result<Self, CommandError> {
        let this = Self {
            path: wanted.path.clone().into(),
            digest: wanted.digest.to_ascii_lowercase(),
        };
        this.read().map(|_| this)
    }

    fn read(&self) -> Result<Vec<u8>, CommandError> {
        let bytes = fs::read(&self.path)
            .map_err(|error| failure::file("read nerdctl at", &self.path, &error))?;
        let found = Digest::of(&bytes).to_string();
        if found == self.digest {
            return Ok(bytes);
        }
        let what = format!(
            "{} is not the nerdctl that colima.yaml names",
            self.path.display()
        );
        Err(CommandError::new(ErrorKind::Config, what)
            .because(format!(
                "its SHA-256 is {found}, nerdctl.digest is {}",
                self.digest
            ))
            .hint("if it is the right one, write its digest: colima start --edit"))
    }

    /// Puts it into the guest, unless it is there.
    pub(super) async fn install(&self, agent: &Agent<Mux>) -> Result<(), CommandError> {
        let failed = |why: String| {
            CommandError::new(
                ErrorKind::Failure,
                "nerdctl could not be put into the machine",
            )
            .because(why)
        };
        let run = async |script: &str, stdin: Vec<u8>| {
            let command = Command::new(["sh", "-c", script, "nerdctl", &self.digest]).stdin(stdin);
            agent
                .run(&command)
                .await
                .map_err(|error| failed(error.to_string()))
        };
        if run(IS_THERE, Vec::new()).await?.exit_code == 0 {
            return Ok(());
        }
        let installed = run(INSTALL, self.read()?).await?;
        match installed.exit_code {
            0 => Ok(()),
            code => {
                let said = String::from_utf8_lossy(&installed.stderr);
                Err(failed(format!("exit code {code}: {}", said.trim())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_that_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nerdctl");
        fs::write(&path, "test").unwrap();
        let wanted = |digest: &str| Nerdctl {
            path: path.to_str().unwrap().to_owned(),
            digest: digest.to_owned(),
        };
        // Of the four letters.
        let right = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
        let found = GuestNerdctl::find(&wanted(right)).unwrap();
        assert_eq!(found.digest, right.to_lowercase());
        let error = GuestNerdctl::find(&wanted(&"0".repeat(64))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        fs::remove_file(&path).unwrap();
        assert!(GuestNerdctl::find(&wanted(right)).is_err());
    }
}
