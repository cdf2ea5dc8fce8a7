//! The handle, and the one place where a process is started.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::{
    CheckReport, Convert, Create, Error, Image, ImageInfo, Locking, Operation, Percent, Repair,
    Resize, Snapshot, Version,
    argv::{self, CreateArgs, SnapshotChange},
    check::{self, CheckExit},
    error,
    image::Located,
    info,
    progress::ProgressParser,
    version,
};

/// The `qemu-img` program of this host.
///
/// Only a path: nothing is started before a method is called, there is nothing to close, and one
/// handle serves any number of calls at once. Every method runs one process to its end; dropping the
/// future kills it (SIGKILL) and leaves its burial to the runtime. Nothing here has a deadline of its
/// own: wrap a call in a timeout where the image may lie on a dead network file system or be a FIFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuImg {
    program: PathBuf,
}

/// Standard error beyond this is read and dropped.
const STDERR_KEPT: usize = 64 << 10;

/// An image has at most 65,536 snapshots (`QCOW_MAX_SNAPSHOTS`), which makes less JSON than this.
const STDOUT_KEPT: usize = 64 << 20;

impl Default for QemuImg {
    fn default() -> Self {
        Self::new()
    }
}

/// How a process ended and what it printed.
struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

impl QemuImg {
    /// The program `qemu-img`, which the system finds by its search path.
    #[must_use]
    pub fn new() -> Self {
        Self::at("qemu-img")
    }

