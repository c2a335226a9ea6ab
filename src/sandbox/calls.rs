//! seccomp: which system calls a process can make. Another one ends it: see `refused`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A system call that is allowed, whatever its arguments, or only with those that meet a condition.
#[derive(Debug, Clone)]
pub(super) enum Allowed {
    Always(c_long),
    If(c_long, &'static [Argument]),
}

/// One argument of a call, by its number, and what it must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Is(u8, u64),
    /// These bits are set.
    Has(u8, u64),
    /// These bits are not set.
    Lacks(u8, u64),
}

use Allowed::{Always, If};

/// Calls by whose numbers some architectures have others in their place.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 12] = [
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_rmdir,
    libc::SYS_dup2,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];

/// What a listener does once it has its capture: it waits for packets and reads them, and sends.
pub(super) const LISTENER: [Allowed; 16] = [
    #[cfg(target_arch = "x86_64")]
    Always(libc::SYS_poll),
    #[cfg(not(target_arch = "x86_64"))]
    Always(libc::SYS_ppoll),
    Always(libc::SYS_restart_syscall),
    Always(libc::SYS_sendto),
    // PACKET_STATISTICS.
    Always(libc::SYS_getsockopt),
    // The clock, where the kernel gives it no faster way.
    Always(libc::SYS_clock_gettime),
    Always(libc::SYS_futex),
    Always(libc::SYS_brk),
    If(libc::SYS_mmap, &[Argument::Lacks(2, EXEC)]),
    Always(libc::SYS_munmap),
    Always(libc::SYS_madvise),
    Always(libc::SYS_rt_sigreturn),
    Always(libc::SYS_rt_sigprocmask),
    Always(libc::SYS_sigaltstack),
    Always(libc::SYS_getrandom),
    Always(libc::SYS_exit_group),
    Always(libc::SYS_recvfrom),
];

/// -1, as a filter sees it: the number of no system call.
const NO_CALL: c_long = 0xffff_ffff;

/// PROT_EXEC.
const EXEC: u64 = libc::PROT_EXEC as u64;

/// What the daemon does after its start, in any of its threads.
const DAEMON: &[Allowed] = &[
    // Waiting.
    Always(libc::SYS_ppoll),
    Always(libc::SYS_restart_syscall),
    Always(libc::SYS_futex),
    Always(libc::SYS_clock_gettime),
    Always(libc::SYS_clock_nanosleep),
    // Sockets: netlink, the control socket, the manager, syslog.
    If(
        libc::SYS_socket,
        &[Argument::Is(0, libc::AF_NETLINK as u64)],
    ),
    If(libc::SYS_socket, &[Argument::Is(0, libc::AF_UNIX as u64)]),
    Always(libc::SYS_bind),
    Always(libc::SYS_listen),
    Always(libc::SYS_accept4),
    Always(libc::SYS_connect),
    Always(libc::SYS_getsockname),
    Always(libc::SYS_getpeername),
    Always(libc::SYS_getsockopt),
    Always(libc::SYS_setsockopt),
    Always(libc::SYS_sendto),
    Always(libc::SYS_sendmsg),
    Always(libc::SYS_recvfrom),
    Always(libc::SYS_recvmsg),
    Always(libc::SYS_shutdown),
    If(libc::SYS_ioctl, &[Argument::Is(1, libc::FIONBIO)]),
    // Whether standard error is a terminal.
    If(libc::SYS_ioctl, &[Argument::Is(1, libc::TCGETS)]),
    // Files: configuration, log, state, locks, one-time sequences.
    Always(libc::SYS_openat),
    Always(libc::SYS_close),
    Always(libc::SYS_read),
    Always(libc::SYS_write),
    Always(libc::SYS_writev),
    Always(libc::SYS_pread64),
    Always(libc::SYS_pwrite64),
    Always(libc::SYS_lseek),
    Always(libc::SYS_fstat),
    Always(libc::SYS_newfstatat),
    Always(libc::SYS_statx),
    Always(libc::SYS_readlinkat),
    Always(libc::SYS_faccessat),
    Always(libc::SYS_getdents64),
    Always(libc::SYS_getcwd),
    Always(libc::SYS_fsync),
    Always(libc::SYS_fdatasync),
    Always(libc::SYS_ftruncate),
    Always(libc::SYS_flock),
    Always(libc::SYS_fcntl),
    Always(libc::SYS_fchmod),
    Always(libc::SYS_fchmodat),
    Always(libc::SYS_fchown),
    Always(libc::SYS_mkdirat),
    Always(libc::SYS_unlinkat),
    Always(libc::SYS_renameat),
    Always(libc::SYS_renameat2),
    Always(libc::SYS_umask),
    Always(libc::SYS_dup),
    Always(libc::SYS_dup3),
    Always(libc::SYS_eventfd2),
    Always(libc::SYS_memfd_create),
    Always(libc::SYS_copy_file_range),
    // No call at all (ENOSYS): what strace(1) makes of one that it has fail.
    Always(NO_CALL),
    // Threads, but no processes: see `without_clone3`.
    If(
        libc::SYS_clone,
        &[Argument::Has(0, libc::CLONE_THREAD as u64)],
    ),
    Always(libc::SYS_clone3),
    Always(libc::SYS_set_robust_list),
    Always(libc::SYS_rseq),
    Always(libc::SYS_gettid),
    Always(libc::SYS_getpid),
    Always(libc::SYS_sched_getaffinity),
    Always(libc::SYS_sched_yield),
    Always(libc::SYS_membarrier),
    If(
        libc::SYS_prctl,
        &[Argument::Is(0, libc::PR_SET_NAME as u64)],
    ),
    // What the C library calls its memory.
    If(libc::SYS_prctl, &[Argument::Is(0, libc::PR_SET_VMA as u64)]),
    Always(libc::SYS_exit),
    Always(libc::SYS_exit_group),
    // Children that have ended.
    Always(libc::SYS_wait4),
    // Signals, and who asks.
    Always(libc::SYS_rt_sigprocmask),
    Always(libc::SYS_rt_sigreturn),
    Always(libc::SYS_sigaltstack),
    // The C library's own, when the first thread begins (nptl: SIGCANCEL, SIGSETXID).
    If(libc::SYS_rt_sigaction, &[Argument::Is(0, 32)]),
    If(libc::SYS_rt_sigaction, &[Argument::Is(0, 33)]),
    Always(libc::SYS_getuid),
    Always(libc::SYS_geteuid),
    Always(libc::SYS_getgid),
    Always(libc::SYS_getegid),
    Always(libc::SYS_prlimit64),
    // Memory, but no code that is written by the program.
    Always(libc::SYS_brk),
    If(libc::SYS_mmap, &[Argument::Lacks(2, EXEC)]),
    If(libc::SYS_mprotect, &[Argument::Lacks(2, EXEC)]),
    Always(libc::SYS_munmap),
    Always(libc::SYS_mremap),
    Always(libc::SYS_madvise),
    Always(libc::SYS_getrandom),
    Always(libc::SYS_sysinfo),
];

