//! What an image's root file system has beyond Debian's packages, as data.
//!
//! Files with text of their own lie below `rootfs/` under the path they get; units that never start
//! are listed in `rootfs/masked_units.txt`, each group with its reason. Nothing here runs anything.

/// One thing put into the root file system, by its path without a leading slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// An empty directory.
    Directory(String),
    /// A regular file, mode 0644.
    File(String, String),
    /// A symbolic link: where, and to what.
    Symlink(String, String),
}

/// Packages that are installed, besides the essential ones and apt.
pub(super) const PACKAGES: &[&str] = &[
    "apt",
    "bash",
    "ca-certificates",
    "containerd",
    "docker-cli",
    "docker.io",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "kmod",
    "netbase",
    "openssh-client",
    "openssh-server",
    "pigz",
    "procps",
    "runc",
    "sudo",
    "systemd",
    "systemd-sysv",
    "xz-utils",
    "zstd",
];

/// Modules that init loads before it can find disks and network; those they need are added.
pub(super) const BOOT_MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "overlay",
];

/// What dpkg leaves out, now and when somebody installs a package later.
pub(super) const EXCLUDED_PATHS: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/udev/hwdb.d/*",
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/apt/apt.conf.d/10-colima",
        include_str!("rootfs/etc/apt/apt.conf.d/10-colima"),
    ),
    (
        "etc/containerd/config.toml",
        include_str!("rootfs/etc/containerd/config.toml"),
    ),
    ("etc/pam.d/sshd", include_str!("rootfs/etc/pam.d/sshd")),
    (
        "etc/ssh/sshd_config",
        include_str!("rootfs/etc/ssh/sshd_config"),
    ),
    (
        "etc/sysctl.d/10-colima.conf",
        include_str!("rootfs/etc/sysctl.d/10-colima.conf"),
    ),
    (
        "etc/systemd/journald.conf.d/10-colima.conf",
        include_str!("rootfs/etc/systemd/journald.conf.d/10-colima.conf"),
    ),
    (
        "etc/systemd/system.conf.d/10-colima.conf",
        include_str!("rootfs/etc/systemd/system.conf.d/10-colima.conf"),
    ),
    (
        "etc/systemd/system/colima-sshd.socket",
        include_str!("rootfs/etc/systemd/system/colima-sshd.socket"),
    ),
    (
        "etc/systemd/system/colima-sshd@.service",
        include_str!("rootfs/etc/systemd/system/colima-sshd@.service"),
    ),
    (
        "etc/systemd/system/containerd.service",
        include_str!("rootfs/etc/systemd/system/containerd.service"),
    ),
    (
        "etc/systemd/system/docker.service",
        include_str!("rootfs/etc/systemd/system/docker.service"),
    ),
    (
        "etc/systemd/system/docker.socket",
        include_str!("rootfs/etc/systemd/system/docker.socket"),
    ),
    (
        "etc/systemd/system/systemd-tmpfiles-setup.service",
        include_str!("rootfs/etc/systemd/system/systemd-tmpfiles-setup.service"),
    ),
    // Init mounts everything and writes the other two at every boot.
    ("etc/fstab", ""),
    ("etc/hostname", "colima\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    ),
    ("etc/resolv.conf", ""),
    // Init makes one at the first boot. Empty, not absent: this is no first boot that asks questions.
    ("etc/machine-id", ""),
];

/// The units that start, and the target that wants them. All others of Debian are off.
const ENABLED: &[(&str, &str)] = &[
    ("multi-user", "containerd.service"),
    ("multi-user", "docker.service"),
    ("sockets", "colima-sshd.socket"),
    ("sockets", "docker.socket"),
];

const MASKED: &str = include_str!("rootfs/masked_units.txt");

/// Everything that is put into the root, in the order of paths' dependencies.
pub(super) fn entries(sources: &[String]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = FILES
        .iter()
        .map(|(path, text)| Entry::File((*path).to_owned(), (*text).to_owned()))
        .collect();
    let list: String = sources.iter().map(|line| format!("{line}\n")).collect();
    entries.push(Entry::File("etc/apt/sources.list".to_owned(), list));
    entries.extend(masked().map(|name| {
        let place = if name.ends_with("-generator") {
            "system-generators"
        } else {
            "system"
        };
        Entry::Symlink(
            format!("etc/systemd/{place}/{name}"),
            "/dev/null".to_owned(),
        )
    }));
    entries.extend(ENABLED.iter().map(|(target, unit)| {
        let path = format!("etc/systemd/system/{target}.target.wants/{unit}");
        Entry::Symlink(path, format!("../{unit}"))
    }));
    entries.push(Entry::Symlink(
        "etc/systemd/system/default.target".to_owned(),
        "/usr/lib/systemd/system/multi-user.target".to_owned(),
    ));
    for mount_point in ["var/lib/docker", "var/lib/containerd"] {
        entries.push(Entry::Directory(mount_point.to_owned()));
    }
    entries
}

fn masked() -> impl Iterator<Item = &'static str> {
    MASKED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_enabled_is_masked() {
        for (_, unit) in ENABLED {
            assert!(!masked().any(|name| name == *unit), "{unit}");
            let path = format!("etc/systemd/system/{unit}");
            assert!(FILES.iter().any(|(file, _)| *file == path), "{unit}");
        }
    }

    #[test]
    fn every_path_is_given_once() {
        let mut paths: Vec<String> = entries(&[])
            .into_iter()
            .map(|entry| match entry {
                Entry::Directory(path) | Entry::File(path, _) | Entry::Symlink(path, _) => path,
            })
            .collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
        assert!(paths.iter().all(|path| !path.starts_with('/')));
    }

    #[test]
    fn every_file_below_rootfs_is_used() {
        fn walk(directory: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path.to_str().unwrap().to_owned());
                }
            }
        }
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/rootfs/");
        let mut found = Vec::new();
        walk(root.as_ref(), &mut found);
        for path in found {
            let path = path.strip_prefix(root).unwrap();
            let used = path == "masked_units.txt" || FILES.iter().any(|(file, _)| *file == path);
            assert!(used, "{path} is not used");
        }
    }
}
