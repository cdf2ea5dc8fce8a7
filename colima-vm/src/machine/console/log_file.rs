//! A log file of bounded size with one predecessor.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Appends to a file, and renames it to `NAME.1` when it reaches a size.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    longest: u64,
    /// `None` before the first write and after a failed one.
    open: Option<(fs::File, u64)>,
}

impl LogFile {
    pub(super) fn new(path: &Path, longest: u64) -> Self {
        Self {
            path: path.to_owned(),
            longest,
            open: None,
        }
    }

    /// Writes what it can: a log is worth less than the machine.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(_) => {
                    self.open = None;
                    return;
                }
            }
        }
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self
            .open
            .as_ref()
            .is_none_or(|(_, length)| *length >= self.longest)
        {
            self.open = Some(self.reopen()?);
        }
        let Some((file, length)) = &mut self.open else {
            return Ok(bytes.len());
        };
        let room = usize::try_from(self.longest - *length).unwrap_or(usize::MAX);
        let piece = &bytes[..bytes.len().min(room)];
        file.write_all(piece)?;
        *length += piece.len() as u64;
        Ok(piece.len())
    }

    fn reopen(&self) -> io::Result<(fs::File, u64)> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() >= self.longest) {
            fs::rename(&self.path, self.predecessor())?;
        }
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn predecessor(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".1");
        self.path.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_fills_two_segments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = LogFile::new(&path, 1000);
        for number in 0..2000 {
            log.write(format!("line {number}\n").as_bytes());
        }
        let now = fs::read(&path).unwrap();
        let before = fs::read(directory.path().join("console.log.1")).unwrap();
        assert!(now.len() <= 1000);
        assert_eq!(before.len(), 1000);
        let both = [before, now].concat();
        assert!(both.ends_with(b"line 1998\nline 1999\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_second_run_appends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        LogFile::new(&path, 1000).write(b"one\n");
        LogFile::new(&path, 1000).write(b"two\n");
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    }
}
