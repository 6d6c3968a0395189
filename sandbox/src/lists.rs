//! Which system calls each kind of process may make.
//!
//! A call that is missing here fails with ENOSYS in production and fails the tests: see
//! [`crate::TRAP_VARIABLE`]. Calls that move frames must be in the lists without a condition on
//! their arguments: the kernel then lets them pass by a bitmap and runs no filter.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, CLONE_THREAD, EPERM, MSG_FASTOPEN, PROT_EXEC,
    SYS_accept4, SYS_add_key, SYS_bind, SYS_bpf, SYS_brk, SYS_chroot, SYS_clock_getres,
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close, SYS_connect,
    SYS_delete_module, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_execve,
    SYS_execveat, SYS_exit, SYS_exit_group, SYS_fcntl, SYS_fdatasync, SYS_finit_module, SYS_flock,
    SYS_fsconfig, SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_fstat, SYS_fstatfs, SYS_fsync,
    SYS_ftruncate, SYS_futex, SYS_getcwd, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid,
    SYS_getpeername, SYS_getpid, SYS_getppid, SYS_getrandom, SYS_getsockname, SYS_getsockopt,
    SYS_gettid, SYS_getuid, SYS_init_module, SYS_inotify_add_watch, SYS_inotify_init1,
    SYS_io_destroy, SYS_io_getevents, SYS_io_setup, SYS_io_submit, SYS_ioctl, SYS_kexec_file_load,
    SYS_kexec_load, SYS_keyctl, SYS_listen, SYS_lseek, SYS_madvise, SYS_membarrier,
    SYS_memfd_create, SYS_mmap, SYS_mount, SYS_mount_setattr, SYS_move_mount, SYS_mprotect,
    SYS_mremap, SYS_munmap, SYS_newfstatat, SYS_open_by_handle_at, SYS_open_tree, SYS_openat,
    SYS_openat2, SYS_perf_event_open, SYS_pidfd_getfd, SYS_pipe2, SYS_pivot_root, SYS_ppoll,
    SYS_prctl, SYS_pread64, SYS_prlimit64, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
    SYS_pwrite64, SYS_read, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg,
    SYS_renameat, SYS_request_key, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmmsg,
    SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_setns, SYS_setsockopt, SYS_shutdown,
    SYS_sigaltstack, SYS_socket, SYS_socketpair, SYS_statx, SYS_sysinfo, SYS_tgkill, SYS_umount2,
    SYS_unshare, SYS_userfaultfd, SYS_wait4, SYS_waitid, SYS_write, SYS_writev, c_int, c_long,
};

/// A kind of process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// Moves frames and has guests' memory; opens no network socket and no Unix socket.
    Switch,
    /// Carries guests' flows by the host's TCP, UDP and ICMP sockets.
    Gateway,
    /// Opens devices and sockets and starts the other processes. Its children inherit its filter,
    /// so it has no list of its own calls: only some that no process needs are forbidden.
    Helper,
    /// Keeps descriptors that others have opened, and passes messages on. Opens nothing.
    Keeper,
    /// Serves browsers on a socket that it was started with. Opens nothing but pairs of streams.
    Web,
}

impl Process {
    /// The calls that may be made; `None` = all that are not forbidden.
    pub(crate) fn allowed(self) -> Option<Vec<c_long>> {
        let common = [RUNTIME, RUNTIME_OLD, RUNTIME_MUSL, FILES];
        let lists: &[&[c_long]] = match self {
            Process::Switch => &[&common.concat(), SWITCH],
            Process::Gateway => &[&common.concat(), GATEWAY],
            Process::Keeper => &[KEEPER, RUNTIME_MUSL],
            Process::Web => &[&common.concat(), WEB],
            Process::Helper => return None,
        };
        Some(lists.concat())
    }

    /// The calls that end the process.
    pub(crate) fn forbidden(self) -> Vec<c_long> {
        let own: &[&[c_long]] = match self {
            Process::Switch | Process::Gateway | Process::Keeper | Process::Web => {
                &[NEVER, NEVER_OLD]
            }
            Process::Helper => &[],
        };
        own.iter().chain(&[NEVER_BY_ANY]).copied().flatten().copied().collect()
    }

