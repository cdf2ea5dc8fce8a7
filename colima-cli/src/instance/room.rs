//! Room on the host's disks and in the guest.

use std::path::{Path, PathBuf};

use colima_core::{Bytes, agent::Space};
use rustix::fs::statvfs;

use super::Problem;
use crate::state_dir::ProfilePaths;

/// With less the host's disk is called full: disks of a machine grow, and so do logs.
pub(super) const LEAST: Bytes = Bytes::gib(1);

/// What this user may still write where `path` is; `None` where that cannot be told.
pub(super) fn available(path: &Path) -> Option<Bytes> {
    let space = statvfs(path).ok()?;
    // Some of it is only root's.
    let blocks = match rustix::process::geteuid().is_root() {
        true => space.f_bfree,
        false => space.f_bavail,
    };
    Some(Bytes::new(blocks.saturating_mul(space.f_frsize)))
}

/// The directories of everything that grows while a machine runs.
pub(super) fn growing(paths: &ProfilePaths) -> [PathBuf; 2] {
    let parent = |path: &Path| path.parent().map_or_else(PathBuf::new, Path::to_owned);
    [parent(&paths.data_disk), parent(&paths.root_disk)]
}

/// What is wrong with the room on the host.
pub(super) fn on_host(paths: &ProfilePaths) -> Vec<Problem> {
    let mut directories = growing(paths).to_vec();
    directories.dedup();
    let scarce = directories.iter().filter_map(|directory| {
        let available = available(directory)?;
        (available < LEAST).then_some((directory, available))
    });
    let mut problems: Vec<Problem> = scarce.map(|(at, left)| little_on_host(at, left)).collect();
    // Both are on one file system, most of the time.
    problems.truncate(1);
    problems
}

fn little_on_host(directory: &Path, left: Bytes) -> Problem {
    let directory = directory.display();
    Problem::new(
        format!("the host's disk is nearly full: {left} are left in {directory}"),
        "make room there; images that no profile needs go with: colima prune",
    )
}

/// What is wrong with the room on the guest's data disk.
pub(super) fn in_guest(disk: Space) -> Option<Problem> {
    // A twentieth, and of a large disk no more than a gibibyte.
    let least = Bytes::new(disk.size.get() / 20).min(LEAST);
    (disk.available < least).then(|| {
        let (left, size) = (disk.available, disk.size);
        Problem::new(
            format!("the data disk is nearly full: {left} of {size} are left"),
            "remove what is not needed: docker system prune; or make it larger: colima start --edit",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_before_nothing_is_left() {
        let told = |size, available| in_guest(Space { size, available }).is_some();
        assert!(!told(Bytes::gib(10), Bytes::gib(1)));
        assert!(!told(Bytes::gib(10), Bytes::mib(512)));
        assert!(told(Bytes::gib(10), Bytes::mib(511)));
        assert!(!told(Bytes::gib(1000), Bytes::gib(1)));
        assert!(told(Bytes::gib(1000), Bytes::mib(1023)));
        assert!(told(Bytes::gib(1), Bytes::new(0)));
    }
}
