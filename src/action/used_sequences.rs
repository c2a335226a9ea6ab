//! The one-time sequences that have been used, whatever their files say now. A file can lose its
//! marks: an editor writes back what it read before a sequence was marked, a backup is put in place,
//! or somebody takes a marked line for a comment and its mark off.
//!
//! A keyed hash of each used sequence is kept in memory and in the state directory. A sequence that
//! stands twice in one file can be used once.

use std::collections::HashSet;
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use siphasher::sip::SipHasher13;

use super::state_file;
use crate::model::Step;

/// How many sequences are remembered. If there are more, the oldest are forgotten.
const MOST: usize = 65_536;

/// The first line of the file, before the key.
const HEADER: &str = "knockd used sequences 1 ";

/// The sequences that have been used.
#[derive(Debug)]
pub(crate) struct UsedSequences {
    path: PathBuf,
    key: [u8; 16],
    /// Never locked while something waits for a disk.
    hashes: Mutex<Hashes>,
    /// Locked while the file is written.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Hashes {
    all: HashSet<u64>,
    /// The hashes that the file is to have, the oldest first.
    written: Vec<u64>,
}

impl UsedSequences {
    /// Returns the sequences that are remembered in this folder; none if it cannot be read. `key`
    /// is for a file that is begun.
    pub(crate) fn load(folder: &Path, key: [u8; 16]) -> Self {
        let path = folder.join("used-sequences");
        // A line that is damaged must not have the others forgotten.
        let bytes = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let (key, written) = parse(&text).unwrap_or_else(|| (key, Vec::new()));
        Self {
            path,
            key,
            hashes: Mutex::new(Hashes {
                all: written.iter().copied().collect(),
                written,
            }),
            writing: Mutex::new(()),
        }
    }

    /// Returns whether this sequence of this file has been used.
    pub(crate) fn has(&self, file: &Path, steps: &[Step]) -> bool {
        self.hashes().all.contains(&self.hash(file, steps))
    }

    /// Takes a sequence as used from now on. Returns whether it had not been used before.
    pub(crate) fn add(&self, file: &Path, steps: &[Step]) -> bool {
        self.hashes().all.insert(self.hash(file, steps))
    }

    /// Takes back [`add`](Self::add): the sequence was not used after all.
    pub(crate) fn forget(&self, file: &Path, steps: &[Step]) {
        self.hashes().all.remove(&self.hash(file, steps));
    }

    /// Writes a sequence that was added, on the disk when this returns.
    ///
    /// # Errors
    /// If the file cannot be written. Then this process alone remembers the sequence.
    pub(crate) fn write(&self, file: &Path, steps: &[Step]) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.text_with(self.hash(file, steps));
        state_file::replace(&self.path, text.as_bytes())
    }

    /// Returns the whole text of the file, with one more hash.
    fn text_with(&self, hash: u64) -> String {
        let mut hashes = self.hashes();
        let Hashes { all, written } = &mut *hashes;
        written.push(hash);
        let surplus = written.len().saturating_sub(MOST);
        for old in written.drain(..surplus) {
            all.remove(&old);
        }
        to_text(self.key, written)
    }

    fn hashes(&self) -> MutexGuard<'_, Hashes> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes the steps, so that it does not matter how the line is written; and the file's name,
    /// since two doors may wait for the same sequence.
    fn hash(&self, file: &Path, steps: &[Step]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(file.as_os_str().as_bytes());
        for step in steps {
            hasher.write(format!(" {step}").as_bytes());
        }
        hasher.finish()
    }
}

/// Returns the whole text of a file.
pub(super) fn to_text(key: [u8; 16], hashes: &[u64]) -> String {
    let mut text = format!("{HEADER}{:032x}\n", u128::from_be_bytes(key));
    text.extend(hashes.iter().map(|hash| format!("{hash:016x}\n")));
    text
}

/// Returns the key and the hashes. A last line that was cut off does not count.
pub(super) fn parse(text: &str) -> Option<([u8; 16], Vec<u64>)> {
    let (first, rest) = text.split_once('\n')?;
    let key = u128::from_str_radix(first.strip_prefix(HEADER)?, 16).ok()?;
    let whole = rest.split_inclusive('\n').filter(|line| line.len() == 17);
    let hashes = whole.filter_map(|line| u64::from_str_radix(line.trim_end(), 16).ok());
    Some((key.to_be_bytes(), hashes.collect()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILE: &str = "/etc/knockd.seq";

    fn steps(port: u16) -> Vec<Step> {
        vec![format!("{port}/tcp").parse().expect("a port")]
    }

    fn load(folder: &Path) -> UsedSequences {
        UsedSequences::load(folder, [7; 16])
    }

    fn use_up(used: &UsedSequences, port: u16) -> bool {
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
        // With another key, the key in the file still counts.
        let again = UsedSequences::load(folder.path(), [8; 16]);
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
    fn a_line_that_is_no_text_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a directory");
        let used = load(folder.path());
        for port in 1..=3 {
            use_up(&used, port);
        }
        let path = folder.path().join("used-sequences");
        let mut bytes = fs::read(&path).expect("readable");
        let middle = bytes.len() - 20;
        bytes[middle] = 0xff;
        fs::write(&path, bytes).expect("written");
        let used = load(folder.path());
        let is_known = |port| used.has(Path::new(FILE), &steps(port));
        assert_eq!([1, 2, 3].map(is_known), [true, false, true]);
    }

    #[test]
    fn the_memory_of_used_sequences_is_bounded_and_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().expect("a directory");
        let used = load(folder.path());
        use_up(&used, 1);
        use_up(&used, 2);
        let path = folder.path().join("used-sequences");
        let mut text = fs::read_to_string(&path).expect("text");
        text.extend((3..=MOST).map(|hash| format!("{hash:016x}\n")));
        fs::write(&path, text).expect("written");
        let used = load(folder.path());
        let file = Path::new(FILE);
        assert!(used.has(file, &steps(1)));
        use_up(&used, 3);
        for used in [used, load(folder.path())] {
            for (port, is_known) in [(1, false), (2, true), (3, true)] {
                assert_eq!(used.has(file, &steps(port)), is_known, "{port}");
            }
        }
    }

    #[test]
    fn without_a_folder_used_sequences_are_remembered_and_a_warning_given() {
        let used = load(Path::new("/nowhere"));
        let file = Path::new(FILE);
        assert!(used.add(file, &steps(1)) && !used.add(file, &steps(1)));
        assert!(used.write(file, &steps(1)).is_err());
        assert!(used.has(file, &steps(1)));
        used.forget(file, &steps(1));
        assert!(!used.has(file, &steps(1)));
    }
}
