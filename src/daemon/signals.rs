//! Signals as a file descriptor, so that they wait in the one poll with everything else
//! and nothing runs in a handler.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGHUP: reread the configuration, reopen the log.
    Reload,
    /// SIGTERM, SIGINT: shut down.
    Stop,
}

/// The signals that wait.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes SIGHUP, SIGTERM and SIGINT out of the way of their default action. To be called
    /// before any thread is made: a thread inherits the mask. (A child process does not: the
    /// standard library clears the mask before exec.)
    pub(crate) fn block() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// The next signal that came; `None` when there is none.
    pub(crate) fn next(&mut self) -> Result<Option<Asked>, Errno> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        let reload = info.ssi_signo == Signal::SIGHUP as u32;
        Ok(Some(if reload { Asked::Reload } else { Asked::Stop }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
