//! What a build tells while it runs.

use std::fmt;

/// A step of making an image, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BuildStep {
    /// Waits until another process is done with the same image.
    Wait,
    /// Fetches the archive's signed index.
    Index,
    /// Chooses the packages.
    Resolve,
    /// Downloads packages.
    Download,
    /// Checks every package's digest.
    Check,
    /// Unpacks and configures the packages.
    Install,
    /// Makes the file system, kernel and initramfs.
    FileSystem,
    /// Converts the disk.
    Disk,
    /// Puts the image into its store.
    Publish,
}

impl BuildStep {
    /// A few words for a progress line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "waiting for another build",
            Self::Index => "fetching the package index",
            Self::Resolve => "choosing packages",
            Self::Download => "downloading packages",
            Self::Check => "checking packages",
            Self::Install => "installing packages",
            Self::FileSystem => "making the file system",
            Self::Disk => "converting the disk",
            Self::Publish => "publishing the image",
        }
    }
}

impl fmt::Display for BuildStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BuildEvent {
    /// The step that runs.
    pub step: BuildStep,
    /// How much of the step is done, from 0 to 1, where that is known.
    pub fraction: Option<f32>,
}
