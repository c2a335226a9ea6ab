//! Processes that are forked. With `refused` this is where the room has its `unsafe`.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::refused::REFUSED_EXIT;

/// How long a process must have lived to be replaced at once.
const REST: Duration = Duration::from_secs(1);

/// Which of the two processes this is, after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forked {
    /// The process of before; its child has this number.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a second process, with a copy of the memory and of all descriptors of this one. To be called
/// while the process has one thread.
fn fork() -> io::Result<Forked> {
    // SAFETY: the child may run any code, since there is no other thread that could hold a lock at
    // this moment (fork(2), signal-safety(7)): a warden never has a second thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// How a process has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// By itself, with this exit code.
    Exit(i32),
    /// By this signal.
    Signal(Signal),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(REFUSED_EXIT) => f.write_str("the kernel refused it a system call"),
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {}", signal.as_str()),
        }
    }
}

/// Runs `work` in a child, and in another one when that has died: `work` is told how the one before
/// died. Returns once a child has ended with success. So this process is a warden: it listens to
/// nobody, and nobody can do anything to it but kill it. The child dies with it. To be called while it has one thread.
pub fn keep_alive(mut work: impl FnMut(Option<Death>) -> ExitCode) {
    let mut death = None;
    loop {
        let begun = Instant::now();
        match fork() {
            Ok(Forked::Child) => {
                die_with_parent();
                let code = work(death);
                std::process::exit(i32::from(code != ExitCode::SUCCESS));
            }
            Ok(Forked::Parent(child)) => match end_of(child) {
                Death::Exit(0) => return,
                end @ (Death::Exit(_) | Death::Signal(_)) => death = Some(end),
            },
            // Memory or processes may come back.
            Err(_) => {}
        }
        std::thread::sleep(REST.saturating_sub(begun.elapsed()));
    }
}

fn end_of(child: Pid) -> Death {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Death::Exit(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Death::Signal(signal),
            Ok(_) | Err(Errno::EINTR) => {}
            // There is no such child: it cannot be waited for.
            Err(_) => return Death::Exit(-1),
        }
    }
}

/// Has this process killed when its parent dies. A change of user undoes this: call it afterwards.
pub fn die_with_parent() {
    // There is a signal of that number.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
}

/// Holds back the signals that would end this process and those that it forks. A service manager, or
/// a terminal, sends them to all processes of the daemon alike, and it is the daemon that says when to
/// end.
pub fn hold_back_signals() {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    // Fails for no set of signals (pthread_sigmask(3)).
    let _ = signals.into_iter().collect::<SigSet>().thread_block();
}

/// Closes every file but this one, standard error included.
pub fn close_files_but(kept: BorrowedFd<'_>) {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor != kept.as_raw_fd() {
            // An error is for the folder just read: it is among them, and closed already.
            let _ = nix::unistd::close(descriptor);
        }
    }
}
