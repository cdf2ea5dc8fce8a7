//! The original Colima in the same home: found, and left alone.
//!
//! It keeps each instance in `_lima/INSTANCE`, whose `ha.pid` names the process that supervises it while it runs.

use std::{fs, path::Path};

use crate::doctor::OtherColima;

/// The instances in this home, in order.
#[must_use]
pub fn instances(root: &Path) -> Vec<OtherColima> {
    let entries = fs::read_dir(root.join("_lima")).into_iter().flatten();
    let mut found: Vec<OtherColima> = entries
        .flatten()
        .filter_map(|entry| {
            let instance = entry.file_name().into_string().ok()?;
            // `_disks`, `_config` and the like are no instances.
            let is_one = !instance.starts_with('_') && entry.path().join("lima.yaml").is_file();
            is_one.then(|| OtherColima {
                pid: supervisor(&entry.path()),
                instance,
            })
        })
        .collect();
    found.sort_by(|one, other| one.instance.cmp(&other.instance));
    found
}

/// The process that supervises the instance in this directory, if it lives. A file that a crash left names
/// another's process, or none.
#[must_use]
pub fn supervisor(directory: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(directory.join("ha.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    name.starts_with(b"limactl").then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        process::Stdio,
    };

    use super::*;

    #[test]
    fn a_stale_file_is_no_living_instance() {
        let root = tempfile::tempdir().unwrap();
        for (name, pid) in [
            ("colima", "1"),
            ("colima-work", "nonsense"),
            ("_disks", "1"),
        ] {
            let directory = root.path().join("_lima").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("lima.yaml"), "").unwrap();
            fs::write(directory.join("ha.pid"), pid).unwrap();
        }
        let found = instances(root.path());
        let names: Vec<&str> = found.iter().map(|one| one.instance.as_str()).collect();
        assert_eq!(names, ["colima", "colima-work"]);
        assert!(found.iter().all(|one| one.pid.is_none()), "{found:?}");
        assert!(instances(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_living_one_is_found() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("limactl");
        fs::copy("/bin/cat", &program).unwrap();
        let mut child = std::process::Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its name is its own only once it runs, which is a moment after the call above returns.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        fs::write(root.path().join("ha.pid"), child.id().to_string()).unwrap();
        let found = supervisor(root.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, i32::try_from(child.id()).ok());
        assert_eq!(supervisor(root.path()), None);
    }
}
