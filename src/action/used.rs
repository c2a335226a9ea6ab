//! Which one-time sequences have been used, whatever their files say now: an editor writes back
//! what it read before one of them was marked, a backup is put in place, a marked line is taken
//! for a comment and its mark taken off.
//!
//! A keyed hash of each is kept, in memory and in the state directory, the oldest first. The
//! same sequence twice in one file is one use.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher as _;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use siphasher::sip::SipHasher13;

use crate::model::Step;

/// So many are remembered; of more the oldest are forgotten.
const MOST: usize = 65_536;

/// The first line of the file, before the key.
const HEADER: &str = "knockd used sequences 1 ";

/// The sequences that have been used.
#[derive(Debug)]
pub(crate) struct Used {
    key: [u8; 16],
    /// Never locked while something waits for a disk.
    hashes: Mutex<Hashes>,
    /// Locked by who waits.
    disk: Mutex<Disk>,
}

#[derive(Debug, Default)]
struct Hashes {
    all: HashSet<u64>,
    /// In the order of their use.
    order: Vec<u64>,
}

#[derive(Debug)]
struct Disk {
    path: PathBuf,
    /// None yet, or the last write failed: all is written anew.
    file: Option<File>,
}

impl Used {
    /// What is remembered in this folder; nothing if it cannot be read. `key` is for a file
    /// that is begun.
    pub(crate) fn load(folder: &Path, key: [u8; 16]) -> Self {
        let path = folder.join("used-sequences");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let found = parse(&text);
        let (key, order) = found.unwrap_or_else(|| (key, Vec::new()));
        Self {
            key,
            hashes: Mutex::new(Hashes {
                all: order.iter().copied().collect(),
                order,
            }),
            disk: Mutex::new(Disk { path, file: None }),
        }
    }

    /// Whether this sequence of this file has been used.
    pub(crate) fn has(&self, file: &Path, steps: &[Step]) -> bool {
        self.hashes().all.contains(&self.hash(file, steps))
    }

    /// From now on it has. Whether it had not before.
    pub(crate) fn add(&self, file: &Path, steps: &[Step]) -> bool {
        let hash = self.hash(file, steps);
        let mut hashes = self.hashes();
        let is_new = hashes.all.insert(hash);
        if is_new {
            hashes.order.push(hash);
        }
        is_new
    }

    /// It was not used after all.
    pub(crate) fn forget(&self, file: &Path, steps: &[Step]) {
        let hash = self.hash(file, steps);
        let mut hashes = self.hashes();
        hashes.all.remove(&hash);
        hashes.order.retain(|one| *one != hash);
    }

    /// Has one that was added on the disk when this returns.
    ///
    /// # Errors
    /// It is remembered by this process alone.
    pub(crate) fn write(&self, file: &Path, steps: &[Step]) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match disk.file.take() {
            Some(mut open) if self.hashes().order.len() <= MOST => {
                let line = line(self.hash(file, steps));
                let written = open.write_all(line.as_bytes());
                written.and_then(|()| open.sync_data()).map(|()| open)
            }
            Some(_) | None => self.rewrite(&disk.path),
        };
        disk.file = Some(written?);
        Ok(())
    }

    /// Writes all of them into a new file, in place of the old one. What the old one ends with
    /// may be half a line.
    fn rewrite(&self, path: &Path) -> io::Result<File> {
        let mut text = format!("{HEADER}{:032x}\n", u128::from_be_bytes(self.key));
        {
            let mut hashes = self.hashes();
            if hashes.order.len() > MOST {
                // Some at once: the file is not to be written anew at each use.
                let old: Vec<_> = hashes.order.drain(..MOST / 4).collect();
                for hash in old {
                    hashes.all.remove(&hash);
                }
            }
            text.extend(hashes.order.iter().map(|hash| line(*hash)));
        }
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(file)
    }

    fn hashes(&self) -> MutexGuard<'_, Hashes> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of what is knocked, however the line is written; and of the file's name, for two doors
    /// may wait for the same sequence.
    fn hash(&self, file: &Path, steps: &[Step]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(file.as_os_str().as_bytes());
        for step in steps {
            hasher.write(format!(" {step}").as_bytes());
        }
        hasher.finish()
    }
}

