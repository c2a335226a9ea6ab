//! The first half of a reload: the configuration is read and checked in a thread of its own, for
//! its disk may not answer (NFS, a frozen file system). The event loop goes on meanwhile, and puts
//! in force what was read: see `Daemon::commit` in `event_loop`.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Fault;
use super::control::message::names;
use super::polled_channel::PolledReceiver;
use super::setup::{Options, Setup, Unusable};
use crate::action::used_sequences::UsedSequences;
use crate::model::Timestamp;

/// How long a reading may take before the log says that the disk does not answer.
const SLOW: Duration = Duration::from_secs(2);

/// What a reading of the configuration has found.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The names of the file, see [`names`].
    pub(super) names: Vec<String>,
    /// What stands in it.
    pub(super) contents: Contents,
}

/// What stands in the configuration file.
#[derive(Debug)]
pub(super) enum Contents {
    /// It cannot be read a second time.
    ReadOnce,
    /// It cannot be used.
    Unusable(Unusable),
    /// A configuration.
    Good(Box<Setup>),
}

/// Reads and checks the configuration and its files of one-time sequences. Waits for the disk.
fn prepare(options: &Options, path: &Path, used: Arc<UsedSequences>) -> Prepared {
    let names = names(path);
    let contents = if is_read_once(path) {
        Contents::ReadOnce
    } else {
        match options.read(path) {
            Ok(mut setup) => {
                setup.read_sequences(used);
                Contents::Good(Box::new(setup))
            }
            Err(unusable) => Contents::Unusable(unusable),
        }
    };
    Prepared { names, contents }
}

/// Whether a file is what it was for this process and the first time alone: a pipe, as
/// `-c /dev/stdin` and `-c <(…)` are, or a file descriptor's.
fn is_read_once(path: &Path) -> bool {
    let own = ["/dev/stdin", "/dev/fd", "/proc"];
    let is_own = own.iter().any(|place| path.starts_with(place));
    is_own || path.metadata().is_ok_and(|meta| !meta.is_file())
}

/// The readings of the configuration: at most one is under way, and one more is due after it.
#[derive(Debug)]
pub(super) struct Readings {
    done: PolledReceiver<Prepared>,
    /// The number of the last that was begun.
    number: u64,
    /// Since when it is under way.
    since: Option<Timestamp>,
    /// When the log is told that it takes long, once.
    tell: Option<Timestamp>,
    /// It was asked for once more meanwhile: what is being read may be of before.
    again: bool,
}

impl Readings {
    /// None is under way.
    pub(super) fn new() -> Result<Self, Fault> {
        Ok(Self {
            done: PolledReceiver::new().map_err(|error| Fault::system("eventfd", error))?,
            number: 0,
            since: None,
            tell: None,
            again: false,
        })
    }

    /// Asks for a reading that begins from now on; returns its number, and whether it is to be
    /// begun at once.
    pub(super) fn ask(&mut self) -> (u64, bool) {
        let is_under_way = self.since.is_some();
        self.again |= is_under_way;
        (self.number + 1, !is_under_way)
    }

    /// Begins one.
    pub(super) fn begin(
        &mut self,
        options: &Options,
        path: &Path,
        used: &Arc<UsedSequences>,
        now: Timestamp,
    ) {
        self.number += 1;
        self.since = Some(now);
        self.tell = Some(now + SLOW);
        self.again = false;
        let done = self.done.sender();
        let read = {
            let (options, path, used) = (options.clone(), path.to_owned(), Arc::clone(used));
            let done = done.clone();
            move || done.send(prepare(&options, &path, used))
        };
        let thread = thread::Builder::new().name("reload".into()).spawn(read);
        // Where there is no thread to be had, the loop waits for the disk.
        if thread.is_err() {
            done.send(prepare(options, path, Arc::clone(used)));
        }
    }

    /// Takes what was read: the number of the reading, and whether another is due.
    pub(super) fn take(&mut self) -> Option<(u64, Prepared, bool)> {
        let prepared = self.done.take().pop()?;
        self.since = None;
        self.tell = None;
        Some((self.number, prepared, self.again))
    }

    /// Returns a descriptor that is readable when a reading is done.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.done.fd()
    }

    /// Returns when the log is to be told of a slow disk.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.tell
    }

    /// Tells, once, of a disk that does not answer.
    pub(super) fn warn_if_slow(&mut self, path: &Path, now: Timestamp) {
        if let (Some(at), Some(since)) = (self.tell, self.since)
            && at <= now
        {
            self.tell = None;
            tracing::warn!(
                "{} cannot be read for {} s now: the running configuration stays until it can",
                path.display(),
                now.since(since).as_secs()
            );
        }
    }
}
