//! What every operation works on: a path together with its format.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A format of disk images, by the name that `qemu-img` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the disk and nothing else.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// `VirtualBox`.
    Vdi,
    /// Hyper-V, newer.
    Vhdx,
    /// `VMware`.
    Vmdk,
    /// Hyper-V and Virtual PC, older (`.vhd`).
    Vpc,
}

impl Format {
    /// The name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vpc => "vpc",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A disk image: where it is and what format it has.
///
/// A relative path counts from the current directory of the process, also for a backing file (where
/// `qemu-img` itself would count from the directory of the overlay).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image<'a> {
    pub(crate) path: &'a Path,
    pub(crate) format: Format,
}

impl<'a> Image<'a> {
    /// An image of the given format.
    pub fn new(path: &'a (impl AsRef<Path> + ?Sized), format: Format) -> Self {
        Self {
            path: path.as_ref(),
            format,
        }
    }

    /// A qcow2 image.
    pub fn qcow2(path: &'a (impl AsRef<Path> + ?Sized)) -> Self {
        Self::new(path, Format::Qcow2)
    }

    /// A raw image.
    pub fn raw(path: &'a (impl AsRef<Path> + ?Sized)) -> Self {
        Self::new(path, Format::Raw)
    }

    /// Where the image is.
    #[must_use]
    pub const fn path(&self) -> &'a Path {
        self.path
    }

    /// The format it is read or written as.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn locate(&self) -> io::Result<Located> {
        Ok(Located {
            path: std::path::absolute(self.path)?,
            format: self.format,
        })
    }
}

/// An [`Image`] whose path is absolute.
///
/// That is all the quoting a file name needs as an argument of its own: an option begins with `-`,
/// and a protocol (`nbd:`, `json:`) has its colon before the first slash (`path_has_protocol` in
/// QEMU's block.c).
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
}

impl Located {
    /// The value of `--image-opts`, for `qemu-img snapshot`, which cannot be told a format otherwise.
    ///
    /// Values of such a list end at a comma, and two commas stand for one (`get_opt_value` in
    /// QEMU's util/keyval.c and util/qemu-option.c).
    pub(crate) fn image_opts(&self) -> OsString {
        let mut opts = format!("driver={},file.filename=", self.format).into_bytes();
        for &byte in OsStr::as_bytes(self.path.as_os_str()) {
            opts.push(byte);
            if byte == b',' {
                opts.push(byte);
            }
        }
        OsString::from_vec(opts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_names_cannot_be_options_or_protocols() {
        for name in ["-b", "nbd:unix:/x", "json:{}", "a,b"] {
            let located = Image::raw(name).locate().unwrap();
            assert!(located.path.is_absolute(), "{name}");
            assert!(located.path.ends_with(name), "{name}");
        }
        assert!(Image::raw("").locate().is_err());
    }

    #[test]
    fn commas_are_doubled_and_other_bytes_kept() {
        let located = Located {
            path: OsString::from_vec(b"/a,b c:%\xff\n,.q".to_vec()).into(),
            format: Format::Qcow2,
        };
        assert_eq!(
            located.image_opts().as_bytes(),
            b"driver=qcow2,file.filename=/a,,b c:%\xff\n,,.q"
        );
    }
}
