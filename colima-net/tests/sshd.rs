//! A real sshd for the tests: one process per connection, over a socket pair, with its own keys.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use colima_core::Endpoint;
use colima_net::ssh::{Credential, HostKey, Login, Ssh, SshConfig};
use tokio::net::{UnixListener, UnixStream};

use crate::stream_bodies::{Dropped, Transport};

/// Where Debian has it; `COLIMA_TEST_SSHD` names another one.
const SSHD: &str = "/usr/sbin/sshd";

pub(crate) struct Sshd {
    program: PathBuf,
    directory: tempfile::TempDir,
    connections: AtomicUsize,
    processes: Mutex<Vec<Child>>,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for process in &mut *self.processes.lock().unwrap() {
            // It may have ended with its connection.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Sshd {
    #[expect(clippy::print_stdout, reason = "said aloud, for those who collect it")]
    /// None, said aloud for `test`, where there is no sshd that works.
    pub(crate) fn new(test: &str, more_config: &str) -> Option<Arc<Self>> {
        let program = std::env::var_os("COLIMA_TEST_SSHD").map_or(SSHD.into(), PathBuf::from);
        if !program.exists() {
            println!("skipped: {test}: no sshd (package openssh-server)");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display();
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(directory.path().join(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        fs::copy(
            directory.path().join("user_key.pub"),
            directory.path().join("authorized_keys"),
        )
        .unwrap();
        let config = format!(
            "HostKey {place}/host_key\nAuthorizedKeysFile {place}/authorized_keys\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             AllowStreamLocalForwarding yes\nSubsystem echo /bin/cat\n{more_config}\n"
        );
        let config = config + &unpacked_parts(&program);
        fs::write(directory.path().join("sshd_config"), config).unwrap();
        if rustix::process::geteuid().is_root() {
            // root's sshd insists on this empty directory; a boot makes it anew.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let checked = Command::new(&program)
            .args(["-t", "-f"])
            .arg(directory.path().join("sshd_config"))
            .output()
            .unwrap();
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr);
            println!("skipped: {test}: sshd does not work here: {}", said.trim());
            return None;
        }
        Some(Arc::new(Self {
            program,
            directory,
            connections: AtomicUsize::new(0),
            processes: Mutex::default(),
        }))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A new connection to a new process.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let (near, far) = StdUnixStream::pair()?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))?;
        let process = Command::new(&self.program)
            .args(["-i", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stdin(OwnedFd::from(far.try_clone()?))
            .stdout(OwnedFd::from(far))
            .stderr(Stdio::from(log))
            .spawn()?;
        self.processes.lock().unwrap().push(process);
        near.set_nonblocking(true)?;
        UnixStream::from_std(near)
    }

    /// Ends all connections, as an sshd that is restarted does.
    pub(crate) fn kill_all(&self) {
        for mut process in self.processes.lock().unwrap().drain(..) {
            let id = process.id().to_string();
            // What belongs to the connection runs in children of the process that was started.
            let _ = Command::new("pkill").args(["-KILL", "-P", &id]).status();
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn host_key(&self) -> HostKey {
        let line = fs::read_to_string(self.path("host_key.pub")).unwrap();
        line.parse().unwrap()
    }

    pub(crate) fn login(&self) -> Login {
        Login {
            user: user(),
            host_key: self.host_key(),
            credential: Credential::key(fs::read_to_string(self.path("user_key")).unwrap()),
        }
    }

    pub(crate) fn client(self: &Arc<Self>, config: SshConfig) -> Ssh {
        let sshd = Arc::clone(self);
        let dial = move || std::future::ready(sshd.connect());
        Ssh::new(dial, self.login(), config)
    }

    /// A client, and a socket that its streams lead to.
    pub(crate) fn accepting(self: &Arc<Self>) -> Accepting {
        let path = self.path("far.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let ssh = self.client(SshConfig::default());
        Accepting {
            ssh,
            listener,
            path,
        }
    }
}

/// Lines for an sshd that was unpacked and not installed: since OpenSSH 9.8 it starts other programs, and
/// would look for them where its package puts them.
fn unpacked_parts(program: &Path) -> String {
    if program == Path::new(SSHD) {
        return String::new();
    }
    let Some(usr) = program.parent().and_then(Path::parent) else {
        return String::new();
    };
    let parts = [
        ("SshdSessionPath", "sshd-session"),
        ("SshdAuthPath", "sshd-auth"),
    ];
    let lines = parts.map(|(keyword, name)| {
        let part = usr.join("lib/openssh").join(name);
        match part.exists() {
            true => format!("{keyword} {}\n", part.display()),
            false => String::new(),
        }
    });
    lines.concat()
}

fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

pub(crate) struct Accepting {
    ssh: Ssh,
    listener: UnixListener,
    path: PathBuf,
}

impl Transport for Accepting {
    type Near = Ssh;
    type Far = UnixStream;

    const DROPPED: Dropped = Dropped::End;

    fn near(&self) -> &Ssh {
        &self.ssh
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path.clone())
    }

    fn nowhere(&self) -> Endpoint {
        Endpoint::Unix(Path::new("/nowhere/at/all.sock").into())
    }

    async fn accept(&mut self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }
}
