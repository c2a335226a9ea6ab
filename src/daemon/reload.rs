//! The first half of a reload: the configuration is read and checked in a thread of its own, for
//! its disk may not answer (NFS, a frozen file system). The event loop goes on meanwhile, and then
//! puts the new configuration in force: see `Daemon::commit` in `event_loop`.

use std::io;
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

/// How long a reading may take before the log reports that the disk does not answer.
const SLOW: Duration = Duration::from_secs(2);

/// The result of a reading of the configuration.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The names of the file, see [`names`].
    pub(super) names: Vec<String>,
    /// The contents of the file, or why it has none that can be used.
    pub(super) contents: Contents,
}

/// The contents of the configuration file, as far as it can be used.
#[derive(Debug)]
pub(super) enum Contents {
    /// The file cannot be read a second time.
    ReadOnce,
    /// The file cannot be read, or has errors.
    Unusable(Unusable),
    /// A configuration that may be put in force.
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

/// Returns whether the path gave its text to this process alone and only the first time: it is a
/// pipe, as with `-c /dev/stdin` and `-c <(…)`, or the path of a file descriptor.
pub(super) fn is_read_once(path: &Path) -> bool {
    let own = ["/dev/stdin", "/dev/fd", "/proc"];
    let is_own = own.iter().any(|place| path.starts_with(place));
    is_own || path.metadata().is_ok_and(|meta| !meta.is_file())
}

/// The readings of the configuration: at most one is under way, and one more is due after it.
#[derive(Debug)]
pub(super) struct Readings {
    done: PolledReceiver<io::Result<Prepared>>,
    /// The number of the last reading that was begun.
    number: u64,
    /// The time at which the reading under way began; `None`: none is under way.
    since: Option<Timestamp>,
    /// The time at which the log reports that the reading takes long; `None` once it has.
    tell: Option<Timestamp>,
    /// Another reading was asked for meanwhile: the one under way may have begun before the file was
    /// changed.
    again: bool,
    /// The table was cleared meanwhile: the result of the reading is not put in force.
    discarded: bool,
}

impl Readings {
    /// Begins with no reading under way.
    pub(super) fn new() -> Result<Self, Fault> {
        Ok(Self {
            done: PolledReceiver::new().map_err(|error| Fault::system("eventfd", error))?,
            number: 0,
            since: None,
            tell: None,
            again: false,
            discarded: false,
        })
    }

    /// Asks for a reading that begins from now on. Returns its number, and whether the caller is to
    /// begin it at once.
    pub(super) fn ask(&mut self) -> (u64, bool) {
        let is_under_way = self.since.is_some();
        self.again |= is_under_way;
        (self.number + 1, !is_under_way)
    }

    /// Begins a reading, in a thread.
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
        self.discarded = false;
        let done = self.done.sender();
        let read = {
            let (options, path, used) = (options.clone(), path.to_owned(), Arc::clone(used));
            let done = done.clone();
            move || done.send(Ok(prepare(&options, &path, used)))
        };
        let thread = thread::Builder::new().name("reload".into()).spawn(read);
        // The loop itself must not read: it would wait for the disk.
        if let Err(error) = thread {
            done.send(Err(error));
        }
    }

    /// Discards the reading that is under way, and the one that is due after it: they were asked for
    /// before the administrator cleared the table.
    pub(super) fn discard(&mut self) {
        self.discarded = self.since.is_some();
        self.number += u64::from(std::mem::take(&mut self.again));
    }

    /// Takes the result of a reading that is done. Returns its number, its result unless it was
    /// discarded, and whether another reading is due. The error is that no thread could be started.
    pub(super) fn take(&mut self) -> Option<(u64, Option<io::Result<Prepared>>, bool)> {
        let prepared = self.done.take().pop()?;
        self.since = None;
        self.tell = None;
        let prepared = (!self.discarded).then_some(prepared);
        Some((self.number, prepared, self.again))
    }

    /// Returns a descriptor that is readable when a reading is done.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.done.fd()
    }

    /// Returns when a slow disk is to be reported in the log.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.tell
    }

    /// Writes to the log, once a reading, that the disk does not answer.
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
