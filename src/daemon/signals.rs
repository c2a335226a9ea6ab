//! Signals as a file descriptor, so that they wait in the one poll with everything else
//! and nothing runs in a handler.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// The request that a signal makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGHUP: reread the configuration, reopen the log.
    Reload,
    /// SIGTERM, SIGINT: shut down.
    Stop,
    /// SIGCHLD: a child has ended and is to be waited for.
    Reap,
}

/// The signals that wait to be read.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks SIGHUP, SIGTERM, SIGINT and SIGCHLD, whose default actions would end the process. To be
    /// called before any thread is made: a thread inherits the mask. (A child process does not: the
    /// standard library clears the mask before exec.)
    pub(crate) fn block() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGHUP,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGCHLD,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        // Children that ended before the mask was set send no signal.
        reap();
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// Returns the next signal that came; `None` when there is none.
    pub(crate) fn next(&mut self) -> Result<Option<Asked>, Errno> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        Ok(Some(match info.ssi_signo {
            reload if reload == Signal::SIGHUP as u32 => Asked::Reload,
            child if child == Signal::SIGCHLD as u32 => Asked::Reap,
            _ => Asked::Stop,
        }))
    }
}

/// Waits for every child that has ended. The command helper is one: code that waits for the helper
/// finds it reaped. As process 1 of a container knockd gets the orphans, such as processes that a
/// command has put in the background. And a shell that has become knockd leaves it the children that
/// the shell had begun.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
        && status != WaitStatus::StillAlive
    {}
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
