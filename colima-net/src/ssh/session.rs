//! The thread that owns a session: nothing of libssh2 is ever touched by another one.
//!
//! ```text
//!  handshake ▶ host key ▶ login ▶ idle ──task──▶ one channel ──closed by both──▶ idle
//!                                  │                  │
//!                                  └── link broke ────┴── left behind ──▶ ended
//! ```
//!
//! A session carries one channel at a time. libssh2 could carry more, but two opens continue each other's
//! state, and every read fills one list that all channels search; a channel of its own session shares
//! nothing. A session whose channel both sides have closed serves again.

use std::{
    io::Read as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::{event::PollFlags, net::RecvFlags};
use tokio::sync::oneshot;

use super::{
    Credential, Fingerprint, Login, SshError, command, flow,
    libssh2::{self, HashType, MethodType, Session},
    pool::{Handle, Request, Task},
    wire::{Heartbeat, Want, Wire, broken, is, ready},
};

/// In the order of preference. AES-GCM is in hardware on nearly every machine, and twice as fast there
/// as the ChaCha20 that libssh2 would ask for first.
const CIPHERS: &str = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,\
                       chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr";

/// Keys of an agent that are offered; servers end a login after six attempts by default.
const MOST_IDENTITIES: usize = 5;

/// What libssh2 needs; its packet buffers are in the heap.
const STACK: usize = 512 * 1024;

/// How long a command that was given up, or a channel, may take to end.
pub(super) const FAREWELL: Duration = Duration::from_secs(10);

/// What a session is made with.
pub(super) struct Plan {
    pub(super) login: Login,
    pub(super) heartbeat: Heartbeat,
    pub(super) open_timeout: Duration,
}

/// Starts the thread of a session over `socket`; `ready` hears when it serves, or why it does not.
pub(super) fn start(
    socket: UnixStream,
    plan: Arc<Plan>,
    ready: oneshot::Sender<Result<Handle, SshError>>,
    link: super::link::LinkTask,
) -> std::io::Result<()> {
    let (wake, woken) = UnixStream::pair()?;
    let (sender, requests) = mpsc::channel();
    let alive = Arc::new(AtomicBool::new(true));
    let handle = Handle::new(wake, sender, Arc::clone(&alive), link);
    std::thread::Builder::new()
        .name("ssh session".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _dead = ClearOnDrop(alive);
            match connect(socket, &plan) {
                Ok(wire) => {
                    if ready.send(Ok(handle)).is_ok() {
                        serve(wire, &woken, &requests, &plan);
                    }
                }
                Err(error) => {
                    // Nobody may be waiting any more.
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    Ok(())
}

struct ClearOnDrop(Arc<AtomicBool>);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// From the first byte to a logged-in session. Waits without a deadline of its own: whoever waits for us
/// has one, and stops the link.
fn connect(socket: UnixStream, plan: &Plan) -> Result<Wire, SshError> {
    let twin = socket
        .try_clone()
        .map_err(|source| SshError::Start { source })?;
    let mut session = Session::new().map_err(|error| handshake_failed(&error))?;
    let host_key = &plan.login.host_key;
    let preferences = [
        (MethodType::HostKey, host_key.preferences()),
        (MethodType::CryptCs, CIPHERS.to_owned()),
        (MethodType::CryptSc, CIPHERS.to_owned()),
    ];
    for (method, preference) in preferences {
        session
            .method_pref(method, &preference)
            .map_err(|error| handshake_failed(&error))?;
    }
    session.set_tcp_stream(socket);
    session.handshake().map_err(|error| {
        // libssh2 does not say so of a link that ended in the middle of an exchange of keys.
        if has_ended(&twin) {
            broken(&error)
        } else {
            handshake_failed(&error)
        }
    })?;
    let seen = session
        .host_key_hash(HashType::Sha256)
        .and_then(|digest| digest.try_into().ok())
        .map(Fingerprint::new)
        .ok_or_else(|| SshError::Handshake {
            message: "the server showed no host key".to_owned(),
        })?;
    let pinned = host_key.fingerprint();
    if seen != pinned {
        return Err(SshError::HostKeyMismatch { seen, pinned });
    }
    log_in(&session, &plan.login).map_err(|error| match error {
        SshError::Authentication { message, .. } if has_ended(&twin) => {
            SshError::Session { message }
        }
        other => other,
    })?;
    session.set_blocking(false);
    Ok(Wire::new(session, twin, plan.heartbeat))
}

/// The link broke, which may pass, or what answers is of no use to us.
fn handshake_failed(error: &libssh2::Error) -> SshError {
    let of_the_link = [
        libssh2_sys::LIBSSH2_ERROR_SOCKET_DISCONNECT,
        libssh2_sys::LIBSSH2_ERROR_SOCKET_RECV,
        libssh2_sys::LIBSSH2_ERROR_SOCKET_SEND,
        libssh2_sys::LIBSSH2_ERROR_SOCKET_TIMEOUT,
        libssh2_sys::LIBSSH2_ERROR_TIMEOUT,
    ];
    if of_the_link.iter().any(|&code| is(error, code)) {
        return broken(error);
    }
    SshError::Handshake {
        message: error.message().to_owned(),
    }
}

/// Nothing will come, or nothing can be sent any more.
fn has_ended(socket: &UnixStream) -> bool {
    if ready(socket, PollFlags::IN).intersects(PollFlags::HUP | PollFlags::ERR) {
        return true;
    }
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut [0; 1][..], flags) {
        Ok((_, n)) => n == 0,
        Err(errno) => errno != rustix::io::Errno::AGAIN,
    }
}

fn log_in(session: &Session, login: &Login) -> Result<(), SshError> {
    let user = &login.user;
    let refused = |error: &libssh2::Error| match handshake_failed(error) {
        SshError::Handshake { message } => SshError::Authentication {
            user: user.clone(),
            message,
        },
        other => other,
    };
    match &login.credential {
        Credential::Key { text, passphrase } => session
            .userauth_pubkey_memory(user, None, text, passphrase.as_deref())
            .map_err(|error| refused(&error)),
        Credential::KeyFile { path, passphrase } => {
            let text = std::fs::read_to_string(path).map_err(|source| SshError::KeyFile {
                path: path.clone(),
                source,
            })?;
            session
                .userauth_pubkey_memory(user, None, &text, passphrase.as_deref())
                .map_err(|error| refused(&error))
        }
        Credential::Agent { socket } => {
            let failed = |error: libssh2::Error| SshError::Agent {
                path: socket.clone(),
                message: error.message().to_owned(),
            };
            let mut agent = session.agent().map_err(failed)?;
            agent.set_identity_path(socket).map_err(failed)?;
            agent.connect().map_err(failed)?;
            agent.list_identities().map_err(failed)?;
            let mut last = SshError::Authentication {
                user: user.clone(),
                message: "the agent holds no key".to_owned(),
            };
            for identity in agent
                .identities()
                .map_err(failed)?
                .iter()
                .take(MOST_IDENTITIES)
            {
                match agent.userauth(user, identity) {
                    Ok(()) => return Ok(()),
                    Err(error) => last = refused(&error),
                }
                if last.may_pass() {
                    break;
                }
            }
            Err(last)
        }
    }
}

/// Whether a session can be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Reusable,
    Spent,
}

/// One task after the other, until the handle is gone or the session is spent.
fn serve(mut wire: Wire, woken: &UnixStream, requests: &mpsc::Receiver<Request>, plan: &Plan) {
    while idle(&mut wire, woken).is_ok() {
        let Ok(Request { task, ticket }) = requests.recv() else {
            return;
        };
        let after = match task {
            Task::Stream(stream) => flow::perform(&mut wire, stream, plan.open_timeout),
            Task::Run(run) => command::perform(&mut wire, run, plan.open_timeout),
            Task::Ping { answered } => match wire.ask().and_then(|()| wire.settle()) {
                Ok(()) => {
                    // Who asked may have lost interest.
                    let _ = answered.send(());
                    After::Reusable
                }
                Err(_) => After::Spent,
            },
        };
        match after {
            After::Reusable => ticket.give_back(),
            After::Spent => return,
        }
    }
}

/// Keeps the session alive until a byte on `woken` announces a request.
fn idle(wire: &mut Wire, mut woken: &UnixStream) -> Result<(), SshError> {
    let gone = || SshError::Session {
        message: "nobody needs it any more".to_owned(),
    };
    loop {
        wire.ping()?;
        let woke = wire.wait(Want::Bytes, Some((woken.as_fd(), PollFlags::IN)), None)?;
        if !woke.other.is_empty() {
            let mut byte = [0];
            return match woken.read(&mut byte) {
                Ok(1) => Ok(()),
                _ => Err(gone()),
            };
        }
        // Whatever the server says unasked, a new exchange of keys for instance.
        if woke.readable {
            wire.ask()?;
        }
    }
}
