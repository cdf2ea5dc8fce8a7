//! Runs the scripts of `colima.yaml`.
//!
//! ```text
//! colima-provision.service   before docker and containerd   boot, dependency, system, user, after-boot
//! `colima-guest provision ready`, run by the host when containers can run                        ready
//! ```
//!
//! A script that fails keeps nothing from going on: what failed is written down, and the host tells it. Scripts of
//! one mode run in the order of the file.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use colima_core::boot::{BootConfig, Provision, ProvisionFailure, ProvisionMode};

/// Where `init` leaves the configuration for the booted system.
pub const BOOT_CONFIG: &str = "/run/colima/boot.json";

/// Scripts, what they print, and what failed. Gone with the boot.
const DIRECTORY: &str = "/run/colima/scripts";

/// First argument of the role.
pub const ROLE: &str = "provision";

/// The unit that runs what comes before the container runtime.
pub const UNIT: &str = "colima-provision.service";

/// Lines of a failed script's output that are told.
const KEPT_LINES: usize = 10;

/// Which scripts to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Those before the container runtime starts.
    Early,
    /// Those for when it runs.
    Ready,
}

impl Phase {
    /// Whether scripts of this mode are run.
    const fn runs(self, mode: ProvisionMode) -> bool {
        matches!((self, mode), (Self::Ready, ProvisionMode::Ready))
            || matches!(self, Self::Early) && !matches!(mode, ProvisionMode::Ready)
    }
}

/// The scripts of a phase in the order in which they run, each with its place in the configuration.
fn in_order(scripts: &[Provision], phase: Phase) -> Vec<(usize, &Provision)> {
    let mut chosen: Vec<(usize, &Provision)> = scripts
        .iter()
        .enumerate()
        .filter(|(_, script)| phase.runs(script.mode))
        .collect();
    // Stable: the file's order within a mode.
    chosen.sort_by_key(|(_, script)| script.mode);
    chosen
}

/// What the guest was told when it booted.
///
/// # Errors
///
/// The file cannot be read or understood.
pub fn boot_config(path: &Path) -> io::Result<BootConfig> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Runs the scripts of a phase to their end. In the second phase everything that failed in either is
/// written to standard output, as JSON.
///
/// # Errors
///
/// The configuration cannot be read or the directory of the scripts not be made; a script that fails is no error.
pub fn run(phase: Phase) -> io::Result<()> {
    let config = boot_config(Path::new(BOOT_CONFIG))?;
    let directory = Path::new(DIRECTORY);
    if phase == Phase::Ready {
        // Without a runtime nothing else has waited for it.
        let started = Command::new("systemctl").args(["start", UNIT]).output();
        drop(started);
    }
    let mut failures = read_failures(directory);
    for (number, script) in in_order(&config.provision, phase) {
        if let Some(failure) = run_one(directory, &config, number, script) {
            failures.push(failure);
        }
    }
    write_failures(directory, &failures)?;
    if phase == Phase::Ready {
        let mut stdout = io::stdout();
        serde_json::to_writer(&mut stdout, &failures)?;
        stdout.flush()?;
    }
    Ok(())
}

/// Runs one script; `None` when it ended well.
fn run_one(
    directory: &Path,
    config: &BootConfig,
    number: usize,
    script: &Provision,
) -> Option<ProvisionFailure> {
    let failure = |why: String, output: Vec<String>| ProvisionFailure {
        number: u32::try_from(number + 1).unwrap_or(u32::MAX),
        mode: script.mode,
        why,
        output,
    };
    let log = directory.join(format!("{}.log", number + 1));
    let ended = prepare(directory, config, number, script)
        .and_then(|path| command(&path, config, script, &log)?.status());
    match ended {
        Ok(status) if status.success() => None,
        Ok(status) => Some(failure(status.to_string(), tail(&log))),
        Err(error) => Some(failure(format!("it could not be run: {error}"), Vec::new())),
    }
}

/// Writes the script where whoever runs it can read it, and nobody else.
fn prepare(
    directory: &Path,
    config: &BootConfig,
    number: usize,
    script: &Provision,
) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let path = directory.join((number + 1).to_string());
    let _ = fs::remove_file(&path); // of a run before this one
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&path)?;
    file.write_all(script.script.as_bytes())?;
    if is_the_users(script.mode) {
        chown(&path, Some(config.user.uid), Some(config.user.gid))?;
    }
    Ok(path)
}