    /// The calls that fail with certain arguments.
    pub(crate) fn refused(self) -> Vec<(c_long, Vec<Test>)> {
        let own: &[Refusal] = match self {
            Process::Switch => SWITCH_REFUSALS,
            Process::Gateway => GATEWAY_REFUSALS,
            Process::Keeper => KEEPER_REFUSALS,
            Process::Web => WEB_REFUSALS,
            Process::Helper => return Vec::new(),
        };
        // Signals to its own threads only: a panic ends with one.
        let other_process = Test { argument: 0, is: Is::Not(std::process::id().into()) };
        let refusals = REFUSALS.iter().chain(own).map(|(call, when)| (*call, when.to_vec()));
        refusals.chain([(SYS_tgkill, vec![other_process])]).collect()
    }
}

/// What the caller is told of a refused call.
pub(crate) const REFUSED: c_int = EPERM;

/// A call that fails with [`REFUSED`] if all tests hold.
type Refusal = (c_long, &'static [Test]);

/// A test of one argument, as 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Test {
    pub(crate) argument: u8,
    pub(crate) is: Is,
}

/// What an argument is tested for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Is {
    Not(u64),
    /// Under this mask, it is the second value.
    Masked(u64, u64),
}

const fn not(argument: u8, value: c_int) -> Test {
    Test { argument, is: Is::Not(value as u64) }
}

const fn masked(argument: u8, mask: c_int, value: c_int) -> Test {
    Test { argument, is: Is::Masked(mask as u64, value as u64) }
}

/// Calls that a C library tries first and does without. They fail with ENOSYS, which is the only
/// answer that it takes for "try the older one". `clone3` passes its flags by address, where no
/// filter sees them.
pub(crate) const UNKNOWN: &[c_long] = &[SYS_clone3];

/// What memory, threads, time, signals and panics need, and calls that cannot fail: libraries panic
/// if one does.
const RUNTIME: &[c_long] = &[
    SYS_brk,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_clone,
    SYS_clone3,
    SYS_close,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_exit,
    SYS_exit_group,
    SYS_fcntl,
    SYS_futex,
    SYS_getegid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getpid,
    SYS_getppid,
    SYS_getrandom,
    SYS_gettid,
    SYS_getuid,
    SYS_ioctl,
    SYS_madvise,
    SYS_membarrier,
    SYS_mmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_ppoll,
    SYS_prctl,
    SYS_read,
    SYS_readv,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_getaffinity,
    SYS_sched_yield,
    SYS_set_robust_list,
    SYS_sigaltstack,
    SYS_tgkill,
    SYS_write,
    SYS_writev,
];

/// The same by older numbers, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const RUNTIME_OLD: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_open, libc::SYS_stat, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const RUNTIME_OLD: &[c_long] = &[];

/// The same as musl has it: sleeping, and the signal of a panic.
#[cfg(target_env = "musl")]
const RUNTIME_MUSL: &[c_long] = &[libc::SYS_nanosleep, libc::SYS_tkill];
#[cfg(not(target_env = "musl"))]
const RUNTIME_MUSL: &[c_long] = &[];

/// What opening and reading files needs; Landlock says which files.
const FILES: &[c_long] = &[
    SYS_fstat,
    SYS_ftruncate,
    SYS_lseek,
    SYS_newfstatat,
    SYS_openat,
    SYS_pread64,
    SYS_readlinkat,
    SYS_statx,
];

const GATEWAY: &[c_long] = &[
    SYS_accept4,
    SYS_bind,
    SYS_connect,
    // The leases, which are written and replaced.
    SYS_fdatasync,
    SYS_flock,
    SYS_fsync,
    SYS_pwrite64,
    SYS_renameat,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_listen,
    // A TFTP server's files, below its folder.
    SYS_openat2,
    SYS_recvfrom,
    SYS_recvmmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setsockopt,
    SYS_shutdown,
    SYS_socket,
];

const SWITCH: &[c_long] = &[
    SYS_accept4,
    SYS_fstatfs,
    SYS_getcwd,
    SYS_getdents64,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    // Network namespaces come and go.
    SYS_inotify_add_watch,
    SYS_inotify_init1,
    SYS_io_destroy,
    SYS_io_getevents,
    SYS_io_setup,
    SYS_io_submit,
    SYS_memfd_create,
    SYS_pipe2,
    SYS_prlimit64,
    SYS_recvfrom,
    SYS_recvmmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setsockopt,
    SYS_shutdown,
    SYS_socket,
    SYS_socketpair,
    // How much memory the host has.
    SYS_sysinfo,
    // Watches guests' memory.
    SYS_userfaultfd,
    // Gateways and the helper end.
    SYS_wait4,
    SYS_waitid,
];

