//! The only module that knows fuser: requests of the kernel to a [`Volume`], each as a task of its own.

mod answers;
mod directories;
mod operations;
mod values;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use fuser::{Config, INodeNo, MountOption, SessionACL};
use tokio::runtime::Handle;

use super::{MountOptions, Who, inodes::Notice, volume::Volume};

pub(super) use fuser::{BackgroundSession, Notifier};

/// Mounts, and serves the kernel on threads of its own.
pub(super) fn mount(
    volume: Arc<Volume>,
    runtime: Handle,
    path: &Path,
    options: &MountOptions,
) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.name.clone()),
        MountOption::Subtype("colima".into()),
        MountOption::DefaultPermissions,
        // Never for what another machine stores.
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = match options.who {
        Who::Everybody => SessionACL::All,
        Who::Owner => SessionACL::Owner,
    };
    // Threads only take requests over; more than two would wait for each other.
    config.n_threads = Some(2);
    config.clone_fd = true;
    let adapter = Adapter { volume, runtime };
    fuser::Session::new(adapter, path, &config)?.spawn()
}

/// Tells the kernel what to forget, until there is nobody left who would know.
///
/// On a thread of its own: the kernel may keep a notice waiting until requests are answered.
pub(super) fn notify(notifier: &Notifier, notices: &std::sync::mpsc::Receiver<Notice>) {
    while let Ok(notice) = notices.recv() {
        // That the kernel does not know what it is to forget is as good.
        let _ = match notice {
            Notice::Name(parent, name) => {
                notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name))
            }
            Notice::Metadata(ino) => notifier.inval_inode(INodeNo(ino), -1, 0),
            Notice::Content(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
        };
    }
}

struct Adapter {
    volume: Arc<Volume>,
    runtime: Handle,
}

impl Adapter {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, f: impl FnOnce(Arc<Volume>) -> F) {
        self.runtime.spawn(f(Arc::clone(&self.volume)));
    }
}
