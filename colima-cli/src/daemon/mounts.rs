//! Host directories that come and go while the machine runs.

use std::sync::Arc;

use super::{Daemon, Phase};
use crate::{
    command_error::{CommandError, ErrorKind},
    control::Reply,
    instance::Instance,
    mounts::Share,
};

impl Daemon {
    /// Shares one more directory.
    pub(super) async fn mount(&self, share: Share) -> Reply {
        let Some(instance) = self.running() else {
            return not_running();
        };
        let mounted = instance.mount(share).await;
        mounted.map_or_else(Reply::Failed, Reply::Mounted)
    }

    /// Takes one away.
    pub(super) async fn unmount(&self, path: &str) -> Reply {
        let Some(instance) = self.running() else {
            return not_running();
        };
        let unmounted = instance.unmount(path).await;
        unmounted.map_or_else(Reply::Failed, Reply::Unmounted)
    }

    fn running(&self) -> Option<Arc<Instance>> {
        match &*self.phase.borrow() {
            Phase::Running(instance) => Some(instance.clone()),
            _ => None,
        }
    }
}

fn not_running() -> Reply {
    let what = "the machine does not run";
    Reply::Failed(CommandError::new(ErrorKind::NotRunning, what).hint("start it: colima start"))
}
