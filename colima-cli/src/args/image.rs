//! `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `colima image`
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// What to do with images.
    #[command(subcommand)]
    pub verb: ImageVerb,
}

/// What to do with images.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ImageVerb {
    /// Build an image from the distribution's signed packages
    Build {
        /// Package lock to build from; without it the newest packages are taken and a lock is written
        #[arg(long, value_name = "FILE")]
        lock: Option<PathBuf>,
        /// Mirror of the distribution to fetch packages from
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
    /// Copy an image that was made elsewhere into the store
    Import {
        /// Directory with its manifest.json
        #[arg(value_name = "DIRECTORY")]
        from: PathBuf,
    },
    /// List the images
    #[command(visible_alias = "ls")]
    List {
        /// Print one JSON object per line
        #[arg(short, long)]
        json: bool,
    },
    /// Check every file of an image against its manifest
    Verify {
        /// Image, by the identifier that `list` prints; all without one
        id: Option<String>,
    },
    /// Delete an image
    Rm {
        /// Image, by the identifier that `list` prints
        id: String,
    },
}
