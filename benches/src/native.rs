//! The multiplexer against ssh without a guest: nothing is emulated, so this is the row that a host with
//! KVM can be compared with.
//!
//! ```text
//! client ── relay ── Mux ══ socket pair ══ far side: serve ── sink        (two processes, ours)
//! client ── ssh -L ─────── ══ socket pair ══ sshd ─────────── sink        (two processes, OpenSSH's)
//! ```
//!
//! `sshd -i` is started by ssh itself as its `ProxyCommand`, with a configuration and keys of this row, and
//! ends with it. The sink is a third process for all.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

use colima_core::{Connect as _, Endpoint};
use colima_net::{
    Local, Mux, MuxConfig, Relay, SocketFile, Traffic,
    mux::{ServeConfig, serve},
    pump,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::oneshot,
};

use crate::{
    Result, blocking,
    host::Host,
    peer,
    product::{Setup, output},
    report::{Bar, Measure, Row},
    sample::Unit,
    ssh_master::SshMaster,
};

/// The argument with which this program becomes the far side of the multiplexer.
pub const FAR_SIDE: &str = "--far-side-of-mux";

const PEERS: [&str; 3] = ["no transport", "ssh -L", "ours"];
const CONNECTIONS: u32 = 200;
const BYTES: u64 = 512 << 20;

/// Measures in a directory of its own, which is removed.
///
/// # Errors
///
/// When `sshd` is missing, or a connection fails.
pub async fn run(setup: &Setup) -> Result<Row> {
    let host = Host::here();
    let directory = tempfile::tempdir_in(&setup.work)?;
    let at = |name: &str| directory.path().join(name);
    let sink = at("sink.sock");
    let _sink_process = start_sink(setup, &sink).await?;

    let (ours, ssh) = (at("ours/sink.sock"), at("ssh.sock"));
    let (far_side, mux) = start_mux()?;
    let relay = Relay::new(SocketFile::bind(&ours)?, mux, Endpoint::Unix(sink.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() }));

    let config = write_ssh_files(directory.path()).await?;
    let forwards = [(ssh.as_path(), sink.as_path())];
    let master = SshMaster::open(&config, "bench", &at("control.sock"), &forwards).await?;

    let sockets = [sink, ssh, ours];
    let measured = measure(&sockets, setup.rounds).await;
    master.close().await?;
    drop(stop);
    relay.await?;
    drop(far_side);
    let measures = measured?;
    let bars = vec![
        Bar::at_most(
            "a new connection takes no longer than ssh's",
            1.0,
            measures[0].median(2) / measures[0].median(1),
        ),
        Bar::at_least(
            "bytes to the far side are as fast as ssh's",
            1.0,
            measures[1].median(2) / measures[1].median(1),
        ),
        Bar::at_least(
            "bytes from the far side are as fast as ssh's",
            1.0,
            measures[2].median(2) / measures[2].median(1),
        ),
    ];
    Ok(Row {
        name: "native".to_owned(),
        about: "No guest: the multiplexer between two processes, and OpenSSH (AES-128-GCM) between two \
                processes, over a socket pair each; and the sink without anything between."
            .to_owned(),
        command: format!("compare --rounds {} native", setup.rounds),
        host,
        measures,
        bars,
    })
}

async fn measure(sockets: &[PathBuf; 3], rounds: u32) -> Result<Vec<Measure>> {
    let mut connections =
        Measure::new("a new connection, one byte back", Unit::Milliseconds, PEERS);
    for _ in 0..CONNECTIONS {
        for (sample, socket) in connections.samples.iter_mut().zip(sockets) {
            let socket = socket.clone();
            let elapsed = blocking(move || peer::echo(&socket)).await?;
            sample.values.push(Unit::Milliseconds.of(elapsed, 0));
        }
    }
    let unit = Unit::MegabytesPerSecond;
    let mut there = Measure::new("512 MiB to the far side", unit, PEERS);
    let mut back = Measure::new("512 MiB from the far side", unit, PEERS);
    for _ in 0..rounds {
        for (place, socket) in sockets.iter().enumerate() {
            let to = socket.clone();
            let elapsed = blocking(move || peer::send(&to, BYTES)).await?;
            there.samples[place].values.push(unit.of(elapsed, BYTES));
            let from = socket.clone();
            let elapsed = blocking(move || peer::receive(&from, BYTES)).await?;
            back.samples[place].values.push(unit.of(elapsed, BYTES));
        }
    }
    Ok(vec![connections, there, back])
}

/// A process of its own; it ends with its handle.
async fn start_sink(setup: &Setup, socket: &Path) -> Result<Child> {
    let mut process = Command::new(setup.peer()?)
        .arg("serve")
        .arg(socket)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    // Whichever comes first: its socket, or its end.
    let mut appears = tokio::time::interval(std::time::Duration::from_millis(5));
    while !socket.exists() {
        if let Some(status) = process.try_wait()? {
            return Err(format!("the sink ended: {status}").into());
        }
        appears.tick().await;
    }
    Ok(process)
}

/// This program again, as the far side of a socket pair; it ends with its handle.
fn start_mux() -> Result<(Child, Mux)> {
    let (near, far) = StdUnixStream::pair()?;
    let process = Command::new(std::env::current_exe()?)
        .arg(FAR_SIDE)
        .stdin(OwnedFd::from(far))
        .kill_on_drop(true)
        .spawn()?;
    near.set_nonblocking(true)?;
    let mux = Mux::over(UnixStream::from_std(near)?, MuxConfig::default());
    Ok((process, mux))
}

/// Accepts streams over standard input and leads each to the endpoint that it names.
///
/// # Errors
///
/// When standard input is no socket, or fails.
pub async fn far_side() -> Result<()> {
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let stream = StdUnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    serve(stream, ServeConfig::default(), |incoming| async move {
        match Local.connect(incoming.endpoint()).await {
            Ok(local) => {
                // Each end sees by itself when the other failed.
                let _ = pump(incoming.accept(), local, &mut Traffic::default()).await;
            }
            Err(error) => incoming.refuse(&error),
        }
    })
    .await?;
    Ok(())
}

/// Keys and configurations of both sides; returns the client's.
async fn write_ssh_files(directory: &Path) -> Result<PathBuf> {
    let at = |name: &str| directory.join(name);
    for key in ["host_key", "user_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        output(keygen.arg(at(key))).await?;
    }
    fs::copy(at("user_key.pub"), at("authorized_keys"))?;
    let mut id = Command::new("id");
    let user = output(id.arg("-un")).await?;
    let place = directory.display();
    let server = format!(
        "HostKey {place}/host_key\nAuthorizedKeysFile {place}/authorized_keys\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nAllowStreamLocalForwarding yes\n\
         PermitRootLogin prohibit-password\nCiphers aes128-gcm@openssh.com\n"
    );
    fs::write(at("sshd_config"), server)?;
    // sshd insists on an absolute path for itself, and root's needs its usual empty directory.
    let sshd = "/usr/sbin/sshd";
    if !Path::new(sshd).exists() {
        return Err("sshd is not here: install the package openssh-server".into());
    }
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd")?;
    }
    let client = format!(
        "Host bench\n  HostName bench\n  User {user}\n  IdentityFile {place}/user_key\n  \
         IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  \
         LogLevel ERROR\n  ProxyCommand {sshd} -i -f {place}/sshd_config\n",
        user = user.trim()
    );
    fs::write(at("ssh_config"), client)?;
    Ok(at("ssh_config"))
}