/// All of a keeper's calls: it has one thread, and no file but its descriptors.
const KEEPER: &[c_long] = &[
    SYS_accept4,
    SYS_brk,
    SYS_clock_gettime,
    SYS_close,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_exit_group,
    SYS_fcntl,
    SYS_futex,
    SYS_getpid,
    SYS_getsockopt,
    SYS_gettid,
    SYS_mmap,
    SYS_mremap,
    SYS_munmap,
    // Takes back what an eventfd tells.
    SYS_read,
    SYS_recvmsg,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sendmsg,
    SYS_sigaltstack,
    SYS_socketpair,
    SYS_tgkill,
    SYS_write,
];

/// Accepted connections, and a pair of streams for each request to the daemon.
const WEB: &[c_long] = &[
    SYS_accept4,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setsockopt,
    SYS_shutdown,
    SYS_socketpair,
];

const REFUSALS: &[Refusal] = &[
    // Threads, no processes.
    (SYS_clone, &[masked(0, CLONE_THREAD, 0)]),
    // No memory that is executed.
    (SYS_mmap, &[masked(2, PROT_EXEC, PROT_EXEC)]),
    (SYS_mprotect, &[masked(2, PROT_EXEC, PROT_EXEC)]),
    // Names of threads and of memory.
    (SYS_prctl, &[not(0, libc::PR_SET_NAME), not(0, libc::PR_GET_NAME), not(0, libc::PR_SET_VMA)]),
];

/// The routes of the host are read by netlink. The limits are the process's own.
const SWITCH_REFUSALS: &[Refusal] = &[
    (SYS_prlimit64, &[not(0, 0)]),
    (SYS_socket, &[not(0, AF_NETLINK)]),
    (SYS_socketpair, &[not(0, AF_UNIX)]),
    // Of the type SOCK_DGRAM (2): it reaches any socket file that is stated as the destination.
    (SYS_socketpair, &[masked(1, 0xf, 2)]),
];

/// Sockets of IPv4 and IPv6 with a type of SOCK_STREAM (1) or SOCK_DGRAM (2).
const GATEWAY_REFUSALS: &[Refusal] = &[
    (SYS_socket, &[not(0, AF_INET), not(0, AF_INET6)]),
    (SYS_socket, &[masked(1, 0xf, 0)]),
    (SYS_socket, &[masked(1, 3, 3)]),
    (SYS_socket, &[masked(1, 4, 4)]),
    (SYS_socket, &[masked(1, 8, 8)]),
];

/// Pairs of Unix sockets only.
const KEEPER_REFUSALS: &[Refusal] = &[(SYS_socketpair, &[not(0, AF_UNIX)])];

/// Pairs of Unix sockets of the type SOCK_STREAM (1): its last four bits are 0001. With
/// MSG_FASTOPEN, sending connects a TCP socket.
const WEB_REFUSALS: &[Refusal] = &[
    (SYS_sendto, &[masked(3, MSG_FASTOPEN, MSG_FASTOPEN)]),
    (SYS_sendmsg, &[masked(2, MSG_FASTOPEN, MSG_FASTOPEN)]),
    (SYS_socketpair, &[not(0, AF_UNIX)]),
    (SYS_socketpair, &[masked(1, 1, 0)]),
    (SYS_socketpair, &[masked(1, 2, 2)]),
    (SYS_socketpair, &[masked(1, 4, 4)]),
    (SYS_socketpair, &[masked(1, 8, 8)]),
];

/// Running programs and changing what the process sees.
const NEVER: &[c_long] = &[
    SYS_bpf,
    SYS_chroot,
    SYS_execve,
    SYS_execveat,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_pivot_root,
    SYS_setns,
    SYS_umount2,
    SYS_unshare,
];
#[cfg(target_arch = "x86_64")]
const NEVER_OLD: &[c_long] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_OLD: &[c_long] = &[];

/// Reaching into other processes, and into the kernel.
const NEVER_BY_ANY: &[c_long] = &[
    SYS_add_key,
    SYS_delete_module,
    SYS_finit_module,
    SYS_init_module,
    SYS_kexec_file_load,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_perf_event_open,
    SYS_pidfd_getfd,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
    SYS_request_key,
];
