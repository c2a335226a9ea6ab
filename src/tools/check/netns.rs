//! Network namespaces that live as long as a handle to them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::error::ProbeError;

/// A handle to a network namespace of our own. The namespace ends with this handle and the last
/// thread, process and socket in it.
#[derive(Debug)]
pub(super) struct Netns(File);

impl Netns {
    pub(super) fn new() -> Result<Self, ProbeError> {
        let made = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.map(Self).map_err(ProbeError::Namespace)
    }

    /// Does `work` in the namespace: the sockets that it makes and the programs that it starts belong
    /// there. A thread has a namespace of its own (setns(2)), so another thread does the work.
    pub(super) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, ProbeError> + Send,
    ) -> Result<T, ProbeError> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| ProbeError::Namespace(errno.into()))?;
            work()
        })
    }

    /// Returns a path by which another program finds the namespace, as long as this handle lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn on_a_thread<T: Send, E: Send + From<io::Error>>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("probe".into())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
