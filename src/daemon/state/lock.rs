//! Files that one daemon holds and a second must respect: the lock of a table, the lock of the control
//! socket, and the pid file of `-d`. The kernel frees a lock when its holder dies, so none is ever
//! stale.
//!
//! A user who can open a file can lock it, if only for reading, and so keep the daemon from it. So a
//! lock is a file for its owner alone (0600), and the lock on it is that of an open file description
//! (fcntl(2)), which a flock(2) does not meet. A pid file is for others to read: its lock lies beside
//! it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A file with the process number in it, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    held: File,
}

/// A file for others to read, with the process number in it, ours for as long as this value lives.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    lock: Lock,
}

/// Why the file is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon runs.
    #[error("knockd runs already, as process {pid} ({})", path.display())]
    Held {
        path: PathBuf,
        /// The text of the file.
        pid: String,
    },
    /// The file cannot be made or written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// How often a lock is tried if its file changes meanwhile.
const ATTEMPTS: u32 = 20;

/// The time between two tries of a file that somebody else is about to replace.
const MOMENT: Duration = Duration::from_millis(10);

impl Lock {
    /// Takes the file and writes our process number into it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Write {
            path: path.to_owned(),
            source,
        };
        // The owner of the folder may replace its files anyway.
        let folder = path.parent().and_then(|folder| folder.metadata().ok());
        let owner = folder.map(|folder| folder.uid());
        for attempt in 1..=ATTEMPTS {
            // Not truncated on opening: the number in it is the other daemon's until we hold it.
            let mut file = open(path, 0o600).map_err(failed)?;
            let meta = file.metadata().map_err(failed)?;
            if !meta.is_file() {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            let own = meta.uid() == nix::unistd::geteuid().as_raw() || Some(meta.uid()) == owner;
            let private = own && meta.mode() & 0o077 == 0;
            let is_locked = lock(&file).map_err(failed)?;
            if !is_at(&file, path) {
                // Its holder removed it between our opening and our locking it: a third daemon
                // would make another file of that name, and hold that.
                continue;
            }
            if private && !is_locked || own && !private && holds_as_of_old(&mut file, meta.uid()) {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    pid: number(&mut file),
                });
            }
            if !private && (is_locked || attempt > 5) {
                // Others could open the file, and may hold a lock on it. The file is replaced, so that
                // they hold another one.
                std::fs::remove_file(path).map_err(failed)?;
                continue;
            }
            if !private {
                // Another daemon may be replacing the file just now.
                std::thread::sleep(MOMENT);
                continue;
            }
            write_number(&mut file).map_err(failed)?;
            return Ok(Self {
                path: path.to_owned(),
                held: file,
            });
        }
        Err(failed(io::ErrorKind::ResourceBusy.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file; on a clean stop alone.
    pub(crate) fn remove(self) {
        // Removed while still locked, so that nobody's new file is.
        let _ = std::fs::remove_file(&self.path);
        drop(self.held);
    }
}

impl PidFile {
    /// Takes the file and writes our process number into it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Write {
            path: path.to_owned(),
            source,
        };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = Lock::take(Path::new(&beside)).map_err(|error| match error {
            LockError::Held { path: _, pid } => LockError::Held {
                path: path.to_owned(),
                pid,
            },
            LockError::Write { path: _, source } => failed(source),
        })?;
        let this = Self {
            path: path.to_owned(),
            lock,
        };
        match open(path, 0o644).and_then(|mut file| write_number(&mut file)) {
            Ok(()) => Ok(this),
            Err(source) => {
                this.lock.remove();
                Err(failed(source))
            }
        }
    }

    /// Removes the file; on a clean stop alone.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
        self.lock.remove();
    }
}

/// A symbolic link is not followed: the folder may be one in which others can write.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

fn write_number(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Returns the text of the file, which may be hostile or half-written: bounded and on one line.
fn number(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file
        .rewind()
        .and_then(|()| file.take(20).read_to_string(&mut text));
    text.trim().to_owned()
}

/// Returns the request for a lock of this kind on the whole file.
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Locks the whole file, unless another open file description has a lock on it. Returns whether it is
/// locked.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns whether a daemon of an older version holds the file. Such a daemon made the file for all to
/// read and took a flock(2). Anybody can hold a flock, so the number in the file must be that of a
/// knockd of the file's own user.
fn holds_as_of_old(file: &mut File, user: u32) -> bool {
    if !matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        return false;
    }
    let Ok(pid) = number(file).parse::<u32>() else {
        return false;
    };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let owner = std::fs::metadata(&process).map(|meta| meta.uid()).ok();
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    owner == Some(user) && name.trim_end() == "knockd"
}

/// Returns whether the open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |meta: io::Result<std::fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
    number(file.metadata()) == number(std::fs::symlink_metadata(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knockd.pid");
        let first = PidFile::take(&path).unwrap();
        let me = std::process::id().to_string();
        match PidFile::take(&path) {
            Err(LockError::Held { pid, path: at }) => {
                assert_eq!((pid, at), (me.clone(), path.clone()))
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        // A file that a dead daemon left, longer than ours, is taken over.
        std::fs::write(&path, "4194304444\n\n\n").unwrap();
        let again = PidFile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), me + "\n");
        again.remove();
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// `-p /tmp/knockd.pid`: a user who can put a link there does not choose which file root empties.
    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("knockd.pid"), dir.path().join("shadow"));
        let lock = dir.path().join("knockd.pid.lock");
        std::fs::write(&precious, "precious").unwrap();
        for link in [&path, &lock] {
            std::os::unix::fs::symlink(&precious, link).unwrap();
            match PidFile::take(&path) {
                Err(LockError::Write { .. }) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knockd.pid");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        std::fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path));
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Takes the locks that a reader can take: a flock of any kind, a read lock by fcntl.
    fn hold_as_a_reader(path: &Path) -> Vec<File> {
        let flocked = File::open(path).unwrap();
        flocked.lock().unwrap();
        let read = File::open(path).unwrap();
        fcntl(&read, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK))).unwrap();
        vec![flocked, read]
    }

    #[test]
    fn a_reader_keeps_nobody_from_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knockd.lock");
        // As an older knockd, a stranger or a careless script has left it.
        for (text, before) in [("", 0o644), ("1\n", 0o644), ("4194304444\n", 0o666)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).unwrap();
            let readers = hold_as_a_reader(&path);
            let lock = Lock::take(&path).unwrap();
            assert_eq!(mode(&path), 0o600);
            match Lock::take(&path) {
                Err(LockError::Held { .. }) => {}
                other => panic!("{other:?}"),
            }
            drop((lock, readers));
        }
        // The pid file is for others to read, and a lock that they hold on it does not count.
        let path = dir.path().join("knockd.pid");
        let first = PidFile::take(&path).unwrap();
        assert_eq!(mode(&path) & 0o444, 0o444);
        assert_eq!(mode(&dir.path().join("knockd.pid.lock")), 0o600);
        let _readers = hold_as_a_reader(&path);
        drop(first);
        PidFile::take(&path).unwrap().remove();
    }
}