fn line(hash: u64) -> String {
    format!("{hash:016x}\n")
}

/// Key and hashes. A last line that was cut off is none: its door has not acted.
fn parse(text: &str) -> Option<([u8; 16], Vec<u64>)> {
    let (first, rest) = text.split_once('\n')?;
    let key = u128::from_str_radix(first.strip_prefix(HEADER)?, 16).ok()?;
    let whole = rest.split_inclusive('\n').filter(|line| line.len() == 17);
    let hashes = whole.filter_map(|line| u64::from_str_radix(line.trim_end(), 16).ok());
    let mut seen = HashSet::new();
    Some((
        key.to_be_bytes(),
        hashes.filter(|hash| seen.insert(*hash)).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILE: &str = "/etc/knockd.seq";

    fn steps(port: u16) -> Vec<Step> {
        vec![format!("{port}/tcp").parse().expect("a port")]
    }

    fn load(folder: &Path) -> Used {
        Used::load(folder, [7; 16])
    }

    fn use_up(used: &Used, port: u16) -> bool {
        let file = Path::new(FILE);
        let is_new = used.add(file, &steps(port));
        used.write(file, &steps(port)).expect("written");
        is_new
    }

    #[test]
    fn what_was_used_is_known_after_a_restart_and_of_its_file_alone() {
        let folder = tempfile::tempdir().expect("a directory");
        let used = load(folder.path());
        for port in 1..=20 {
            assert!(use_up(&used, port));
        }
        assert!(!use_up(&used, 3));
        // Another key: that of the file counts.
        let again = Used::load(folder.path(), [8; 16]);
        assert!(again.has(Path::new(FILE), &steps(3)));
        assert!(!again.has(Path::new(FILE), &steps(21)));
        assert!(!again.has(Path::new("/etc/other.seq"), &steps(3)));
        assert!(use_up(&again, 21));
        assert!(load(folder.path()).has(Path::new(FILE), &steps(21)));
        let path = folder.path().join("used-sequences");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // No port can be read in it.
        let text = fs::read_to_string(&path).expect("text");
        assert!(!text.contains("tcp"), "{text}");
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a directory");
        let used = load(folder.path());
        use_up(&used, 1);
        use_up(&used, 2);
        let path = folder.path().join("used-sequences");
        let text = fs::read_to_string(&path).expect("text");
        fs::write(&path, &text[..text.len() - 4]).expect("written");
        let used = load(folder.path());
        assert!(used.has(Path::new(FILE), &steps(1)));
        assert!(!used.has(Path::new(FILE), &steps(2)));
        use_up(&used, 3);
        assert!(load(folder.path()).has(Path::new(FILE), &steps(3)));
    }

    #[test]
    fn it_is_bounded_and_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().expect("a directory");
        let used = load(folder.path());
        let (file, steps_of) = (Path::new(FILE), |i: usize| {
            let (high, low) = (i / 60_000 + 1, i % 60_000 + 1);
            let text = format!("{high},{low}");
            crate::model::parse_legacy_sequence(&text).expect("a sequence")
        });
        for i in 0..=MOST {
            used.add(file, &steps_of(i));
        }
        used.write(file, &steps_of(MOST)).expect("written");
        let again = load(folder.path());
        for (i, known) in [(0, false), (MOST / 4, true), (MOST, true)] {
            assert_eq!(used.has(file, &steps_of(i)), known, "{i}");
            assert_eq!(again.has(file, &steps_of(i)), known, "{i}");
        }
    }

    #[test]
    fn without_a_folder_it_is_remembered_and_that_said() {
        let used = load(Path::new("/nowhere"));
        let file = Path::new(FILE);
        assert!(used.add(file, &steps(1)) && !used.add(file, &steps(1)));
        assert!(used.write(file, &steps(1)).is_err());
        assert!(used.has(file, &steps(1)));
        used.forget(file, &steps(1));
        assert!(!used.has(file, &steps(1)));
    }
}
