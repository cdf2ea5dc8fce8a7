//! `colima logs`.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    mem::MaybeUninit,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{Context, print};
use crate::{
    args::{LogSource, LogsArgs},
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    output::escaped,
};

/// The most that is read of a log to find its last lines.
const WINDOW: u64 = 1 << 20;

pub(super) fn run(context: &Context<'_>, args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let path = match args.source() {
        LogSource::Daemon => context.paths.daemon_log.clone(),
        LogSource::Serial => context.paths.machine_dir.join("console.log"),
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            CommandError::new(ErrorKind::NoSuchProfile, "nothing has been logged yet")
                .because(format!("there is no {}", path.display()))
        }
        _ => CommandError::new(
            ErrorKind::Failure,
            format!("cannot read {}", path.display()),
        )
        .caused_by(&error),
    };
    let mut log = Log::open(&path).map_err(failed)?;
    let text = log.tail(args.lines).map_err(failed)?;
    print(text)?;
    if args.follow {
        let changes = inotify::init(CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        // The directory, because a log that is full is replaced by a new file.
        let directory = path.parent().unwrap_or(Path::new("/"));
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, directory, wanted).map_err(|e| failed(e.into()))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&changes, &mut buffer);
        loop {
            print(log.news().map_err(failed)?)?;
            events.next().map_err(|e| failed(e.into()))?;
        }
    }
    Ok(ExitCode::Ok)
}

/// A log file that grows and is sometimes replaced.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path)?,
        })
    }

    /// The last `count` lines; the next news begin after them.
    fn tail(&mut self, count: usize) -> io::Result<String> {
        let length = self.file.metadata()?.len();
        self.file
            .seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let text = self.rest()?;
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(count)..];
        Ok(last.iter().map(|line| format!("{line}\n")).collect())
    }

    /// What was written since the last look, from a new file if there is one.
    fn news(&mut self) -> io::Result<String> {
        let mut news = self.rest()?;
        match File::open(&self.path) {
            Ok(current) if current.metadata()?.ino() != self.file.metadata()?.ino() => {
                self.file = current;
                news.push_str(&self.rest()?);
            }
            // Between the old file's rename and the new one's creation.
            _ => {}
        }
        Ok(news)
    }

    /// Everything that can be read now, safe for a terminal.
    fn rest(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut safe = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            safe.push_str(&escaped(line.trim_end_matches(['\n', '\r'])));
            if line.ends_with('\n') {
                safe.push('\n');
            }
        }
        Ok(safe)
    }
}
