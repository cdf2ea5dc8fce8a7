//! `colima mount-worker`: serves one share, and nothing else.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use colima_core::{
    Endpoint,
    mounts::{MountAccess, SERVICE},
};
use colima_mount::{
    Access, Root, Server,
    server::{Beside, Ownership, Protection, Refusals},
    sftp::Owner,
};
use colima_net::{
    NetError,
    mux::{Mux, MuxConfig},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    handover::{Handover, Terms},
    walls::{Confine, Walls},
};

/// What a worker tells its daemon: a guest is connected.
pub(super) const CONNECTED: u8 = b'+';
/// And that it is not any more.
pub(super) const ALONE: u8 = b'-';
/// Or that the second wall failed half-way. It ends: what it still has is not certain.
pub(super) const HALF_CONFINED: u8 = b'!';

/// Bytes that a guest may send of one stream before they are read.
const WINDOW: u32 = 4 << 20;

/// An emulated guest may be busy for long, and a stream that is lost costs more than one that is slow.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// The link is waited for as long as the machine lives: a guest may boot, or sleep.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A pause after a guest that is there has refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Serves until the daemon or the machine is gone.
///
/// # Errors
///
/// The daemon handed nothing over, or the link to the guest broke: the daemon has a new one.
pub(crate) fn run() -> io::Result<()> {
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let handed = Handover::receive(&control)?;
    let Terms {
        location, guarding, ..
    } = handed.terms.clone();
    let access = match handed.terms.access {
        MountAccess::ReadOnly => Access::ReadOnly,
        MountAccess::ReadWrite => Access::ReadWrite,
    };
    let owner = Owner {
        user: handed.terms.user,
        group: handed.terms.group,
    };
    // Before there is a second thread, which a wall would not be around.
    let confined = confine(handed, access, &control)?;
    (&control).write_all(&[confined.walls.byte()])?;
    let (protection, refusals) =
        Protection::new(guarding.protected, guarding.hidden).map_err(io::Error::other)?;
    let beside = beside(owner, confined.records, &location);
    let server = Server::new(confined.root, access)
        .ownership(Ownership::Beside(beside))
        .protection(protection);
    let stream = confined.stream;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let (mut end, reports) = asynchronous(control)?.into_split();
        let stream = asynchronous(UnixStream::from(stream))?;
        let mut nothing = [0];
        tokio::select! {
            // The daemon says nothing more; it ends.
            _ = end.read(&mut nothing) => Ok(()),
            broken = serve(&server, stream, reports) => Err(broken),
            () = tell_refusals(refusals, &location) => Ok(()),
        }
    });
    // What blocks on a slow disk is not worth waiting for.
    runtime.shutdown_background();
    served
}

/// What a worker has once the walls stand.
#[derive(Debug)]
struct Confined {
    root: Root,
    stream: OwnedFd,
    records: Option<OwnedFd>,
    walls: Walls,
}

#[cfg(target_os = "linux")]
fn confine(handed: Handover, access: Access, mut control: &UnixStream) -> io::Result<Confined> {
    use colima_mount::server::confine::Confinement;

    if handed.terms.confine == Confine::Leave {
        return unconfined(handed);
    }
    let mut confinement = Confinement::new(handed.root, access)
        .keep(control.as_fd())
        .keep(handed.stream.as_fd());
    if let Some(records) = handed.records {
        confinement = confinement.side(records);
    }
    match confinement.enter() {
        Ok(confined) => Ok(Confined {
            root: confined.root,
            stream: handed.stream,
            records: confined.side,
            walls: confined.walls.into(),
        }),
        Err(error) => {
            let why = crate::command_error::chain(&error);
            crate::log_line(&format!("{}: {why}", handed.terms.location));
            // A daemon that does not listen is leaving.
            let _ = control.write_all(&[HALF_CONFINED]);
            Err(io::Error::other(error))
        }
    }
}

/// The other systems have no such walls.
#[cfg(not(target_os = "linux"))]
fn confine(handed: Handover, _: Access, _: &UnixStream) -> io::Result<Confined> {
    unconfined(handed)
}

fn unconfined(handed: Handover) -> io::Result<Confined> {
    Ok(Confined {
        root: Root::from_fd(handed.root)?,
        stream: handed.stream,
        records: handed.records,
        walls: Walls::NONE,
    })
}

/// The guest's user owns there what is the worker's own here. Waits for the end of the worker before this one, which
/// has the records as long as it lives.
fn beside(owner: Owner, records: Option<OwnedFd>, location: &str) -> Beside {
    let plain = Beside::new(owner);
    let Some(records) = records else {
        return plain;
    };
    match plain.clone().with_directory_when_free(records) {
        Ok(beside) => beside,
        Err(error) => {
            let what = "owners of links and special nodes are not kept";
            crate::log_line(&format!("{location}: {what}: {error}"));
            plain
        }
    }
}

/// Writes down, once each, which protected paths the guest wanted to change.
async fn tell_refusals(mut refusals: Refusals, location: &str) {
    while let Some(path) = refusals.next().await {
        crate::log_line(&refused(location, &path));
    }
    // There are no more of them, and the worker has its other ends.
    std::future::pending::<()>().await;
}

fn refused(location: &str, path: &Path) -> String {
    let path = Path::new(location).join(path);
    format!(
        "{} stays as it is, which the machine tried to change; protect in colima.yaml says what may be changed: a list of \
         what may not, or none",
        path.display()
    )
}

fn asynchronous(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Serves one stream of the guest after the other, until the link breaks.
async fn serve(
    server: &Server,
    stream: tokio::net::UnixStream,
    mut reports: tokio::net::unix::OwnedWriteHalf,
) -> io::Error {
    let config = MuxConfig {
        window: WINDOW,
        handshake_timeout: FOR_EVER,
        dead_after: DEAD_AFTER,
        ..MuxConfig::default()
    };
    let mux = Mux::over(stream, config);
    loop {
        let stream = match mux.open(&Endpoint::Service(SERVICE.to_owned())).await {
            Ok(stream) => stream,
            Err(NetError::Closed) => return reason(&mux),
            Err(NetError::Refused { .. }) => {
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
            // The guest is not there yet.
            Err(_) => continue,
        };
        // A daemon that does not listen is leaving.
        let _ = reports.write_all(&[CONNECTED]).await;
        if let Err(error) = server.serve(stream).await {
            crate::log_line(&format!("a mount's stream ended: {error}"));
        }
        let _ = reports.write_all(&[ALONE]).await;
    }
}

fn reason(mux: &Mux) -> io::Error {
    match &*mux.state().borrow() {
        colima_net::mux::LinkState::Closed { reason } => io::Error::other(reason.to_string()),
        _ => io::ErrorKind::BrokenPipe.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_path_and_the_key() {
        let line = refused("/home/ada", Path::new(".ssh"));
        assert!(line.starts_with("/home/ada/.ssh "), "{line}");
        assert!(line.contains("protect in colima.yaml"), "{line}");
    }
}
