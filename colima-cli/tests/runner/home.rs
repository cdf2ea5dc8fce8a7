//! The program itself in a home of its own, without a machine.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A home that vanishes with its test.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

/// What a run printed.
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tools = directory.path().join("tools");
        fs::create_dir(&tools).unwrap();
        // Away from the guest's program, so that no test starts a machine by accident.
        let built = env!("CARGO_BIN_EXE_colima");
        if fs::hard_link(built, tools.join("colima")).is_err() {
            fs::copy(built, tools.join("colima")).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Writes a file below the state directory, with its directories.
    pub(crate) fn write(&self, below: &str, text: impl AsRef<[u8]>) {
        let path = self.path("c").join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path("c").join(below)).unwrap()
    }

    /// `colima` with these arguments.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(self.path("tools/colima"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("COLIMA_HOME", self.path("c"))
            .env("COLIMA_CACHE_HOME", self.path("cache"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Printed {
        self.finish(&mut self.command(arguments))
    }

    pub(crate) fn finish(&self, command: &mut Command) -> Printed {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let home = self.directory.path().display().to_string();
            text.replace(&home, "[home]")
        };
        Printed {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// A program of this name that is a shell script, to stand in an editor's place.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path("tools").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    pub(crate) fn has(&self, below: impl AsRef<Path>) -> bool {
        self.path("c").join(below).exists()
    }
}

impl Printed {
    /// Everything at once, as a snapshot shows it.
    pub(crate) fn all(&self) -> String {
        let code = self.code.map_or("none".to_owned(), |code| code.to_string());
        let stdout = match self.stdout.is_empty() {
            true => String::new(),
            false => format!("--- stdout\n{}", self.stdout),
        };
        format!("exit {code}\n{}{stdout}", self.stderr)
    }
}
