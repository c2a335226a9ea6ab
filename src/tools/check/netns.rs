//! Network namespaces that live as long as a handle to them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::error::ProbeError;

/// A network namespace of our own, with nothing in it. It ends with the last thread,
/// process and socket in it, and this handle.
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

    /// Does something in it: the sockets it makes and the programs it starts belong there.
    /// A namespace is a thread's own (setns(2)), so this is done on another one.
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

    /// A path by which another program finds it, as long as this handle lives.
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
