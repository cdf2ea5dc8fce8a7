//! Who else on the host could see or reach what is ours, and what is left when it is deleted.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use super::{
    process,
    world::{OTHER_PROFILE, PROFILE, World},
};

/// Directories 0700, files and sockets 0600, everywhere.
pub(crate) fn everything_is_the_owners_alone(world: &World) {
    world.machine_runs();
    let mut wrong = Vec::new();
    let mut sockets = 0;
    visit(&world.home, &mut |path, metadata| {
        sockets += usize::from(metadata.file_type().is_socket());
        let mode = metadata.permissions().mode() & 0o7777;
        let others = mode & 0o077;
        if others != 0 && !metadata.file_type().is_symlink() {
            wrong.push(format!("{mode:o} {}", path.display()));
        }
    });
    assert_eq!(wrong, [""; 0]);
    assert!(sockets >= 3, "only {sockets} sockets seen");
}

/// Neither daemon nor machine listens on any address, but QEMU for ssh, on loopback, where ssh is the transport.
pub(crate) fn nobody_listens_on_tcp(world: &World) {
    world.machine_runs();
    let mut found = Vec::new();
    for process in [world.daemon(PROFILE), world.qemu(PROFILE)] {
        let listening = listening();
        let directory = format!("/proc/{}/fd", process.pid);
        for entry in fs::read_dir(directory)
            .expect("a process of ours")
            .flatten()
        {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            found.extend(
                listening
                    .iter()
                    .filter(|(inode, _)| *inode == target)
                    .map(|(_, address)| (process.pid, address.clone())),
            );
        }
    }
    match &*world.transport {
        "ssh" => {
            // 127.0.0.1 as the kernel writes it.
            let right = matches!(&*found, [(pid, address)]
                if *pid == world.qemu(PROFILE).pid && address.starts_with("0100007F:"));
            assert!(right, "{found:?}");
        }
        _ => assert_eq!(found, []),
    }
}

pub(crate) fn delete_leaves_nothing(world: &World) {
    let listed = world.colima(["list", "--json"]).ok();
    let profiles = [PROFILE, OTHER_PROFILE];
    let exists = |profile: &&str| listed.text().contains(&format!("\"name\":\"{profile}\""));
    // The newest first: each gives the docker context back to the one before it.
    for profile in profiles.iter().rev().copied().filter(exists) {
        let delete = ["delete", "--data", "--force", "--profile", profile];
        world.colima(delete).ok();
        assert!(!world.home.join(profile).exists(), "{profile} is left");
    }
    assert_eq!(process::of_home(&world.home), [""; 0]);
    let disks = fs::read_dir(world.home.join("_disks"))
        .expect("it was there")
        .count();
    assert_eq!(disks, 0, "disks are left");
    let contexts = world
        .docker(["context", "ls", "--format", "{{.Name}}"])
        .ok();
    let ours = |name: &str| name == "colima" || name.starts_with("colima-");
    assert!(!contexts.text().lines().any(ours), "{contexts}");
    assert_eq!(
        world.current_context(),
        super::command_line::PREVIOUS_CONTEXT
    );
    let nothing = world.colima(["list", "--json"]).ok();
    assert_eq!(nothing.text(), "");
    world.colima(["delete", "--data", "--force"]).exits(3);
}

fn visit(directory: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(directory)
        .expect("a directory of ours")
        .flatten()
    {
        // What goes away in the meantime is nobody's business.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        see(&entry.path(), &metadata);
        if metadata.is_dir() {
            visit(&entry.path(), see);
        }
    }
}

/// `socket:[inode]` and the address of every TCP socket in the state LISTEN, which proc(5) numbers 0A.
fn listening() -> Vec<(String, String)> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
            lines
        })
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(3) == Some(&"0A");
            listens.then(|| (format!("socket:[{}]", fields[9]), fields[1].to_owned()))
        })
        .collect()
}
