//! System calls that no safe wrapper has.
#![expect(
    unsafe_code,
    reason = "calls of the kernel that rustix does not wrap; each is one call with arguments that live as \
              long as it"
)]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// The result of a system call.
fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(done(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this process, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Leaves the namespaces of the process for new ones. It has one thread.
pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a number. CLONE_FILES is never in it, so that descriptors stay those of the process.
    done(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Has the allocator give large buffers back as soon as they are free. By itself it keeps some of each size
/// that it has seen, for each thread: several times what requests in flight take.
pub(super) fn bound_heap() {
    // Elsewhere than with glibc this is no trait of the allocator.
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes numbers. It fails for numbers that make no sense only.
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024) };
    }
}

/// Closes descriptors from one number to another, both included.
///
/// Whoever has one of them must not use it any more: the caller's part, which is said where the caller
/// is told.
pub(super) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// A copy of the mount that something is on, from there downwards, that is mounted nowhere.
pub(super) fn open_tree(at: BorrowedFd<'_>, recursive: libc::c_int) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_int = 1; // linux/mount.h

    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | recursive;
    // SAFETY: the descriptor is open and the path ends in a zero.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Puts a copy of a mount to a name in a directory.
pub(super) fn move_mount(
    tree: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4; // linux/mount.h

    // SAFETY: the descriptors are open and the paths end in a zero.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Changes attributes of a mount.
pub(super) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: libc::c_int,
    set: u64,
    propagation: u64,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the path ends in a zero, and the structure has the size that is told.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// The version of Landlock's interface.
pub(super) fn landlock_abi() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1; // linux/landlock.h

    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no structure.
    let version = done(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })?;
    u32::try_from(version).map_err(io::Error::other)
}

/// `struct landlock_ruleset_attr` of linux/landlock.h. A kernel that knows less of it takes the rest if it
/// is zero.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    pub(super) files: u64,
    pub(super) net: u64,
    pub(super) scoped: u64,
}

pub(super) fn landlock_create(ruleset: &Ruleset) -> io::Result<OwnedFd> {
    // SAFETY: the structure has the size that is told.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(ruleset),
            size_of::<Ruleset>(),
            0,
        )
    })
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

pub(super) fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    allowed: u64,
) -> io::Result<()> {
    const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1; // linux/landlock.h

    let rule = PathBeneath {
        allowed,
        parent: directory.as_raw_fd(),
    };
    // SAFETY: the descriptors are open and the structure is the one of the type that is told.
    done(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

pub(super) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}

/// Sets a filter of system calls for this thread and those that it starts.
pub(super) fn set_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads as many instructions as there are, and checks each.
    done(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}
