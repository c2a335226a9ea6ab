//! The journal of pending stops: what was opened by a command is closed by one, even if
//! the daemon is killed or the machine reboots in between.
//!
//! A log that is appended to, and rewritten when most of it is past. A stop is on the disk
//! before its start command is run (one `fdatasync` for all that arrive together). That it
//! was put off or has been run is written but not waited for: if power fails just then it
//! runs early, or twice.

mod record;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

pub(crate) use record::{Clock, Contents, Key, Pending, Record, checksum};

/// The file's name in the state directory.
const NAME: &str = "stops.journal";

/// A journal is rewritten when it has more lines than this and twice what is pending.
const SPARE_LINES: usize = 512;

/// More is no journal of ours: the most that can be pending is far less.
const MAX_SIZE: u64 = 256 << 20;

/// How long to wait for the helper of a daemon that was killed to let go of the lock. It
/// does so as soon as it sees that the daemon is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Something about a file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else has it.
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

/// What was found when a journal was opened.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it said.
    pub(crate) contents: Contents,
    /// Where it was put if it was damaged or not ours, and what was wrong.
    pub(crate) quarantined: Option<(PathBuf, String)>,
}

/// The open journal. Nobody else has it as long as this lives.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// None until something is written, and after a write that failed: the next one then
    /// begins a new file from what is pending, since half a line may be at the old one's end.
    file: Option<File>,
    lines: usize,
    buffer: String,
    buffered: usize,
    must_sync: bool,
    _lock: Flock<File>,
}

/// Whether a journal was left in `state_dir`: then stops may be pending, even if no door
/// has commands any more.
#[must_use]
pub(crate) fn is_left(state_dir: &Path) -> bool {
    state_dir.join(NAME).exists()
}

impl Journal {
    /// Opens the journal in `state_dir`, which is made if it is not there, and reads what
    /// was left. A damaged file is kept under another name, and what could be read of it is
    /// written anew.
    pub(crate) fn open(state_dir: &Path, clock: Clock) -> Result<(Self, Found), JournalError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(failed("make", state_dir))?;
        let lock = lock(&state_dir.join("stops.lock"))?;
        let path = state_dir.join(NAME);
        let (contents, fault) = match read(&path) {
            Ok(None) => (Contents::default(), None),
            Ok(Some(bytes)) => {
                let contents = record::parse(&bytes, clock);
                let fault = (contents.damaged > 0)
                    .then(|| format!("{} lines of it are damaged", contents.damaged));
                (contents, fault)
            }
            Err(fault) => (Contents::default(), Some(fault)),
        };
        let quarantined = match fault {
            None => None,
            Some(fault) => {
                let aside = path.with_extension("journal.damaged");
                fs::rename(&path, &aside).map_err(failed("set aside", &path))?;
                Some((aside, fault))
            }
        };
        let mut journal = Self {
            path,
            file: None,
            lines: 0,
            buffer: String::new(),
            buffered: 0,
            must_sync: false,
            _lock: lock,
        };
        if contents.pending.is_empty() {
            journal.remove()?;
        } else {
            let pending = contents.pending.iter();
            journal.rewrite(pending.map(|(k, p)| (k.clone(), p.clone())), clock)?;
        }
        let found = Found {
            contents,
            quarantined,
        };
        Ok((journal, found))
    }

    /// Notes a record, for the next [`commit`](Self::commit).
    pub(crate) fn note(&mut self, record: &Record, clock: Clock) {
        self.must_sync |= matches!(record, Record::Arm(..));
        self.buffer.push_str(&record.to_line(clock));
        self.buffered += 1;
    }

    /// Whether something was noted that is not written yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.buffered > 0
    }

    /// Writes what was noted; every stop among it is on the disk when this returns.
    /// `pending` are all that are pending now, as many as `count`: in case the file is
    /// rewritten.
    pub(crate) fn commit(
        &mut self,
        count: usize,
        pending: impl Iterator<Item = (Key, Pending)>,
        clock: Clock,
    ) -> Result<(), JournalError> {
        let fits = self.lines + self.buffered <= SPARE_LINES.max(2 * count);
        if let Some(file) = self.file.take()
            && fits
        {
            append(&file, &self.buffer, self.must_sync).map_err(failed("write", &self.path))?;
            self.lines += self.buffered;
            self.forget_noted();
            self.file = Some(file);
            return Ok(());
        }
        self.rewrite(pending, clock)
    }

    /// Puts a file with these stops alone in place of the journal.
    fn rewrite(
        &mut self,
        pending: impl Iterator<Item = (Key, Pending)>,
        clock: Clock,
    ) -> Result<(), JournalError> {
        self.forget_noted();
        let mut text = String::new();
        let mut lines = 0;
        for (key, stop) in pending {
            text.push_str(&Record::Arm(key, stop).to_line(clock));
            lines += 1;
        }
        let draft = self.path.with_extension("journal.new");
        // Not `create_new`: one may be left from a crash. It is truncated, not followed.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((OFlag::O_TRUNC | OFlag::O_NOFOLLOW).bits())
            .open(&draft)
            .map_err(failed("create", &draft))?;
        append(&file, &text, true).map_err(failed("write", &draft))?;
        fs::rename(&draft, &self.path).map_err(failed("replace", &self.path))?;
        self.sync_directory()?;
        self.lines = lines;
        self.file = Some(file);
        Ok(())
    }

    /// What was noted is written, or about to be as part of all that is pending.
    fn forget_noted(&mut self) {
        self.buffer.clear();
        self.buffered = 0;
        self.must_sync = false;
    }

    /// Takes the file away: nothing is pending.
    pub(crate) fn remove(&mut self) -> Result<(), JournalError> {
        self.file = None;
        match fs::remove_file(&self.path) {
            Ok(()) => self.sync_directory(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("remove", &self.path)(e)),
        }
    }

    /// A rename or removal is on the disk when its directory is (fsync(2)).
    fn sync_directory(&self) -> Result<(), JournalError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(failed("sync", directory))
    }
}

fn append(mut file: &File, text: &str, sync: bool) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    if sync { file.sync_data() } else { Ok(()) }
}

/// The file's bytes; None if there is none; the fault, if its commands must not be run.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("it cannot be opened: {e}")),
    };
    let about = file
        .metadata()
        .map_err(|e| format!("it cannot be looked at: {e}"))?;
    // Who can write it could have us run anything.
    if !about.is_file() || about.nlink() != 1 {
        return Err("it is not a plain file of its own".to_owned());
    }
    let me = nix::unistd::geteuid().as_raw();
    if about.uid() != me || about.mode() & 0o022 != 0 {
        return Err(format!(
            "somebody else could write it: owner {}, mode {:o}",
            about.uid(),
            about.mode() & 0o7777
        ));
    }
    if about.len() > MAX_SIZE {
        return Err(format!("it has {} bytes", about.len()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("it cannot be read: {e}"))?;
    Ok(Some(bytes))
}

/// On a file of its own, since the journal itself is replaced.
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
