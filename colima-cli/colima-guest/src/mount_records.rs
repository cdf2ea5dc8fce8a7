//! What is to be mounted, and what became of it: files that init, the agent and the mounts' own processes share.
//!
//! ```text
//! /run/colima/mounts/3.json    a GuestMount: port 3 is to be mounted
//! /run/colima/mounts/3.trouble why it is not, in one sentence; not there while it is
//! ```
//!
//! Whether something is mounted is asked of the kernel and never read from here.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use colima_core::mounts::{GuestMount, MountState, port_name};

use crate::mount_table::Mounted;

/// Where the files lie; gone with the boot.
pub(crate) const DIRECTORY: &str = "/run/colima/mounts";

/// The file of a mount in a directory of records.
pub(crate) fn record(directory: &Path, port: u8) -> PathBuf {
    directory.join(format!("{port}.json"))
}

/// The file with the trouble of a mount.
pub(crate) fn trouble(directory: &Path, port: u8) -> PathBuf {
    directory.join(format!("{port}.trouble"))
}

/// The unit of a mount.
pub(crate) fn unit(port: u8) -> String {
    format!("colima-mount@{port}.service")
}

/// What is to be mounted from this port.
///
/// # Errors
///
/// `NotFound` where nothing is; `InvalidData` for what makes no sense.
pub(crate) fn read(directory: &Path, port: u8) -> io::Result<GuestMount> {
    let mount: GuestMount = serde_json::from_slice(&fs::read(record(directory, port))?)?;
    if mount.port == port && mount.is_valid() {
        Ok(mount)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Whether this mount is in the table, as the uppermost of its path.
pub(crate) fn is_mounted(mount: &GuestMount, table: &[Mounted]) -> bool {
    on_top(mount, table).is_some()
}

/// The line of this mount, where it is the uppermost of its path.
pub(crate) fn on_top<'t>(mount: &GuestMount, table: &'t [Mounted]) -> Option<&'t Mounted> {
    table
        .iter()
        .rfind(|mounted| mounted.path == Path::new(&mount.path).as_os_str().as_bytes())
        .filter(|mounted| mounted.source == port_name(mount.port).as_bytes())
}

/// Whether everything is mounted that this mount lies in.
pub(crate) fn parents_are_mounted(mount: &GuestMount, directory: &Path, table: &[Mounted]) -> bool {
    states(directory, table)
        .iter()
        .filter(|state| mount.is_inside(&state.mount))
        .all(|state| state.problem.is_none())
}

/// What became of everything that is to be mounted, by port.
pub(crate) fn states(directory: &Path, table: &[Mounted]) -> Vec<MountState> {
    let ports = 1..=u8::try_from(colima_core::mounts::MOST_MOUNTS).unwrap_or(u8::MAX);
    ports
        .filter_map(|port| read(directory, port).ok())
        .map(|mount| MountState {
            problem: (!is_mounted(&mount, table)).then(|| {
                fs::read_to_string(trouble(directory, mount.port))
                    .unwrap_or_else(|_| "it is not mounted in the guest".to_owned())
            }),
            mount,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use colima_core::mounts::MountAccess;

    use super::*;

    fn mounted(path: &str, source: &str) -> Mounted {
        Mounted {
            device: "0:1".to_owned(),
            path: path.into(),
            source: source.into(),
        }
    }

    #[test]
    fn what_became_of_mounts() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        for (port, path) in [(1, "/a"), (2, "/a/b"), (5, "/c")] {
            let mount = GuestMount {
                port,
                path: path.to_owned(),
                access: MountAccess::ReadWrite,
            };
            fs::write(record(directory, port), serde_json::to_vec(&mount).unwrap()).unwrap();
        }
        fs::write(record(directory, 7), "{}").unwrap();
        fs::write(trouble(directory, 1), "of before").unwrap();
        fs::write(trouble(directory, 5), "the host does not serve it").unwrap();
        let table = [
            mounted("/a", "colima.1"),
            mounted("/c", "colima.5"),
            mounted("/a/b", "colima.2"),
            mounted("/c", "tmpfs"), // over ours
        ];
        let inside = read(directory, 2).unwrap();
        assert!(parents_are_mounted(&inside, directory, &table));
        assert!(!parents_are_mounted(&inside, directory, &table[1..]));
        let alone = read(directory, 1).unwrap();
        assert!(parents_are_mounted(&alone, directory, &[]));
        let states = states(directory, &table);
        let problems: Vec<(u8, Option<&str>)> = states
            .iter()
            .map(|state| (state.mount.port, state.problem.as_deref()))
            .collect();
        assert_eq!(
            problems,
            [
                (1, None),
                (2, None),
                (5, Some("the host does not serve it"))
            ]
        );
    }
}
