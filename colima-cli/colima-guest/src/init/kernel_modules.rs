//! Loads the modules that the image lists.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::GuestError;

/// The list in the image's initramfs: paths of modules, one per line, in the order of loading.
const LIST: &str = "colima/modules";

/// `MODULE_INIT_COMPRESSED_FILE` of the kernel's `include/uapi/linux/module.h`: the kernel unpacks.
const COMPRESSED: i32 = 4;

pub(super) fn load(root: &Path) -> Result<(), GuestError> {
    let list = root.join(LIST);
    let text = std::fs::read_to_string(&list)
        .map_err(|source| GuestError::ReadFile { path: list, source })?;
    for module in modules(&text) {
        let path = root.join(module.file);
        load_one(&path).map_err(|source| GuestError::LoadModule { path, source })?;
    }
    Ok(())
}

/// Loads one module; one that is loaded is fine.
pub(crate) fn load_one(path: &Path) -> io::Result<()> {
    let flags = match Compression::of(path) {
        Compression::None => 0,
        Compression::Kernel => COMPRESSED,
    };
    match rustix::system::finit_module(File::open(path)?, c"", flags) {
        // Built in, or loaded as a dependency.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Module {
    file: PathBuf,
    compression: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Kernel,
}

impl Compression {
    fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz" | "zst" | "gz") => Self::Kernel,
            _ => Self::None,
        }
    }
}

/// The modules of a list, relative to the root; empty lines and comments are skipped.
fn modules(text: &str) -> impl Iterator<Item = Module> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let file = PathBuf::from(line.trim_start_matches('/'));
            let compression = Compression::of(&file);
            Module { file, compression }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list() {
        let text = "# disks\n/lib/modules/6.12/virtio_blk.ko.xz\n\n  lib/modules/6.12/ext4.ko \n";
        let read: Vec<Module> = modules(text).collect();
        assert_eq!(
            read,
            [
                Module {
                    file: "lib/modules/6.12/virtio_blk.ko.xz".into(),
                    compression: Compression::Kernel
                },
                Module {
                    file: "lib/modules/6.12/ext4.ko".into(),
                    compression: Compression::None
                },
            ]
        );
    }
}