    /// The program at this path.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// The path or name this handle starts.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The version of the program.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] is the one to expect; [`Error::Output`] if it is no `qemu-img`.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn version(&self) -> Result<Version, Error> {
        let argv = vec!["--version".into()];
        let done = self.run(Operation::Version, argv, |_| ()).await?;
        let done = succeeded(Operation::Version, done, &[&self.program])?;
        version::parse(&String::from_utf8_lossy(&done.stdout)).ok_or_else(|| Error::Output {
            operation: Operation::Version,
            source: "it names no version".into(),
        })
    }

    /// Sizes, backing file, snapshots and the rest of what an image says about itself.
    ///
    /// Only the image itself is read, but QEMU opens an external data file that it names.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason`](crate::Reason) `NotFound`, `WrongFormat`, `InUse`.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn info(&self, image: Image<'_>, locking: Locking) -> Result<ImageInfo, Error> {
        let operation = Operation::Info;
        let image = locate(image)?;
        let done = self
            .run(operation, argv::info(&image, locking), |_| ())
            .await?;
        let done = succeeded(operation, done, &[&image.path])?;
        info::parse(&done.stdout).map_err(|source| output(operation, source))
    }

    /// The snapshots inside an image, oldest first.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn snapshots(
        &self,
        image: Image<'_>,
        locking: Locking,
    ) -> Result<Vec<Snapshot>, Error> {
        Ok(self.info(image, locking).await?.snapshots)
    }

    /// Checks the tables of an image and repairs what `repair` allows.
    ///
    /// Damage that was found is a [`CheckReport`], not an error.
    ///
    /// # Errors
    ///
    /// [`Error::CheckUnsupported`] for a format without checks (raw); [`Error::Failed`] when the check
    /// could not run to its end.
    ///
    /// # Cancel safety
    ///
    /// With [`Repair::Nothing`] it changes nothing. A repair that is cut short leaves an image that
    /// needs another one, no worse than a power failure would.
    pub async fn check(&self, image: Image<'_>, repair: Repair) -> Result<CheckReport, Error> {
        let operation = Operation::Check;
        let image = locate(image)?;
        let done = self
            .run(operation, argv::check(&image, repair), |_| ())
            .await?;
        match CheckExit::from_code(done.status.code()) {
            CheckExit::Completed(verdict) => check::parse(verdict, &done.stdout, done.stderr)
                .map_err(|source| output(operation, source)),
            CheckExit::Unsupported => Err(Error::CheckUnsupported {
                image: image.path,
                format: image.format,
            }),
            CheckExit::Incomplete | CheckExit::Unknown => {
                Err(failed(operation, done, &[&image.path]))
            }
        }
    }

    /// Creates an image. **A file that is already there is emptied first.**
    ///
    /// An existing file keeps its permissions; a new one gets 0644 less the umask.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason`](crate::Reason) `NotFound`, `NoSpace`, `PermissionDenied`,
    /// `InUse`.
    ///
    /// # Cancel safety
    ///
    /// May leave a file that is no image: create under another name and rename.
    pub async fn create(&self, create: &Create<'_>) -> Result<(), Error> {
        let args = CreateArgs {
            image: locate(create.image)?,
            backing: create.backing.map(locate).transpose()?,
            virtual_size: create.virtual_size,
            cluster_size: create.cluster_size,
            preallocation: create.preallocation,
        };
        let done = self
            .run(Operation::Create, argv::create(&args), |_| ())
            .await?;
        let mut names = vec![args.image.path.as_path()];
        names.extend(args.backing.as_ref().map(|backing| backing.path.as_path()));
        succeeded(Operation::Create, done, &names)?;
        Ok(())
    }

    /// Gives an image the size of `virtual_size` bytes, rounded up to whole sectors of 512.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason`](crate::Reason) `WouldShrink`, `InUse` and the others.
    ///
    /// # Cancel safety
    ///
    /// The image has its old or its new size and is whole; a raw image may have a size between.
    pub async fn resize(
        &self,
        image: Image<'_>,
        virtual_size: u64,
        resize: Resize,
    ) -> Result<(), Error> {
        let image = locate(image)?;
        let argv = argv::resize(&image, virtual_size, resize);
        let done = self.run(Operation::Resize, argv, |_| ()).await?;
        succeeded(Operation::Resize, done, &[&image.path])?;
        Ok(())
    }

    /// Copies an image into another format and calls `progress` as it goes, last with 100 %.
    ///
    /// `progress` runs between reads of the program's output: it should not block.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason`](crate::Reason) `NotFound`, `NoSpace`, `WrongFormat` and the
    /// others.
    ///
    /// # Cancel safety
    ///
    /// Leaves a part of the target, which the caller removes; the source is only read.
    pub async fn convert(
        &self,
        convert: &Convert<'_>,
        mut progress: impl FnMut(Percent) + Send,
    ) -> Result<(), Error> {
        let (source, target) = (locate(convert.source)?, locate(convert.target)?);
        let argv = argv::convert(&source, &target, convert.compression);
        let mut parser = ProgressParser::default();
        let done = self
            .run(Operation::Convert, argv, |piece| {
                parser.feed(piece, &mut progress);
            })
            .await?;
        succeeded(Operation::Convert, done, &[&target.path, &source.path])?;
        Ok(())
    }

    /// Adds a snapshot to an image that no machine has open.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`]; formats other than qcow2 have no snapshots.
    ///
    /// # Cancel safety
    ///
    /// The snapshot exists or it does not; clusters may leak, which [`check`](Self::check) repairs.
    pub async fn create_snapshot(&self, image: Image<'_>, name: &str) -> Result<(), Error> {
        self.snapshot(image, SnapshotChange::Create(name)).await
    }

    /// Returns an image to a snapshot, by id or by name. What was written since is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason::NoSuchSnapshot`](crate::Reason::NoSuchSnapshot).
    ///
    /// # Cancel safety
    ///
    /// The image has its old or its new contents; clusters may leak.
    pub async fn apply_snapshot(&self, image: Image<'_>, name: &str) -> Result<(), Error> {
        self.snapshot(image, SnapshotChange::Apply(name)).await
    }

    /// Deletes a snapshot, by id or by name.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with [`Reason::NoSuchSnapshot`](crate::Reason::NoSuchSnapshot).
    ///
    /// # Cancel safety
    ///
    /// The snapshot exists or it does not; clusters may leak.
    pub async fn delete_snapshot(&self, image: Image<'_>, name: &str) -> Result<(), Error> {
        self.snapshot(image, SnapshotChange::Delete(name)).await
    }

    async fn snapshot(&self, image: Image<'_>, change: SnapshotChange<'_>) -> Result<(), Error> {
        let image = locate(image)?;
        let argv = argv::snapshot(&image, change);
        let done = self.run(Operation::Snapshot, argv, |_| ()).await?;
        succeeded(Operation::Snapshot, done, &[&image.path])?;
        Ok(())
    }

    /// Runs the program to its end, however that is.
    async fn run(
        &self,
        operation: Operation,
        argv: Vec<OsString>,
        on_stdout: impl FnMut(&[u8]) + Send,
    ) -> Result<Finished, Error> {
        let mut child = Command::new(&self.program)
            .args(argv)
            // Messages are read by `error::interpret`.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NotInstalled {
                    program: self.program.clone(),
                    source,
                },
                _ => Error::Start {
                    program: self.program.clone(),
                    source,
                },
            })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // All three at once: a full pipe that nobody reads would stop the program.
        let (stdout, stderr, status) = tokio::try_join!(
            read_some(stdout, STDOUT_KEPT, on_stdout),
            read_some(stderr, STDERR_KEPT, |_| ()),
            child.wait(),
        )
        .map_err(|source| Error::Lost { operation, source })?;
        Ok(Finished {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
        })
    }
}

/// Reads to the end, shows every piece to `seen` and keeps the first `kept` bytes.
async fn read_some(
    pipe: Option<impl AsyncRead + Unpin>,
    kept: usize,
    mut seen: impl FnMut(&[u8]),
) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(all);
    };
    let mut buffer = [0; 4096];
    loop {
        let piece = match pipe.read(&mut buffer).await? {
            0 => return Ok(all),
            n => &buffer[..n],
        };
        seen(piece);
        let room = kept.saturating_sub(all.len());
        all.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

fn locate(image: Image<'_>) -> Result<Located, Error> {
    image.locate().map_err(|source| Error::Path {
        path: image.path.to_owned(),
        source,
    })
}

fn output(operation: Operation, source: serde_json::Error) -> Error {
    Error::Output {
        operation,
        source: source.into(),
    }
}

fn succeeded(operation: Operation, done: Finished, names: &[&Path]) -> Result<Finished, Error> {
    if done.status.success() {
        Ok(done)
    } else {
        Err(failed(operation, done, names))
    }
}

/// The error of a run about the images `names`, of which the first is the one to report.
fn failed(operation: Operation, done: Finished, names: &[&Path]) -> Error {
    Error::Failed {
        operation,
        image: names.first().copied().unwrap_or(Path::new("")).to_owned(),
        status: done.status,
        reason: error::interpret(&done.stderr, names),
        stderr: done.stderr,
    }
}
