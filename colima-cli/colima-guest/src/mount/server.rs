//! The process that answers the kernel: a client of what the host serves, and the file system over it.
//!
//! It may be killed at any moment; the keeper starts another one, which goes on.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};

use colima_core::{Endpoint, mounts::SERVICE};
use colima_mount::{Client, Patience, fuse};
use colima_net::mux::{Incoming, MuxStream, ServeConfig, serve};
use tokio::sync::Notify;

use super::control::{self, CONNECTED, SERVES};
use crate::{
    agent::{Port, log},
    error::chain,
};

/// First argument of the role.
pub const ROLE: &str = "mount-server";

/// Bytes that a stream may be ahead of its reader. Large, because this one carries the content of files.
const WINDOW: u32 = 4 << 20;

/// Serves the mount of the keeper that started it, until that is gone.
///
/// # Errors
///
/// What keeps it from serving. The keeper is told as well.
pub fn run() -> io::Result<()> {
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    let control = UnixStream::from(control);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let served = runtime.block_on(work(control.try_clone()?));
    if let Err(error) = &served {
        // A keeper that does not listen is leaving, and so is this.
        let _ = control::tell(&control, Err(&error.to_string()));
    }
    // A thread may wait for the port for as long as the host is silent.
    runtime.shutdown_background();
    served
}

async fn work(control: UnixStream) -> io::Result<()> {
    let ([port], name) = control::take(&control)?;
    let port = Port::of(File::from(port))?;
    let slot = Arc::new(Slot::default());
    let answering = tokio::spawn(answer(port, Arc::clone(&slot)));
    let mut patience = Patience::default();
    patience.client = Some(name);
    let dial = move || {
        let slot = Arc::clone(&slot);
        async move { Ok(slot.next().await) }
    };
    let client = Client::over_with(dial, patience)
        .await
        .map_err(io::Error::other)?;
    control::tell(&control, Ok(CONNECTED))?;
    // The keeper waits for others before it mounts, for as long as they take.
    let (control, given) = tokio::task::spawn_blocking(move || {
        let given = control::take(&control);
        (control, given)
    })
    .await
    .map_err(io::Error::other)?;
    let ([device, journal], _) = given?;
    let serving = fuse::resume(client, device, journal)
        .await
        .map_err(|error| io::Error::other(chain(&error)))?;
    control::tell(&control, Ok(SERVES))?;
    tokio::select! {
        () = serving.ended() => Ok(()),
        ended = answering => Err(ended.unwrap_or_else(io::Error::other)),
    }
}

/// The newest stream of the host that nobody has taken yet.
#[derive(Default)]
struct Slot {
    stream: Mutex<Option<MuxStream>>,
    filled: Notify,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    fn put(&self, stream: MuxStream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        self.filled.notify_one();
    }

    /// Waits for one.
    async fn next(&self) -> MuxStream {
        loop {
            let taken = self
                .stream
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(stream) = taken {
                return stream;
            }
            self.filled.notified().await;
        }
    }
}

/// Answers the host on the port until that is gone; says why.
async fn answer(mut port: Port, slot: Arc<Slot>) -> io::Error {
    loop {
        let connection = match port.accept().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let slot = Arc::clone(&slot);
        let config = ServeConfig {
            window: WINDOW,
            ..ServeConfig::default()
        };
        let served = serve(connection, config, move |incoming| {
            let slot = Arc::clone(&slot);
            async move { take(incoming, &slot) }
        });
        if let Err(error) = served.await {
            log(&format!("connection given up: {error}"));
        }
    }
}

fn take(incoming: Incoming, slot: &Slot) {
    match incoming.endpoint() {
        Endpoint::Service(name) if name == SERVICE => slot.put(incoming.accept()),
        other => {
            let reason = format!("a mount has no {other}");
            incoming.refuse(&io::Error::new(io::ErrorKind::NotFound, reason));
        }
    }
}