const fn is_the_users(mode: ProvisionMode) -> bool {
    matches!(
        mode,
        ProvisionMode::User | ProvisionMode::AfterBoot | ProvisionMode::Ready
    )
}

/// The command of a script: its own interpreter, or the shell. What it prints goes to the log.
fn command(
    path: &Path,
    config: &BootConfig,
    script: &Provision,
    log: &Path,
) -> io::Result<Command> {
    let mut words: Vec<&OsStr> = Vec::new();
    if is_the_users(script.mode) {
        // runuser(1) also gives the user's groups, docker among them.
        let user: [&str; 4] = ["runuser", "--user", &config.user.name, "--"];
        words.extend(user.map(OsStr::new));
    }
    if !script.script.starts_with("#!") {
        words.push(OsStr::new("/bin/sh"));
    }
    words.push(path.as_os_str());
    let mut command = Command::new(words[0]);
    let output = File::create(log)?;
    command
        .args(&words[1..])
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .envs(&config.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let (name, home) = match is_the_users(script.mode) {
        true => (config.user.name.as_str(), config.user.home.as_str()),
        false => ("root", "/root"),
    };
    command
        .env("HOME", home)
        .env("USER", name)
        .env("LOGNAME", name);
    if Path::new(home).is_dir() {
        command.current_dir(home);
    }
    Ok(command)
}

/// The last lines of a log.
fn tail(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(KEPT_LINES)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}

fn failures_path(directory: &Path) -> PathBuf {
    directory.join("failures.json")
}

fn read_failures(directory: &Path) -> Vec<ProvisionFailure> {
    // The first phase of a boot finds none.
    let text = fs::read(failures_path(directory)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_failures(directory: &Path, failures: &[ProvisionFailure]) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    fs::write(failures_path(directory), serde_json::to_vec(failures)?)
}

#[cfg(test)]
mod tests {
    use colima_core::boot::User;

    use super::*;

    fn script(mode: ProvisionMode, script: &str) -> Provision {
        Provision {
            mode,
            script: script.to_owned(),
        }
    }

    #[test]
    fn modes_have_their_order_and_phase() {
        use ProvisionMode::{AfterBoot, Boot, Dependency, Ready, System, User};
        let scripts =
            [Ready, User, System, AfterBoot, Boot, System, Dependency].map(|mode| script(mode, ""));
        let order = |phase| -> Vec<usize> {
            let chosen = in_order(&scripts, phase).into_iter();
            chosen.map(|(number, _)| number).collect()
        };
        assert_eq!(order(Phase::Early), [4, 6, 2, 5, 1, 3]);
        assert_eq!(order(Phase::Ready), [0]);
    }

    #[test]
    fn scripts_run_with_the_guests_environment() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = BootConfig::new("colima", User::first("ada"));
        config.env.insert("GREETING".to_owned(), "a  b".to_owned());
        let run = |number, text: &str| {
            let script = script(ProvisionMode::System, text);
            run_one(directory.path(), &config, number, &script)
        };
        let log = |number: usize| {
            let path = directory.path().join(format!("{number}.log"));
            fs::read_to_string(path).unwrap()
        };
        assert_eq!(run(0, "echo \"<$GREETING> $HOME\""), None);
        assert_eq!(log(1), "<a  b> /root\n");
        // An interpreter of its own; read by nobody but its owner.
        assert_eq!(run(1, "#!/bin/cat\nsecond\n"), None);
        assert_eq!(log(2), "#!/bin/cat\nsecond\n");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(directory.path().join("1"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
    }

    #[test]
    fn a_failure_is_written_down_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let config = BootConfig::new("colima", User::first("ada"));
        let failing = script(
            ProvisionMode::System,
            "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; done; echo no >&2; exit 3",
        );
        let failure = run_one(directory.path(), &config, 4, &failing).unwrap();
        assert_eq!((failure.number, failure.mode), (5, ProvisionMode::System));
        assert_eq!(failure.why, "exit status: 3");
        assert_eq!(failure.output.len(), KEPT_LINES);
        assert_eq!(failure.output.last().unwrap(), "no");
        let missing = script(ProvisionMode::System, "#!/nonexistent\n");
        let failure = run_one(directory.path(), &config, 0, &missing).unwrap();
        assert!(failure.why.contains("could not be run"), "{failure:?}");
        write_failures(directory.path(), std::slice::from_ref(&failure)).unwrap();
        assert_eq!(read_failures(directory.path()), [failure]);
    }
}
