//! The only module that knows fuser: requests of the kernel to a [`Volume`], each as a task of its own.

mod answers;
mod directories;
mod kept;
mod notices;
mod operations;
mod replays;
mod values;

use std::{path::Path, sync::Arc};

use fuser::{Config, MountOption, SessionACL};
use tokio::runtime::Handle;

use super::{MountOptions, Who, volume::Volume};

pub(super) use fuser::BackgroundSession;
pub(super) use kept::{mount_kept, resume};
pub(super) use notices::{Notifier, notify};

/// Mounts, and serves the kernel on threads of its own.
pub(super) fn mount(
    volume: Arc<Volume>,
    runtime: Handle,
    path: &Path,
    options: &MountOptions,
) -> std::io::Result<(BackgroundSession, Notifier)> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.name.clone()),
        MountOption::Subtype("colima".into()),
        MountOption::DefaultPermissions,
        // Never for what another machine stores.
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = acl(options.who);
    // Threads only take requests over; more than two would wait for each other.
    config.n_threads = Some(2);
    config.clone_fd = true;
    let adapter = Adapter { volume, runtime };
    let session = fuser::Session::new(adapter, path, &config)?;
    let notifier = Notifier::of(&session)?;
    Ok((session.spawn()?, notifier))
}

fn acl(who: Who) -> SessionACL {
    match who {
        Who::Everybody => SessionACL::All,
        Who::Owner => SessionACL::Owner,
    }
}

struct Adapter {
    volume: Arc<Volume>,
    runtime: Handle,
}

impl Adapter {
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        request: &fuser::Request,
        f: impl FnOnce(Arc<Volume>) -> F,
    ) {
        if self.replaying(request).is_some() {
            // Nothing of it reaches the server: a reply that is dropped is EIO.
            return;
        }
        self.runtime.spawn(f(Arc::clone(&self.volume)));
    }
}
