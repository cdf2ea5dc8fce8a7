//! The second wall: a process that serves one share gives up everything else. Linux only.
//!
//! The server alone lets no request out of its share. What is here holds when the server is wrong: the
//! process has no way to the rest of the host. From the outside in:
//!
//! * **Files.** A user and a mount namespace of its own, in which there is nothing but the share, the
//!   directory of records and `/proc/self/fd`; the share read-only there if it is served so. Where the host
//!   forbids that (some do), Landlock: it stops data and changes of directories outside the share, but not
//!   `stat`, `chmod` and other changes of attributes (`landlock(7)`, "Current limitations").
//! * **Calls.** A seccomp filter without sockets, programs, mounts, namespaces, other processes, keys,
//!   kernel modules, BPF, `io_uring` and memory that runs.
//! * **Descriptors.** Those that are not named are closed.
//! * **Memory.** Large buffers are given back to the host when they are free.
//! * **The rest.** No new privileges, no capabilities, no core dumps, no tracing by others of its user, a limit
//!   of descriptors.
//!
//! Root without capabilities is a user like any, who may do what the modes of root's files say.
//!
//! All of it is for good, and for the whole process: it is called first thing in `main`, while there is one
//! thread. A runtime comes after it.
//!
//! ```no_run
//! use std::os::fd::{AsFd as _, OwnedFd};
//!
//! use colima_mount::{Access, Server, server::confine::Confinement};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let share = std::fs::File::open("/home/me/project")?;
//!     let confined = Confinement::new(share.into(), Access::ReadWrite).enter()?;
//!     // Standard input is the stream.
//!     let stream: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
//!     let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//!     runtime.block_on(async {
//!         let stream = std::os::unix::net::UnixStream::from(stream);
//!         stream.set_nonblocking(true)?;
//!         let stream = tokio::net::UnixStream::from_std(stream)?;
//!         let server = Server::new(confined.root, Access::ReadWrite);
//!         server.serve(stream).await.map_err(std::io::Error::other)
//!     })?;
//!     Ok(())
//! }
//! ```

mod calls;
mod filter;
mod landlock;
mod namespace;

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::{Access, Limits, Root};

/// What a process that serves one share is to keep.
///
/// Dropping it changes nothing, [`Confinement::enter`] cannot be undone.
#[derive(Debug)]
pub struct Confinement {
    share: OwnedFd,
    access: Access,
    side: Option<OwnedFd>,
    kept: Vec<RawFd>,
    descriptors: u64,
    without: Vec<Wall>,
}

/// A wall that can be left out: to test the other ones, or where it is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// The namespaces.
    Namespace,
    /// Landlock, which stands where the namespaces do not.
    Landlock,
    /// The seccomp filter.
    Filter,
}

/// What keeps the process from files outside of its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileWall {
    /// There are none.
    Namespace,
    /// Landlock: data and changes of directories, but no attributes.
    Landlock {
        /// The version of its interface.
        abi: u32,
    },
    /// The host has neither: only the server's own care.
    Nothing,
}

/// What keeps the process from other parts of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallWall {
    /// The seccomp filter.
    Filter,
    /// The host has none, or not for this architecture.
    Nothing,
}

/// Which walls stand. Descriptors, privileges and limits are given up in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Walls {
    /// Around files.
    pub files: FileWall,
    /// Around system calls.
    pub calls: CallWall,
}

/// What a confined process has.
#[derive(Debug)]
#[non_exhaustive]
pub struct Confined {
    /// The share.
    pub root: Root,
    /// The directory of records, for [`Beside::with_directory`](super::Beside::with_directory).
    pub side: Option<OwnedFd>,
    /// Which walls stand.
    pub walls: Walls,
}

