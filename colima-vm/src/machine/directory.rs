//! The machine's own directory: its files, and sockets bound by us.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{
            DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
    },
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

use super::{
    error::{Error, Result},
    spec::{Kernel, STREAM_PORTS},
};

/// Where everything about one machine lies. Owner-only.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Creates the directory, or makes sure that an existing one is ours and closed to others.
    pub(super) fn prepare(path: &Path) -> Result<Self> {
        let create = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)?;
            let metadata = fs::metadata(path)?;
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it belongs to another user",
                ));
            }
            if metadata.mode() & 0o777 != 0o700 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            fs::canonicalize(path)
        };
        let path = create().map_err(Error::directory("prepare", path))?;
        Ok(Self { path })
    }

    /// The directory of a machine that somebody else prepared.
    pub(super) fn existing(path: &Path) -> Result<Self> {
        match fs::canonicalize(path) {
            Ok(path) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotRunning {
                directory: path.to_owned(),
            }),
            Err(error) => Err(Error::directory("open", path)(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join("machine.lock")
    }

    pub(super) fn record(&self) -> PathBuf {
        self.path.join("machine.json")
    }

    pub(super) fn qemu_log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    pub(super) fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// Binds every socket of a machine. Only the holder of the lock may do this.
    pub(super) fn bind_sockets(&self) -> Result<Sockets> {
        let bind = |name: &str| {
            self.listen(name)
                .map_err(Error::directory("bind", self.path.join(name)))
        };
        let mut ports = Vec::with_capacity(usize::from(STREAM_PORTS));
        for port in 0..STREAM_PORTS {
            ports.push(bind(&Socket::Port(port).file_name())?);
        }
        Ok(Sockets {
            qmp: bind(&Socket::Qmp.file_name())?,
            qmp_debug: bind(&Socket::QmpDebug.file_name())?,
            console: bind(&Socket::Console.file_name())?,
            ports,
        })
    }

    fn listen(&self, name: &str) -> io::Result<OwnedFd> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let address = SocketAddress::new(&self.path, name)?;
        rustix::net::bind(&socket, &address.unix)?;
        fs::set_permissions(self.path.join(name), fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 4)?;
        Ok(socket)
    }

    /// Connects to one of the machine's sockets.
    pub(super) async fn connect(&self, socket: Socket) -> io::Result<UnixStream> {
        let name = socket.file_name();
        let address = SocketAddress::new(&self.path, &name)?;
        UnixStream::connect(&address.path).await
    }

    /// Joins the parts of the initial RAM file system, each padded to four bytes.
    pub(super) fn join_initrd(&self, kernel: &Kernel) -> Result<Option<PathBuf>> {
        if kernel.initrd.is_empty() {
            return Ok(None);
        }
        let joined = self.path.join("initrd.img");
        let mut output = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&joined)
            .map_err(Error::directory("create", &joined))?;
        for part in &kernel.initrd {
            append_padded(&mut output, part).map_err(Error::directory("join", part))?;
        }
        Ok(Some(joined))
    }

    /// An empty `qemu.log`; the one of the previous machine is kept as `qemu.log.1`.
    pub(super) fn fresh_qemu_log(&self) -> Result<fs::File> {
        let path = self.qemu_log();
        let open = || {
            match fs::rename(&path, path.with_extension("log.1")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::OpenOptions::new()
                .create_new(true)
                .append(true)
                .mode(0o600)
                .open(&path)
        };
        open().map_err(Error::directory("open", &path))
    }
}

fn append_padded(output: &mut fs::File, part: &Path) -> io::Result<()> {
    use std::io::Write as _;

    let length = io::copy(&mut fs::File::open(part)?, output)?;
    let padding = usize::try_from(length.next_multiple_of(4) - length).unwrap_or(0);
    output.write_all(&[0; 3][..padding])
}

/// The listening sockets of a machine, close-on-exec.
pub(super) struct Sockets {
    pub(super) qmp: OwnedFd,
    pub(super) qmp_debug: OwnedFd,
    pub(super) console: OwnedFd,
    pub(super) ports: Vec<OwnedFd>,
}

/// One of the machine's sockets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Socket {
    Qmp,
    QmpDebug,
    Console,
    Port(u8),
}

impl Socket {
    fn file_name(self) -> String {
        match self {
            Self::Qmp => "qmp.sock".to_owned(),
            Self::QmpDebug => "qmp-debug.sock".to_owned(),
            Self::Console => "console.sock".to_owned(),
            Self::Port(port) => format!("port{port}.sock"),
        }
    }
}

/// The address of a socket, however long the path of its directory.
///
/// `sun_path` has 108 bytes on Linux and 104 on macOS (unix(7)). Linux reaches a longer path through
/// the descriptor of its directory, which has to stay open while the address is used.
struct SocketAddress {
    path: PathBuf,
    unix: SocketAddrUnix,
    _directory: Option<OwnedFd>,
}

impl SocketAddress {
    fn new(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        if let Ok(unix) = SocketAddrUnix::new(&path) {
            return Ok(Self {
                path,
                unix,
                _directory: None,
            });
        }
        Self::through_descriptor(directory, name)
    }

    #[cfg(target_os = "linux")]
    fn through_descriptor(directory: &Path, name: &str) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        use rustix::fs::{Mode, OFlags};

        let opened = rustix::fs::open(
            directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
        Ok(Self {
            unix: SocketAddrUnix::new(&path)?,
            path,
            _directory: Some(opened),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn through_descriptor(_directory: &Path, _name: &str) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            "the path is too long for a socket; use a directory with a shorter one",
        ))
    }
}
