//! From a request to the argument vector of `qemu-img`: pure, and pinned by snapshots.
//!
//! Options come first, each value as an argument of its own, and paths are absolute
//! ([`Located`]), so that no name can be taken for anything but a name.

use std::ffi::OsString;

use crate::{
    Compression, Locking, Preallocation, Repair, Resize,
    image::{Format, Located},
};

/// A change to the snapshots inside an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SnapshotChange<'a> {
    Create(&'a str),
    Apply(&'a str),
    Delete(&'a str),
}

/// [`crate::Create`] with its paths made absolute.
#[derive(Clone, Debug)]
pub(crate) struct CreateArgs {
    pub(crate) image: Located,
    pub(crate) backing: Option<Located>,
    pub(crate) virtual_size: Option<u64>,
    pub(crate) cluster_size: Option<u32>,
    pub(crate) preallocation: Preallocation,
}

fn argv<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

fn format(argv: &mut Vec<OsString>, flag: &str, format: Format) {
    argv.push(flag.into());
    argv.push(format.as_str().into());
}

pub(crate) fn info(image: &Located, locking: Locking) -> Vec<OsString> {
    let mut argv = argv(["info", "--output=json"]);
    match locking {
        Locking::Respect => {}
        Locking::ForceShare => argv.push("-U".into()),
    }
    format(&mut argv, "-f", image.format);
    argv.push(image.path.clone().into());
    argv
}

pub(crate) fn check(image: &Located, repair: Repair) -> Vec<OsString> {
    let mut argv = argv(["check", "--output=json"]);
    match repair {
        Repair::Nothing => {}
        Repair::Leaks => argv.extend(["-r", "leaks"].map(OsString::from)),
        Repair::Everything => argv.extend(["-r", "all"].map(OsString::from)),
    }
    format(&mut argv, "-f", image.format);
    argv.push(image.path.clone().into());
    argv
}

pub(crate) fn create(create: &CreateArgs) -> Vec<OsString> {
    let mut argv = argv(["create", "-q"]);
    format(&mut argv, "-f", create.image.format);
    if let Some(backing) = &create.backing {
        argv.push("-b".into());
        argv.push(backing.path.clone().into());
        format(&mut argv, "-F", backing.format);
    }
    if let Some(bytes) = create.cluster_size {
        argv.push("-o".into());
        argv.push(format!("cluster_size={bytes}").into());
    }
    if let Some(option) = create.preallocation.option() {
        argv.push("-o".into());
        argv.push(option.into());
    }
    argv.push(create.image.path.clone().into());
    argv.extend(create.virtual_size.map(|bytes| bytes.to_string().into()));
    argv
}

pub(crate) fn resize(image: &Located, virtual_size: u64, resize: Resize) -> Vec<OsString> {
    let mut argv = argv(["resize", "-q"]);
    match resize {
        Resize::GrowOnly => {}
        Resize::AllowShrink => argv.push("--shrink".into()),
    }
    format(&mut argv, "-f", image.format);
    argv.push(image.path.clone().into());
    argv.push(virtual_size.to_string().into());
    argv
}

pub(crate) fn convert(source: &Located, target: &Located, how: Compression) -> Vec<OsString> {
    let mut argv = argv(["convert", "-p"]);
    format(&mut argv, "-f", source.format);
    format(&mut argv, "-O", target.format);
    match how {
        Compression::None => {}
        Compression::Zlib => argv.push("-c".into()),
        Compression::Zstd => {
            argv.extend(["-c", "-o", "compression_type=zstd"].map(OsString::from));
        }
    }
    argv.push(source.path.clone().into());
    argv.push(target.path.clone().into());
    argv
}

pub(crate) fn snapshot(image: &Located, change: SnapshotChange<'_>) -> Vec<OsString> {
    let (flag, name) = match change {
        SnapshotChange::Create(name) => ("-c", name),
        SnapshotChange::Apply(name) => ("-a", name),
        SnapshotChange::Delete(name) => ("-d", name),
    };
    let mut argv = argv(["snapshot", "-q", flag, name, "--image-opts"]);
    argv.push(image.image_opts());
    argv
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use insta::assert_snapshot;

    use super::*;

    fn located(path: &str, format: Format) -> Located {
        Located {
            path: PathBuf::from(path),
            format,
        }
    }

    fn line(argv: &[OsString]) -> String {
        let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" | ")
    }

    #[test]
    fn every_operation() {
        let disk = located("/vm/a, b.qcow2", Format::Qcow2);
        let raw = located("/vm/raw:1.img", Format::Raw);
        let plain = CreateArgs {
            image: disk.clone(),
            backing: None,
            virtual_size: Some(1 << 30),
            cluster_size: None,
            preallocation: Preallocation::Off,
        };
        let overlay = CreateArgs {
            backing: Some(located("/base,1.qcow2", Format::Qcow2)),
            virtual_size: None,
            ..plain.clone()
        };
        let reserved = CreateArgs {
            cluster_size: Some(1 << 20),
            preallocation: Preallocation::Metadata,
            ..plain.clone()
        };
        let lines = [
            info(&disk, Locking::Respect),
            info(&disk, Locking::ForceShare),
            check(&disk, Repair::Nothing),
            check(&disk, Repair::Leaks),
            check(&disk, Repair::Everything),
            create(&plain),
            create(&overlay),
            create(&reserved),
            resize(&disk, 1 << 40, Resize::GrowOnly),
            resize(&raw, 512, Resize::AllowShrink),
            convert(&raw, &disk, Compression::None),
            convert(&raw, &disk, Compression::Zlib),
            convert(&disk, &disk, Compression::Zstd),
            snapshot(&disk, SnapshotChange::Create("-first")),
            snapshot(&disk, SnapshotChange::Apply("first")),
            snapshot(&disk, SnapshotChange::Delete("first")),
        ];
        assert_snapshot!(
            lines
                .iter()
                .map(|argv| line(argv))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
}
