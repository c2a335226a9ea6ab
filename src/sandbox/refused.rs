//! What a process does when the kernel refuses it a system call (SECCOMP_RET_TRAP of seccomp(2)): it
//! says which, and ends. No crate gives a signal handler the number of the call.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_void, siginfo_t};

/// The exit code of a process that was refused a system call: as if SIGSYS had ended it.
pub(super) const REFUSED_EXIT: i32 = 128 + libc::SIGSYS;

/// The socket to which a message goes; -1: a line goes to standard error.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// The first byte of the message.
static HEAD: AtomicI32 = AtomicI32::new(0);

/// The part of siginfo_t that the kernel fills in for SIGSYS (`_sigsys` in
/// include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct SysInfo {
    _signo: c_int,
    _errno: c_int,
    _code: c_int,
    _call_address: *mut c_void,
    call: c_int,
    _architecture: u32,
}

/// Has a refused system call told by a message to `socket`: `head`, and the number of the call in the
/// byte order of the machine. The socket must stay open.
pub(super) fn tell_by_message(
    socket: BorrowedFd<'_>,
    head: [u8; 1],
) -> Result<(), super::calls::CallsError> {
    SOCKET.store(socket.as_raw_fd(), Ordering::Relaxed);
    HEAD.store(head[0].into(), Ordering::Relaxed);
    handle()
}

/// Has a refused system call told by a line on standard error.
pub(super) fn tell_on_stderr() -> Result<(), super::calls::CallsError> {
    handle()
}

fn handle() -> Result<(), super::calls::CallsError> {
    // SAFETY: an action of zeros is one without flags and with an empty mask. The handler is a
    // function of the shape that SA_SIGINFO asks for.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction =
            on_refusal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// The handler. It calls nothing but what signal-safety(7) lists.
extern "C" fn on_refusal(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a siginfo_t, which for SIGSYS has this shape.
    // SIGSYS that another process sends has another, but no less memory.
    let call = unsafe { (*info.cast::<SysInfo>()).call };
    let socket = SOCKET.load(Ordering::Relaxed);
    if socket < 0 {
        let mut line = [0; 200];
        let mut rest = &mut line[..];
        // Writing to memory of one's own allocates nothing.
        let _ = writeln!(
            rest,
            "knockd: the kernel refused the daemon system call {}: it ends, the guard stands",
            Call(call)
        );
        let left = rest.len();
        // SAFETY: the bytes are ours, and there are as many.
        unsafe { libc::write(2, line.as_ptr().cast(), line.len() - left) };
    } else {
        let head = HEAD.load(Ordering::Relaxed).to_le_bytes()[0];
        let number = call.to_ne_bytes();
        let message = [head, number[0], number[1], number[2], number[3]];
        // SAFETY: the bytes are ours, and there are as many.
        unsafe {
            libc::send(
                socket,
                message.as_ptr().cast(),
                message.len(),
                libc::MSG_NOSIGNAL,
            )
        };
    }
    // SAFETY: it takes no pointer and does not return.
    unsafe { libc::_exit(REFUSED_EXIT) }
}

/// A system call, displayed by its number, and by its name if it is one that an intruder would try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call(pub i32);

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        match CALLS.iter().find(|(call, _)| *call == i64::from(number)) {
            Some((_, name)) => write!(f, "{name} ({number})"),
            None => write!(f, "{number}"),
        }
    }
}

const CALLS: &[(i64, &str)] = &[
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_fork, "fork"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_tgkill, "tgkill"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_mmap, "mmap"),
];