/// Why a process is not confined. It may be so in part; it should end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A namespace and Landlock would hold for one thread only.
    #[error("the process has {threads} threads and not one")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// Something that every host allows failed.
    #[error("cannot {what}")]
    Step {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Names what was being done when something fails.
fn step<T, E: Into<io::Error>>(
    what: &'static str,
    result: Result<T, E>,
) -> Result<T, ConfineError> {
    result.map_err(|error| ConfineError::Step {
        what,
        source: error.into(),
    })
}

impl Confinement {
    /// A process that keeps a share, standard input, output and error, and nothing else.
    #[must_use]
    pub fn new(share: OwnedFd, access: Access) -> Self {
        Self {
            share,
            access,
            side: None,
            kept: Vec::new(),
            // Besides handles: threads, streams, events, paths that are being resolved.
            descriptors: Limits::default().handles as u64 + 512,
            without: Vec::new(),
        }
    }

    /// Keeps a directory of records.
    #[must_use]
    pub fn side(mut self, directory: OwnedFd) -> Self {
        self.side = Some(directory);
        self
    }

    /// Keeps a descriptor open, such as a stream. It should be no directory: it would be a way out.
    #[must_use]
    pub fn keep(mut self, descriptor: BorrowedFd<'_>) -> Self {
        self.kept.push(descriptor.as_raw_fd());
        self
    }

    /// Sets how many descriptors the process may have, where the host allows that many: the sum of
    /// [`Limits::handles`](super::Limits::handles) of its clients and some hundreds.
    #[must_use]
    pub fn descriptors(mut self, count: u64) -> Self {
        self.descriptors = count;
        self
    }

    /// Leaves a wall out.
    #[must_use]
    pub fn without(mut self, wall: Wall) -> Self {
        self.without.push(wall);
        self
    }

    /// Confines the process, for good.
    ///
    /// Every descriptor of the process is closed but the three of standard input, output and error and what
    /// was kept: what else is open must not be used any more. Files outside cannot be opened, not those of
    /// `/etc` or `/dev` either.
    ///
    /// # Errors
    ///
    /// The process has more than one thread, or a step fails that none should. That a host has not a
    /// wall is no error: [`Walls`] says which stand.
    pub fn enter(self) -> Result<Confined, ConfineError> {
        let threads = step("count threads", threads())?;
        if threads != 1 {
            return Err(ConfineError::Threads { threads });
        }
        step("limit core dumps", limit(Resource::Core, 0))?;
        step(
            "limit descriptors",
            limit(Resource::Nofile, self.descriptors),
        )?;
        // What a library keeps of the host for later, it must keep now.
        let privileges = rustix::thread::set_no_new_privs(true);
        step("give up new privileges", privileges)?;

        calls::bound_heap();

        let mut directories = Directories {
            share: self.share,
            side: self.side,
        };
        let mut files = FileWall::Nothing;
        if !self.without.contains(&Wall::Namespace)
            && namespace::enter(&mut directories, self.access).is_ok()
        {
            files = FileWall::Namespace;
        }
        if files == FileWall::Nothing
            && !self.without.contains(&Wall::Landlock)
            && let Ok(abi) = landlock::restrict(&directories, self.access)
        {
            files = FileWall::Landlock { abi };
        }
        let root = step("open the share again", Root::from_fd(directories.share))?;
        let mut kept = self.kept;
        kept.extend([0, 1, 2]);
        kept.extend(root.descriptors());
        kept.extend(directories.side.iter().map(|side| side.as_raw_fd()));
        step("close descriptors", close_others(kept))?;
        step("give up capabilities", give_up_capabilities())?;
        // Others of the same user could read its memory and be it.
        let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        step("hide the memory", hidden)?;
        let mut calls = CallWall::Nothing;
        if !self.without.contains(&Wall::Filter)
            && let Some(program) = filter::program(std::process::id())
            && calls::set_filter(&program).is_ok()
        {
            calls = CallWall::Filter;
        }
        Ok(Confined {
            root,
            side: directories.side,
            walls: Walls { files, calls },
        })
    }
}

/// The directories that stay, as the new view of the file system has them.
#[derive(Debug)]
struct Directories {
    share: OwnedFd,
    side: Option<OwnedFd>,
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Sets a limit, lower than the host's if that is lower.
fn limit(resource: Resource, wanted: u64) -> rustix::io::Result<()> {
    let allowed = rustix::process::getrlimit(resource).maximum;
    let limit = Some(allowed.map_or(wanted, |allowed| allowed.min(wanted)));
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    rustix::process::setrlimit(resource, limit)
}

fn close_others(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.sort_unstable();
    let mut from = 0;
    for descriptor in kept {
        if descriptor > from {
            calls::close_range(from, descriptor - 1)?;
        }
        from = from.max(descriptor + 1);
    }
    calls::close_range(from, RawFd::MAX)
}

fn give_up_capabilities() -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};

    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}
