//! Folders that should be knockd's alone. A folder that is knockd's own is made private, wherever it is.
//! One that others use, too (`--run-dir /run`, `--state-dir /tmp`), is left as it is: to shut it would
//! break them. Then the log says so, and nothing is believed that somebody else can have put there.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, DirEntry, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// The bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;

/// The bits of a mode that let others than the owner make and remove files.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a mode by which each may remove only files of his own.
const STICKY: u32 = 0o1000;

/// Makes the folder, for its owner alone. One that is there becomes private if it is ours and `is_ours`
/// holds for all that lies in it.
pub(super) fn prepare(folder: &Path, is_ours: impl Fn(&DirEntry) -> bool) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // A folder whose mode cannot be changed can be used all the same, and the log warns of it.
    let _ = shut(folder, is_ours);
    Ok(())
}

/// Makes a folder private that is there, if it is ours and `is_ours` holds for all that lies in it.
pub(super) fn shut(folder: &Path, is_ours: impl Fn(&DirEntry) -> bool) -> io::Result<()> {
    let meta = fs::metadata(folder)?;
    let is_open = meta.mode() & OTHERS != 0;
    if is_open && is_own(&meta) && !is_sticky(&meta) && holds_only(folder, is_ours)? {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn is_own(meta: &Metadata) -> bool {
    meta.uid() == nix::unistd::geteuid().as_raw()
}

/// A sticky folder is meant for many users.
fn is_sticky(meta: &Metadata) -> bool {
    meta.mode() & STICKY != 0
}

fn holds_only(folder: &Path, is_ours: impl Fn(&DirEntry) -> bool) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !is_ours(&entry?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether knockd makes an entry of this name in its run directory.
pub(super) fn is_run_file(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_lock = Path::new(&name).extension() == Some(OsStr::new("lock"));
    // The listener's root is there for a moment.
    let is_root = name.as_encoded_bytes().starts_with(b"empty-");
    is_lock || is_root || name == "knockd.sock" || name == "failed-starts"
}

/// Returns whether an entry of the state directory is what knockd makes there: a folder for its owner
/// alone.
pub(super) fn is_state_folder(entry: &DirEntry) -> bool {
    let meta = entry.metadata();
    meta.is_ok_and(|meta| meta.is_dir() && is_own(&meta) && meta.mode() & OTHERS == 0)
}

/// Returns whether others than its owner may read this folder, or none if it is not there.
pub(super) fn is_shared(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|meta| meta.mode() & OTHERS != 0)
}

/// Returns whether nobody can have put a file into `inner`, a folder in `outer`, but root, this process's
/// user, and whoever owns `outer`. A folder that is not there holds nothing.
pub(super) fn is_trusted(outer: &Path, inner: &Path) -> bool {
    let Ok(outer) = fs::metadata(outer) else {
        return true;
    };
    // Who may rename `inner` may put another folder in its place.
    if outer.mode() & OTHERS_WRITE != 0 && !is_sticky(&outer) {
        return false;
    }
    match fs::symlink_metadata(inner) {
        Ok(inner) => {
            let owner = inner.uid();
            let is_known = owner == 0 || owner == outer.uid() || is_own(&inner);
            is_known && inner.is_dir() && inner.mode() & OTHERS_WRITE == 0
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, write};
    use std::path::PathBuf;

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    /// A folder of this mode in a new one.
    fn folder(named: u32) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("f");
        create_dir(&path).expect("a folder");
        set(&path, named);
        (root, path)
    }

    #[test]
    fn a_folder_of_ours_becomes_private_wherever_it_is() {
        for before in [0o755, 0o750, 0o777, 0o700] {
            let (_root, path) = folder(before);
            for name in ["knockd.sock", "knockd.lock", "x.lock", "failed-starts"] {
                write(path.join(name), "").expect("a file");
            }
            prepare(&path, is_run_file).expect("ours");
            assert_eq!(mode(&path), 0o700, "{before:o}");
            assert!(!is_shared(&path));
        }
        let (root, _) = folder(0o700);
        let made = root.path().join("a/b");
        prepare(&made, is_run_file).expect("a folder");
        assert_eq!((mode(&made), mode(&root.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn a_folder_that_others_use_stays_as_it_is() {
        for (before, others) in [(0o755, "sshd.pid"), (0o755, "lock"), (0o775, "systemd")] {
            let (_root, path) = folder(before);
            write(path.join("knockd.lock"), "").expect("a file");
            write(path.join(others), "").expect("a file");
            prepare(&path, is_run_file).expect("ours");
            assert_eq!(mode(&path), before);
            assert!(is_shared(&path));
        }
        // Like /tmp when it is empty.
        let (_root, path) = folder(0o1777);
        prepare(&path, is_run_file).expect("ours");
        assert_eq!(mode(&path), 0o1777);
    }

    #[test]
    fn a_state_directory_holds_private_folders_alone() {
        let (_root, path) = folder(0o755);
        let state = path.join("etc-knockd.toml");
        create_dir(&state).expect("a folder");
        set(&state, 0o755);
        // Like /var/lib.
        prepare(&path, is_state_folder).expect("ours");
        assert_eq!(mode(&path), 0o755);
        set(&state, 0o700);
        prepare(&path, is_state_folder).expect("ours");
        assert_eq!(mode(&path), 0o700);
        write(path.join("file"), "").expect("a file");
        set(&path, 0o755);
        prepare(&path, is_state_folder).expect("ours");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn what_somebody_else_can_have_put_there_is_not_trusted() {
        let (_root, outer) = folder(0o700);
        let inner = outer.join("etc-knockd.toml");
        assert!(is_trusted(&outer, &inner) && is_trusted(&inner, &inner.join("x")));
        create_dir(&inner).expect("a folder");
        for (outside, inside, is_safe) in [
            (0o700, 0o700, true),
            (0o755, 0o755, true),
            (0o1777, 0o700, true),
            (0o777, 0o700, false),
            (0o770, 0o700, false),
            (0o700, 0o770, false),
            (0o1777, 0o707, false),
        ] {
            set(&outer, outside);
            set(&inner, inside);
            assert_eq!(
                is_trusted(&outer, &inner),
                is_safe,
                "{outside:o} {inside:o}"
            );
        }
        // Somebody who makes a link in a folder for all leads elsewhere.
        set(&outer, 0o1777);
        let link = outer.join("link");
        std::os::unix::fs::symlink(&inner, &link).expect("a link");
        set(&inner, 0o700);
        assert!(!is_trusted(&outer, &link) && is_trusted(&outer, &inner));
    }
}
