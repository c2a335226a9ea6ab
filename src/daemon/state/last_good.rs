//! Keeps the last good configuration, in a thread of its own.
//!
//! This is no queue: if several configurations wait for the disk, only the last is kept.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::dir::{StateDir, is_no_place};
use crate::config::FileBytes;
use crate::daemon::heap;

/// Writes the configuration to the state directory. A busy disk takes seconds to sync, a frozen one
/// does not answer, and no packet may wait for either: so a thread writes.
#[derive(Debug, Default)]
pub(crate) struct LastGoodKeeper {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// The last configuration that is to be kept; it replaces one that waits.
    next: Option<(StateDir, FileBytes)>,
    /// True while there is a thread.
    is_busy: bool,
}

/// How long the end of the daemon waits for the disk.
const PATIENCE: Duration = Duration::from_secs(3);

impl LastGoodKeeper {
    /// Keeps the bytes of a configuration that is now running.
    pub(crate) fn keep_last_good(&mut self, state: StateDir, bytes: FileBytes) {
        let mut pending = self.shared.lock();
        pending.next = Some((state, bytes));
        if pending.is_busy {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let work = move || shared.work();
        match thread::Builder::new().name("keeper".into()).spawn(work) {
            Ok(_) => pending.is_busy = true,
            Err(error) => tracing::error!("cannot start a thread: {error}"),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work: writes configurations until none waits.
    fn work(&self) {
        while let Some((state, bytes)) = self.next() {
            if let Err(error) = state.keep_last_good(&bytes) {
                let why = format!("the last good configuration is not kept: {error}");
                match is_no_place(&error) {
                    true => tracing::debug!("{why}"),
                    false => tracing::error!(
                        "{why}: mend that and reload, or a faulty file at the next start is fatal"
                    ),
                }
            }
            drop(bytes);
            // The configuration's bytes are not needed any more, and no packet waits for this thread.
            heap::give_back();
        }
    }

    fn next(&self) -> Option<(StateDir, FileBytes)> {
        let mut pending = self.lock();
        let next = pending.next.take();
        pending.is_busy = next.is_some();
        if !pending.is_busy {
            self.done.notify_all();
        }
        next
    }
}

impl Drop for LastGoodKeeper {
    fn drop(&mut self) {
        let busy = |pending: &mut Pending| pending.is_busy;
        let waited = self
            .shared
            .done
            .wait_timeout_while(self.shared.lock(), PATIENCE, busy);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_last_of_several_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path(), Path::new("/etc/knockd.toml"), &[]);
        state.prepare().unwrap();
        let mut keeper = LastGoodKeeper::default();
        for text in 0..20_u8 {
            keeper.keep_last_good(state.clone(), vec![text].into());
        }
        drop(keeper);
        assert_eq!(state.last_good(), Some(vec![19].into()));
    }

    /// A named pipe with no writer is a disk that does not answer.
    #[test]
    fn the_end_does_not_wait_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path(), Path::new("/etc/knockd.toml"), &[]);
        state.prepare().unwrap();
        nix::unistd::mkfifo(&state.last_good_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut keeper = LastGoodKeeper::default();
        for text in 0..20_u8 {
            keeper.keep_last_good(state.clone(), vec![text].into());
        }
        let begun = std::time::Instant::now();
        drop(keeper);
        assert!(begun.elapsed() < 2 * PATIENCE);
        // The thread of the test ends.
        drop(File::options().write(true).open(state.last_good_path()));
    }
}
