//! Disks whose guests tell when docker answers, and the state that every measured boot begins with.

use std::{fs, path::Path};

use qemu_img_wrapper::{Convert, Image, QemuImg};
use tokio::process::Command;

use crate::{Result, product::output};

const UNIT: &str = include_str!("colima-bench.service");

/// Makes the qcow2 disk `to` of an ext4 file system in `from`, with the peer and a unit that runs it.
/// Returns the names of the packages that are installed there, one per line.
///
/// # Errors
///
/// When a tool is missing or fails.
pub(super) async fn equip(from: Image<'_>, peer: &Path, to: &Path) -> Result<String> {
    let qemu_img = QemuImg::new();
    let (raw, unit) = (to.with_extension("raw"), to.with_extension("service"));
    qemu_img
        .convert(&Convert::new(from, Image::raw(&raw)), |_| ())
        .await?;
    fs::write(&unit, UNIT)?;
    // Offline, so that it needs neither root nor a mount.
    let script = format!(
        "cd /usr/local/bin\n\
         write {peer} colima-bench-peer\n\
         set_inode_field colima-bench-peer mode 0100755\n\
         cd /etc/systemd/system\n\
         write {unit} colima-bench.service\n\
         cd multi-user.target.wants\n\
         symlink colima-bench.service ../colima-bench.service\n",
        peer = peer.display(),
        unit = unit.display()
    );
    let commands = to.with_extension("debugfs");
    fs::write(&commands, script)?;
    let mut debugfs = Command::new("debugfs");
    output(debugfs.args(["-w", "-f"]).arg(&commands).arg(&raw)).await?;
    // debugfs succeeds whatever became of its commands.
    let link = "stat /etc/systemd/system/multi-user.target.wants/colima-bench.service";
    if !ask(link, &raw).await?.contains("Type: symlink") {
        return Err(format!("debugfs could not change {}", raw.display()).into());
    }
    let packages = packages(&ask("cat /var/lib/dpkg/status", &raw).await?);
    qemu_img
        .convert(&Convert::new(Image::raw(&raw), Image::qcow2(to)), |_| ())
        .await?;
    for left in [&raw, &unit, &commands] {
        fs::remove_file(left)?;
    }
    Ok(packages)
}

async fn ask(question: &str, raw: &Path) -> Result<String> {
    let mut debugfs = Command::new("debugfs");
    output(debugfs.args(["-R", question]).arg(raw)).await
}

/// The names in a file of dpkg's, one per line.
fn packages(status: &str) -> String {
    let names = status
        .lines()
        .filter_map(|line| line.strip_prefix("Package: "));
    names.map(|name| format!("{name}\n")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_packages() {
        let status =
            "Package: adduser\nStatus: install ok installed\n\nPackage: apt\nDepends: adduser\n";
        assert_eq!(super::packages(status), "adduser\napt\n");
    }
}
