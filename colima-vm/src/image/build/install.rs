//! The command lines that make a root file system and its disk.

use std::path::{Path, PathBuf};

use super::{
    super::{PackageLock, rootfs},
    privilege::Privilege,
    tool::Tool,
};

/// The script that runs inside mmdebstrap; see its own comments.
pub(super) const FINISH: &str = include_str!("finish.sh");

/// Where a build keeps what mmdebstrap reads, readable for a mapped user.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) directory: PathBuf,
}

impl Payload {
    pub(super) fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.directory.join("kernel.deb")
    }

    pub(super) fn script(&self) -> PathBuf {
        self.directory.join("finish")
    }

    /// Where mmdebstrap makes the tree.
    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }
}

/// What comes out of [`mmdebstrap`], in the directory it is told.
pub(super) const RESULTS: [&str; 3] = ["root.ext4", "vmlinux", "release"];

/// mmdebstrap for a lock: from the local repository alone, results into `out`.
///
/// The tree itself is thrown away (`--format=null`); the script makes a file system of it inside the
/// namespace, where all owners are right, and `download` hooks bring the files out.
pub(super) fn mmdebstrap(
    lock: &PackageLock,
    payload: &Payload,
    uuid: &str,
    privilege: Privilege,
    out: &Path,
) -> Tool {
    let packages = lock.packages.iter().filter(|package| !package.is_kernel());
    let include: Vec<&str> = packages.map(|package| package.name.as_str()).collect();
    let quote = |path: &Path| shell_quote(&path.display().to_string());
    Tool::new("mmdebstrap", "mmdebstrap")
        .env("SOURCE_DATE_EPOCH", lock.epoch.to_string())
        .env("TMPDIR", payload.temporary())
        .env("PAYLOAD", &payload.directory)
        .env("MODULES", rootfs::BOOT_MODULES.join(" "))
        .env("EXT4_UUID", uuid)
        .args([
            format!("--mode={}", privilege.mode()),
            "--variant=custom".to_owned(),
            "--format=null".to_owned(),
            "--skip=cleanup".to_owned(),
            format!("--architectures={}", lock.arch.debian()),
            format!("--include={}", include.join(",")),
        ])
        .args(
            rootfs::EXCLUDED_PATHS
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .args([format!("--customize-hook={}", payload.script().display())])
        .args(RESULTS.map(|name| {
            format!(
                "--customize-hook=download /mnt/out/{name} {}",
                quote(&out.join(name))
            )
        }))
        .args([
            format!("--customize-hook=copy-out /mnt/out/modules {}", quote(out)),
            lock.suite.clone(),
            "/dev/null".to_owned(),
            format!(
                "deb [trusted=yes] copy:{} ./",
                payload.repository().display()
            ),
        ])
}

/// mmdebstrap stopped at the point where it has decided about `sources.list`.
///
/// It knows the archive of every suite, and which keyring signs it on this host. So no name of an
/// archive stands in this program.
pub(super) fn show_sources(suite: &str, mirror: Option<&str>) -> Tool {
    Tool::new("mmdebstrap", "mmdebstrap")
        .args([
            "--mode=chrootless",
            // Newer versions refuse this mode to root, for what it would install; this one installs nothing.
            "--skip=check/chrootless",
            "--variant=custom",
            "--format=null",
            "--setup-hook=cat \"$1/etc/apt/sources.list\"; exit 1",
            suite,
            "/dev/null",
        ])
        .args(mirror)
}

/// qemu-img from the raw file system to the image's disk; in order (no `-W`), so that equal input gives
/// an equal file.
pub(super) fn convert(raw: &Path, disk: &Path) -> Tool {
    Tool::new("qemu-img", "qemu-utils")
        .args([
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            "compat=1.1,lazy_refcounts=off",
        ])
        .args([raw, disk])
}

/// Quoted for a shell, and for Perl's `shellwords`.
fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let lock = super::super::super::package_lock::tests::sample();
        let payload = Payload {
            directory: "/scratch/colima-image".into(),
        };
        let tools = [
            mmdebstrap(
                &lock,
                &payload,
                "e3b0c442-98fc-8c14-9afb-f4c8996fb924",
                Privilege::UserNamespace,
                "/home/o'neil/store/.new-x".as_ref(),
            ),
            show_sources("trixie", None),
            show_sources("trixie", Some("http://mirror.example/debian")),
            convert("/out/root.ext4".as_ref(), "/out/root.qcow2".as_ref()),
        ];
        insta::assert_snapshot!(tools.map(|tool| tool.display()).join("\n\n"));
    }
}
