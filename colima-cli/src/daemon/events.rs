//! Tells a client what becomes of the instance, as it happens.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, BufReader},
    net::UnixStream,
};

use super::{Daemon, Phase};
use crate::{
    control::{self, LifeState, Reply},
    instance::Probe,
    state_dir::ProfilePaths,
};

impl Phase {
    fn state(&self, paths: &ProfilePaths) -> LifeState {
        match self {
            Self::Idle => match Probe::at_rest(paths) {
                Probe::Suspended { .. } => LifeState::Suspended,
                _ => LifeState::Stopped,
            },
            Self::Starting(_) => LifeState::Starting,
            Self::Running(_) => LifeState::Running,
            Self::Stranded(_) => LifeState::Broken,
            Self::Stopping(_) => LifeState::Stopping,
        }
    }
}

impl Daemon {
    /// The state now, every other one that follows, and what happens to the machine, until the client leaves. A
    /// state that is over before it could be told is left out.
    pub(super) async fn tell_events(&self, client: &mut BufReader<UnixStream>) -> io::Result<()> {
        let mut phase = self.phase.subscribe();
        let mut happenings = self.happenings.subscribe();
        let mut last = None;
        loop {
            let state = phase.borrow_and_update().state(&self.paths);
            if last.replace(state) != Some(state) {
                control::send(client, &Reply::State { state }).await?;
            }
            let mut nothing_more = [0];
            tokio::select! {
                // Both senders live in `self`.
                _ = phase.changed() => {}
                happened = happenings.recv() => if let Ok(happening) = happened {
                    control::send(client, &Reply::Happened { happening }).await?;
                },
                _ = client.read(&mut nothing_more) => return Ok(()),
            }
        }
    }
}
