//! The seccomp filter: system calls that a file server never needs, as a program of the kernel's packet
//! filter (`seccomp(2)`).
//!
//! Calls that are newer than this list are unknown to the process (`ENOSYS`), which every library is
//! prepared for; those on the list are forbidden (`EPERM`).

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long,
    sock_filter,
};

/// `AUDIT_ARCH_*` of linux/audit.h; `None` for an architecture whose list is not here.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// The first call that the list does not know: those below are in Linux 6.16. On x86-64 it also is below
/// the numbers of the x32 interface.
const NEWER: u32 = 470;

/// Forbidden whatever their arguments.
const FORBIDDEN: &[c_long] = &[
    // Programs, other processes, and what they have.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_setpriority,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Sockets. What is open already can be used, and a pair leads nowhere else: runtimes wake themselves by one.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // Mounts, namespaces, roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_seccomp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_remap_file_pages,
    // System V and POSIX communication.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[c_long] = &[
    libc::SYS_setrlimit,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[c_long] = &[];

/// `ioctl` requests that are allowed: how the standard library makes a socket wait or not, close-on-exec,
/// whether something is a terminal, and copies that share blocks. The numbers are those of x86-64 and
/// aarch64.
const IOCTLS: &[u32] = &[
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x5401,      // TCGETS
    0x4004_9409, // FICLONE
    0x4020_940d, // FICLONERANGE
];

/// `prctl` options that are allowed: names of threads and of memory.
const PRCTLS: &[u32] = &[
    15,          // PR_SET_NAME
    16,          // PR_GET_NAME
    0x5356_4d41, // PR_SET_VMA
];

/// Namespaces in the first argument of `clone`.
const NAMESPACES: u32 = 0x7e02_0080;
const PROT_EXEC: u32 = 4;

/// Offsets in `struct seccomp_data`; of an argument, its lower half on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn ret(what: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, what)
}

/// Goes on behind the next `skip` instructions unless the comparison holds.
fn unless(comparison: u32, k: u32, skip: u8) -> sock_filter {
    sock_filter {
        jf: skip,
        ..instruction(BPF_JMP | comparison | BPF_K, k)
    }
}

