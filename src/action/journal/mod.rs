//! The journal of pending stops: the stop command of each start that was run is run, even if the daemon
//! is killed or the machine reboots in between.
//!
//! The journal is a file of all stops that are pending. At a change it is replaced as a whole: after
//! a crash it has the stops that were pending before the change, or after it. If no stop is pending,
//! there is no file.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod stops;
mod version_0_9;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

pub(crate) use stops::{Clocks, DoorSource, PendingStop};

use super::state_file;

/// The file's name in the state directory.
const NAME: &str = "stops.journal";

/// A longer file is no journal of ours: the stops that can be pending need far less.
const MAX_SIZE: u64 = 256 << 20;

/// How long to wait until the helper of a daemon that was killed releases the lock. It does so as
/// soon as it sees that the daemon is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The action that failed, as in "cannot open".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is locked by another knockd: is one running with this state directory?", .0.display())]
    Locked(PathBuf),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The contents of a journal when it was opened.
#[derive(Debug)]
pub(crate) struct LeftStops {
    pub(crate) stops: BTreeMap<DoorSource, PendingStop>,
    /// If the file was damaged or not ours: its new path, and the fault.
    pub(crate) quarantined: Option<(PathBuf, String)>,
}

/// The open journal. It is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Returns whether there is a journal in `state_dir`. Then stops may be pending, even if no door has
/// commands any more.
#[must_use]
pub(crate) fn is_left(state_dir: &Path) -> bool {
    state_dir.join(NAME).exists()
}

impl Journal {
    /// Opens the journal in `state_dir`, which is made if it is not there, and reads it. A damaged
    /// file is kept under another name, and the lines of it that can be read are written anew.
    pub(crate) fn open(
        state_dir: &Path,
        clocks: Clocks,
    ) -> Result<(Self, LeftStops), JournalError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(failed("make", state_dir))?;
        let lock = lock(&state_dir.join("stops.lock"))?;
        let path = state_dir.join(NAME);
        let (stops, fault) = match read(&path) {
            Ok(text) => {
                let (stops, damaged) = parse(&text, clocks);
                let fault = (damaged > 0).then(|| format!("{damaged} lines of it are damaged"));
                (stops, fault)
            }
            Err(ReadFault::NotOurs(fault)) => (BTreeMap::new(), Some(fault)),
            Err(ReadFault::Failed(source)) => return Err(failed("read", &path)(source)),
        };
        let journal = Self { path, _lock: lock };
        let mut quarantined = None;
        if let Some(fault) = fault {
            let path = &journal.path;
            let aside = path.with_extension("journal.damaged");
            fs::rename(path, &aside).map_err(failed("set aside", path))?;
            quarantined = Some((aside, fault));
        }
        // An empty file must go: as long as there is one, each daemon starts a helper.
        if quarantined.is_some() || stops.is_empty() {
            journal.write(stops.iter(), clocks).inspect_err(|_| {
                // Its stops are read once more when the journal can be opened.
                if let Some((aside, _)) = &quarantined {
                    let _ = fs::rename(aside, &journal.path);
                }
            })?;
        }
        Ok((journal, LeftStops { stops, quarantined }))
    }

    /// Writes all stops that are pending. They are on the disk when this returns. If this fails, the
    /// journal stays as it was.
    pub(crate) fn write<'a>(
        &self,
        stops: impl Iterator<Item = (&'a DoorSource, &'a PendingStop)>,
        clocks: Clocks,
    ) -> Result<(), JournalError> {
        let path = &self.path;
        match stops::to_text(stops, clocks) {
            Ok(text) if text.is_empty() => state_file::remove(path).map_err(failed("remove", path)),
            Ok(text) => state_file::replace(path, &text).map_err(failed("write", path)),
            Err(error) => Err(failed("write", path)(error.into())),
        }
    }
}

/// Reads a whole journal, of this version or of 0.9.0. Returns its stops, and how many of its lines
/// cannot be read.
fn parse(text: &[u8], clocks: Clocks) -> (BTreeMap<DoorSource, PendingStop>, usize) {
    let as_now = stops::parse(text, clocks);
    let as_before = version_0_9::parse(text, clocks);
    match as_before.1 < as_now.1 {
        true => as_before,
        false => as_now,
    }
}

/// Why the file was not read.
enum ReadFault {
    /// The file's commands must not be run.
    NotOurs(String),
    /// The disk, or this process, cannot read it now.
    Failed(io::Error),
}

impl From<String> for ReadFault {
    fn from(fault: String) -> Self {
        Self::NotOurs(fault)
    }
}

/// Returns the file's bytes, none if there is no file.
fn read(path: &Path) -> Result<Vec<u8>, ReadFault> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A symbolic link, a socket, a file of somebody else's.
        Err(e)
            if [Errno::ELOOP, Errno::ENXIO, Errno::EACCES]
                .contains(&Errno::from_raw(e.raw_os_error().unwrap_or_default())) =>
        {
            return Err(format!("it cannot be opened: {e}").into());
        }
        Err(e) => return Err(ReadFault::Failed(e)),
    };
    let about = file.metadata().map_err(ReadFault::Failed)?;
    // Whoever can write the file could have us run anything.
    if !about.is_file() || about.nlink() != 1 {
        return Err("it is not a plain file of its own".to_owned().into());
    }
    let me = nix::unistd::geteuid().as_raw();
    if about.uid() != me || about.mode() & 0o022 != 0 {
        return Err(format!(
            "somebody else could write it: owner {}, mode {:o}",
            about.uid(),
            about.mode() & 0o7777
        )
        .into());
    }
    if about.len() > MAX_SIZE {
        return Err(format!("it has {} bytes", about.len()).into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(ReadFault::Failed)?;
    Ok(bytes)
}

/// Locks a file of its own, since the journal itself is replaced.
fn lock(path: &Path) -> Result<Flock<File>, JournalError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(failed("open", path))?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < give_up => {
                file = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((_, Errno::EWOULDBLOCK)) => return Err(JournalError::Locked(path.to_owned())),
            Err((_, errno)) => return Err(failed("lock", path)(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests;
