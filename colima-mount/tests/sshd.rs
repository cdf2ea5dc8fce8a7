//! A real sshd whose subsystem is our server, for clients that know nothing else.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use colima_mount::{Access, Root, Server};

use crate::peers;

/// It ends with this.
pub(crate) struct Host {
    pub(crate) share: tempfile::TempDir,
    /// Keys and settings.
    keys: tempfile::TempDir,
    /// Where the client works.
    pub(crate) here: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) user: String,
    sshds: Arc<Mutex<Vec<std::process::Child>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for Host {
    fn drop(&mut self) {
        for sshd in &mut *self.sshds.lock().unwrap() {
            // It may have ended with its connection.
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Host {
    /// Why there is none, or one.
    pub(crate) fn new() -> Result<Self, String> {
        let program = std::env::var_os("COLIMA_TEST_SSHD");
        let program = program.map_or("/usr/sbin/sshd".into(), PathBuf::from);
        if !program.exists() || !Path::new("/bin/bash").exists() {
            return Err("no sshd (package openssh-server) or bash".into());
        }
        let (share, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| keys.path().join(name);
        // What every client of every age knows.
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"])
                .arg(at(key))
                .status();
            if !made.is_ok_and(|made| made.success()) {
                return Err("no ssh-keygen".into());
            }
        }
        let runtime = peers::runtime();
        let listen = || {
            runtime
                .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
                .unwrap()
        };
        let (sftp, ssh) = (listen(), listen());
        let joined = sftp.local_addr().unwrap().port();
        fs::write(
            at("subsystem"),
            format!("exec 3<>/dev/tcp/127.0.0.1/{joined}\ncat <&3 &\ncat >&3\nkill $!\n"),
        )
        .unwrap();
        let place = keys.path().display();
        fs::write(
            at("sshd_config"),
            format!(
                "HostKey {place}/host_key\nAuthorizedKeysFile {place}/user_key.pub\nPidFile none\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\n\
                 PermitRootLogin prohibit-password\nPubkeyAcceptedAlgorithms +ssh-rsa\n\
                 HostKeyAlgorithms +ssh-rsa\nSubsystem sftp /bin/bash {place}/subsystem\n"
            ),
        )
        .unwrap();
        if rustix::process::geteuid().is_root() {
            // root's sshd insists on this empty directory; a boot makes it anew.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let settings = at("sshd_config");
        let checked = Command::new(&program)
            .arg("-t")
            .arg("-f")
            .arg(&settings)
            .output()
            .unwrap();
        if !checked.status.success() {
            return Err(format!(
                "sshd does not work here: {}",
                text(&checked).trim()
            ));
        }
        let name = Command::new("id").arg("-un").output().unwrap();
        let port = ssh.local_addr().unwrap().port();
        let server = Server::new(Root::open(share.path()).unwrap(), Access::ReadWrite);
        runtime.spawn(async move {
            while let Ok((stream, _)) = sftp.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let _ = server.serve(stream).await;
                });
            }
        });
        let sshds = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::clone(&sshds);
        runtime.spawn(async move {
            while let Ok((stream, _)) = ssh.accept().await {
                let stream = stream.into_std().unwrap();
                stream.set_nonblocking(false).unwrap();
                let stream = OwnedFd::from(stream);
                let sshd = Command::new(&program)
                    .args(["-i", "-e", "-f"])
                    .arg(&settings)
                    .stdin(stream.try_clone().unwrap())
                    .stdout(stream)
                    .stderr(Stdio::null())
                    .spawn();
                started.lock().unwrap().push(sshd.unwrap());
            }
        });
        Ok(Self {
            share,
            keys,
            here,
            port,
            user: String::from_utf8(name.stdout).unwrap().trim().to_owned(),
            sshds,
            _runtime: runtime,
        })
    }

    pub(crate) fn key(&self, name: &str) -> String {
        self.keys.path().join(name).to_str().unwrap().to_owned()
    }

    /// A program in the client's directory, which knows nothing of the user's settings.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.here.path())
            .env("HOME", self.here.path())
            .stdin(Stdio::null());
        command
    }
}
