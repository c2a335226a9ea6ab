//! Files that one daemon holds and a second must respect: the pid file of `-d` and the lock
//! of a table. The kernel lets go of a lock when its holder dies, so none is ever stale.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

/// A file with the process number in it, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    held: Flock<File>,
}

/// Why the file is not ours.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Another daemon runs.
    #[error("knockd runs already, as process {pid} ({})", path.display())]
    Held {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        pid: String,
    },
    /// The file cannot be made or written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PidFile {
    /// Takes the file and writes our process number into it.
    pub(crate) fn take(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Write {
            path: path.to_owned(),
            source,
        };
        // Not truncated on opening: the number in it is the other daemon's until we hold it.
        // A symbolic link is not followed: the folder may be one in which others can write.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Its holder removed it between our opening and our locking it: a third daemon
            // would make another file of that name, and hold that.
            Ok(held) if !is_at(&held, path) => Self::take(path),
            Ok(held) => {
                let mut this = Self {
                    path: path.to_owned(),
                    held,
                };
                this.write().map_err(failed)?;
                Ok(this)
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // Hostile or half-written: what is shown is bounded and on one line.
                let _ = (&mut file).take(20).read_to_string(&mut pid);
                Err(PidFileError::Held {
                    path: path.to_owned(),
                    pid: pid.trim().to_owned(),
                })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self) -> io::Result<()> {
        let file = &mut *self.held;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Removes the file; on a clean stop alone.
    pub(crate) fn remove(self) {
        // Removed while still locked, so that nobody's new file is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |meta: io::Result<std::fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
    number(file.metadata()) == number(std::fs::symlink_metadata(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knockd.pid");
        let first = PidFile::take(&path).unwrap();
        let me = std::process::id().to_string();
        match PidFile::take(&path) {
            Err(PidFileError::Held { pid, .. }) => assert_eq!(pid, me),
            other => panic!("{other:?}"),
        }
        drop(first);
        // A file that a dead daemon left, longer than ours, is taken over.
        std::fs::write(&path, "4194304444\n\n\n").unwrap();
        let again = PidFile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), me + "\n");
        again.remove();
        assert!(!path.exists());
    }

    /// `-p /tmp/knockd.pid`: whoever can put a link there does not choose what root empties.
    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("knockd.pid"), dir.path().join("shadow"));
        std::fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        match PidFile::take(&path) {
            Err(PidFileError::Write { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
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
}
