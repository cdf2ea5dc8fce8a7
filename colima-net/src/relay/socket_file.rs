//! A unix socket with a path that nobody else can reach or replace.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::UnixListener;

use crate::NetError;

/// Bytes of a path in a `sockaddr_un`, without the final zero.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listening unix socket, mode 0600, in a directory that only its owner can enter.
///
/// # Drop
///
/// Dropping it closes the socket and unlinks its file, unless the path leads to another file by
/// then. A process that is killed leaves the file; the next [`bind`](Self::bind) replaces it.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    identity: Identity,
}

/// Which file a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[expect(clippy::useless_conversion, reason = "the widths differ by platform")]
    fn of(stat: &Stat) -> Self {
        Self {
            device: u64::try_from(stat.st_dev).unwrap_or(u64::MAX),
            inode: u64::from(stat.st_ino),
        }
    }
}

impl SocketFile {
    /// Makes a socket at `path` and listens.
    ///
    /// The directory is made (0700) where it does not exist; its parent must exist. A socket that
    /// a dead process left behind is replaced. On Linux the path may be longer than the 107 bytes
    /// of a socket address; its file name may not.
    ///
    /// Processes that do this in one directory at the same time wait for each other: for the few
    /// system calls that it takes, the directory is locked with `flock`.
    ///
    /// # Errors
    ///
    /// [`NetError::SocketInUse`] when a process answers there; [`NetError::SocketOccupied`] for a file
    /// that is no socket of ours, symbolic links included; [`NetError::SocketDirectoryNotPrivate`];
    /// [`NetError::SocketPath`]; otherwise what the system said. Nothing of others is removed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, NetError> {
        let path = path.into();
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            let limit = LONGEST_PATH;
            return Err(NetError::SocketPath { path, limit });
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = private_directory(parent)?;
        let place = Place {
            directory,
            name,
            path,
        };
        let bind_failed = |source| NetError::SocketBind {
            path: place.path.clone(),
            source,
        };
        // Clients must be able to name it, too.
        place.address(&place.name)?;
        flock(&place.directory, FlockOperation::LockExclusive)
            .map_err(|errno| bind_failed(errno.into()))?;
        let made = place.clear().and_then(|()| place.listen());
        flock(&place.directory, FlockOperation::Unlock)
            .map_err(|errno| bind_failed(errno.into()))?;
        let (socket, identity) = made?;
        let listener = std::os::unix::net::UnixListener::from(socket);
        let listener = UnixListener::from_std(listener).map_err(bind_failed)?;
        Ok(Self {
            listener,
            directory: place.directory,
            name: place.name,
            path: place.path,
            identity,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening socket.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| Identity::of(&stat) == self.identity) {
            // Nobody to tell; a dead socket file is replaced by whoever needs the path next.
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Opens the directory, and makes sure that nobody else can put anything into it.
fn private_directory(path: &Path) -> Result<OwnedFd, NetError> {
    let failed = |errno: Errno| NetError::SocketDirectory {
        path: path.to_owned(),
        source: errno.into(),
    };
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&directory).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    let mode = Mode::from_raw_mode(stat.st_mode);
    if stat.st_uid != user || mode.intersects(Mode::RWXG | Mode::RWXO) {
        let path = path.to_owned();
        return Err(NetError::SocketDirectoryNotPrivate { path, user });
    }
    Ok(directory)
}

/// Where the socket shall be.
struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Removes a dead socket of ours; anything else that is there is an error.
    fn clear(&self) -> Result<(), NetError> {
        let failed = |errno: Errno| NetError::SocketBind {
            path: self.path.clone(),
            source: errno.into(),
        };
        let found = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = match found {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let user = rustix::process::geteuid().as_raw();
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket || stat.st_uid != user {
            let path = self.path.clone();
            return Err(NetError::SocketOccupied { path, user });
        }
        // A full backlog is EAGAIN without waiting, and a sign of life as well.
        let socket = stream_socket().map_err(failed)?;
        let address = self.address(&self.name)?;
        match rustix::net::connect(&socket, &address) {
            Err(Errno::CONNREFUSED) => {}
            Err(Errno::NOENT) => return Ok(()),
            Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
                let path = self.path.clone();
                return Err(NetError::SocketInUse { path });
            }
            Err(errno) => return Err(failed(errno)),
        }
        match rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Binds under another name, and gives the socket its own when its mode is right.
    ///
    /// The name is taken with `link`, which unlike `rename` fails where a file exists.
    fn listen(&self) -> Result<(OwnedFd, Identity), NetError> {
        let failed = |errno: Errno| NetError::SocketBind {
            path: self.path.clone(),
            source: errno.into(),
        };
        let socket = stream_socket().map_err(failed)?;
        let temporary = OsStr::new(".new-socket");
        // Left by a process that was killed just here; the lock says that it is not in use.
        match rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        rustix::net::bind(&socket, &self.address(temporary)?).map_err(failed)?;
        let named = self.give_name(&socket, temporary);
        let _ = rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        match named {
            Ok(identity) => Ok((socket, identity)),
            Err(Errno::EXIST) => {
                let path = self.path.clone();
                Err(NetError::SocketInUse { path })
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    fn give_name(&self, socket: impl AsFd, temporary: &OsStr) -> Result<Identity, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::chmodat(&self.directory, temporary, mode, AtFlags::empty())?;
        rustix::net::listen(socket, BACKLOG)?;
        let stat = rustix::fs::statat(&self.directory, temporary, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::linkat(
            &self.directory,
            temporary,
            &self.directory,
            &self.name,
            AtFlags::empty(),
        )?;
        Ok(Identity::of(&stat))
    }

    /// The address of a file in the directory, by its path or, where that is too long, by the
    /// directory's descriptor.
    fn address(&self, name: &OsStr) -> Result<SocketAddrUnix, NetError> {
        let full = self.path.with_file_name(name);
        let path = if full.as_os_str().len() <= LONGEST_PATH || !cfg!(target_os = "linux") {
            full
        } else {
            let number = self.directory.as_raw_fd();
            Path::new(&format!("/proc/self/fd/{number}")).join(name)
        };
        let too_long = || NetError::SocketPath {
            path: self.path.clone(),
            limit: LONGEST_PATH,
        };
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(too_long());
        }
        SocketAddrUnix::new(path.as_os_str().as_bytes()).map_err(|_| too_long())
    }
}

/// A stream socket that neither blocks nor is inherited.
fn stream_socket() -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    #[cfg(target_os = "linux")]
    {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(family, kind, flags, None)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let socket = rustix::net::socket_with(family, kind, SocketFlags::empty(), None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }
}