/// The call of a number, as the filter compares it.
fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The filter for this process; `None` when it is not known for the architecture.
pub(super) fn program(process: u32) -> Option<Vec<sock_filter>> {
    let mut program = vec![
        load(ARCH),
        sock_filter {
            jt: 1,
            ..instruction(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE?)
        },
        ret(KILL),
        load(NUMBER),
        unless(BPF_JGE, NEWER, 1),
        ret(errno(libc::ENOSYS)),
        // Its flags are in memory, which a filter cannot see: libraries fall back on clone.
        unless(BPF_JEQ, number(libc::SYS_clone3), 1),
        ret(errno(libc::ENOSYS)),
    ];
    for call in FORBIDDEN.iter().chain(FORBIDDEN_HERE) {
        program.extend([unless(BPF_JEQ, number(*call), 1), ret(errno(libc::EPERM))]);
    }
    // Calls that depend on an argument: a body that ends, behind a jump over it.
    let mut depends = |call: c_long, body: Vec<sock_filter>| {
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(unless(BPF_JEQ, number(call), length));
        program.extend(body);
    };
    let without = |index, bits| {
        vec![
            load(argument(index)),
            instruction(BPF_ALU | BPF_AND | BPF_K, bits),
            unless(BPF_JEQ, 0, 1),
            ret(ALLOW),
            ret(errno(libc::EPERM)),
        ]
    };
    let one_of = |index, values: &[u32], otherwise| {
        let mut body = vec![load(argument(index))];
        for value in values {
            body.extend([unless(BPF_JEQ, *value, 1), ret(ALLOW)]);
        }
        body.push(ret(otherwise));
        body
    };
    depends(libc::SYS_clone, without(0, NAMESPACES));
    depends(libc::SYS_mmap, without(2, PROT_EXEC));
    depends(libc::SYS_mprotect, without(2, PROT_EXEC));
    depends(libc::SYS_pkey_mprotect, without(2, PROT_EXEC));
    depends(libc::SYS_ioctl, one_of(1, IOCTLS, errno(libc::ENOTTY)));
    depends(libc::SYS_prctl, one_of(0, PRCTLS, errno(libc::EPERM)));
    // Its own limits, which it cannot raise, are read where a thread starts.
    depends(libc::SYS_prlimit64, one_of(0, &[0], errno(libc::EPERM)));
    // A panic ends the process by a signal to itself.
    depends(libc::SYS_tgkill, one_of(0, &[process], errno(libc::EPERM)));
    program.push(ret(ALLOW));
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer, by its own rules for these few instructions.
    fn answer(program: &[sock_filter], arch: u32, call: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(call).unwrap().to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut value) = (0, 0);
        loop {
            let it = program[at];
            let jump = |holds| usize::from(if holds { it.jt } else { it.jf });
            at += 1;
            match u32::from(it.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    let from = it.k as usize;
                    value = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(value == it.k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(value >= it.k),
                code if code == BPF_ALU | BPF_AND | BPF_K => value &= it.k,
                code if code == BPF_RET | BPF_K => return it.k,
                code => panic!("instruction {code}"),
            }
        }
    }

    #[test]
    fn the_filter_lets_a_file_server_work_and_nothing_else() {
        let Some(program) = program(77) else { return };
        let arch = ARCHITECTURE.unwrap();
        let asked = |call, arguments| answer(&program, arch, call, arguments);
        let first = |argument| [argument, 0, 0, 0, 0, 0];
        let third = |argument| [0, 0, argument, 0, 0, 0];
        for call in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_read,
            libc::SYS_pwrite64,
            libc::SYS_statx,
            libc::SYS_futex,
            libc::SYS_epoll_pwait,
            libc::SYS_inotify_add_watch,
            libc::SYS_exit_group,
        ] {
            assert_eq!(asked(call, [u64::MAX; 6]), ALLOW, "{call}");
        }
        let forbidden = errno(libc::EPERM);
        for call in FORBIDDEN.iter().chain(FORBIDDEN_HERE) {
            assert_eq!(asked(*call, [0; 6]), forbidden, "{call}");
        }
        assert_eq!(asked(libc::SYS_clone, first(0x3d_0f00)), ALLOW, "a thread");
        assert_eq!(asked(libc::SYS_clone, first(0x1000_0000)), forbidden);
        assert_eq!(asked(libc::SYS_mmap, third(3)), ALLOW);
        assert_eq!(asked(libc::SYS_mmap, third(7)), forbidden);
        assert_eq!(asked(libc::SYS_mprotect, third(5)), forbidden);
        assert_eq!(asked(libc::SYS_ioctl, [0, 0x5421, 0, 0, 0, 0]), ALLOW);
        let typed = [0, 0x5412, 0, 0, 0, 0];
        assert_eq!(
            asked(libc::SYS_ioctl, typed),
            errno(libc::ENOTTY),
            "TIOCSTI"
        );
        assert_eq!(asked(libc::SYS_prctl, first(15)), ALLOW);
        assert_eq!(
            asked(libc::SYS_prctl, first(4)),
            forbidden,
            "PR_SET_DUMPABLE"
        );
        assert_eq!(asked(libc::SYS_tgkill, first(77)), ALLOW);
        assert_eq!(asked(libc::SYS_tgkill, first(78)), forbidden);
        assert_eq!(asked(libc::SYS_clone3, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(asked(NEWER.into(), [0; 6]), errno(libc::ENOSYS));
        let x32 = c_long::from(0x4000_0000_u32);
        assert_eq!(asked(x32, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(answer(&program, 0x4000_0003, 0, [0; 6]), KILL, "i386");
        assert!(program.len() < 4096, "what the kernel takes");
    }
}