/// What a look-up of a name takes beside that: sockets to name servers, and modules of the C library.
const NAMES: &[Allowed] = &[
    If(libc::SYS_socket, &[Argument::Is(0, libc::AF_INET as u64)]),
    If(libc::SYS_socket, &[Argument::Is(0, libc::AF_INET6 as u64)]),
    Always(libc::SYS_sendmmsg),
    Always(libc::SYS_ioctl),
    Always(libc::SYS_uname),
    Always(libc::SYS_mmap),
    Always(libc::SYS_mprotect),
];

/// Returns the calls of the daemon.
pub(super) fn daemon(looks_up: bool) -> Vec<Allowed> {
    let older = OLDER.map(Always);
    let names = if looks_up { NAMES } else { &[] };
    let all = DAEMON.iter().chain(names).cloned();
    all.chain(older).collect()
}

/// Why the calls of a process cannot be restricted.
pub(super) type CallsError = Box<dyn std::error::Error>;

/// Allows these system calls to this process, in all of its threads, and no other.
pub(super) fn allow(calls: &[Allowed]) -> Result<(), CallsError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    // clone3(2) has its flags behind a pointer, where no filter sees them. The C library goes on with
    // clone(2) where there is none. It comes first: the second filter traps what this would answer.
    let without_clone3 = filter(
        &[Always(libc::SYS_clone3)],
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        architecture,
    )?;
    let only_these = filter(
        calls,
        SeccompAction::Trap,
        SeccompAction::Allow,
        architecture,
    )?;
    seccompiler::apply_filter_all_threads(&without_clone3)?;
    seccompiler::apply_filter_all_threads(&only_these)?;
    Ok(())
}

fn filter(
    calls: &[Allowed],
    otherwise: SeccompAction,
    then: SeccompAction,
    architecture: TargetArch,
) -> Result<BpfProgram, CallsError> {
    // A call without a rule is matched whatever its arguments.
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        if let If(number, arguments) = call {
            let conditions: Result<_, _> = arguments.iter().map(condition).collect();
            let rule = SeccompRule::new(conditions?)?;
            rules.entry(*number).or_default().push(rule);
        }
    }
    for call in calls {
        if let Always(number) = call {
            rules.insert(*number, Vec::new());
        }
    }
    Ok(SeccompFilter::new(rules, otherwise, then, architecture)?.try_into()?)
}

fn condition(argument: &Argument) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (number, operator, value) = match *argument {
        Argument::Is(number, value) => (number, SeccompCmpOp::Eq, value),
        Argument::Has(number, bits) => (number, SeccompCmpOp::MaskedEq(bits), bits),
        Argument::Lacks(number, bits) => (number, SeccompCmpOp::MaskedEq(bits), 0),
    };
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value)
}
