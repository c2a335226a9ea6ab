//! The state directory and the run directory. Several daemons may run on one host, each with its own
//! configuration; the configuration's path keeps their state apart.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::private_folder::{self, is_run_file, is_shared, is_state_folder, is_trusted};
use crate::action::state_file::replace;
use crate::config::FileBytes;

/// The folder for files that must outlive a reboot.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    /// The folder for all daemons.
    root: PathBuf,
    /// The folder in it for this one.
    dir: PathBuf,
}

/// A path at which nothing is and nothing can be made. It stands for a folder that others than knockd
/// could have filled.
const NOWHERE: &str = "/dev/null/not-trusted";

impl StateDir {
    /// Returns the folder below `root` for the daemon with this configuration and these interfaces
    /// (`-i`). `prepare` makes it.
    pub(crate) fn of(root: &Path, config: &Path, interfaces: &[String]) -> Self {
        let absolute = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let mut name = escape(absolute.as_os_str().as_bytes());
        for interface in interfaces {
            name.push('@');
            name.push_str(&escape(interface.as_bytes()));
        }
        Self {
            root: root.to_owned(),
            dir: root.join(fitting(name)),
        }
    }

    /// Makes the folder; only its owner can read it.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        private_folder::prepare(&self.root, is_state_folder)?;
        // All that lies in this one is ours, by its name.
        private_folder::prepare(&self.dir, |_| true)
    }

    /// Returns a warning if others than knockd can read what is here, or could have put something here.
    /// To be called once the folder is prepared.
    pub(crate) fn doubt(&self) -> Option<String> {
        let (root, dir) = (self.root.display(), self.dir.display());
        if !is_trusted(&self.root, &self.dir) {
            Some(format!(
                "{dir}: others than knockd can write here: no last good configuration, no pending                  stop and no used sequence is kept or believed; give knockd a --state-dir of its own"
            ))
        } else if is_shared(&self.root) {
            Some(format!(
                "{root} is not knockd's alone and stays open to others, who see which configurations                  there are: give knockd a --state-dir of its own"
            ))
        } else {
            None
        }
    }

    /// Takes the folder's lock, which is held as long as the returned value lives. `None` if a daemon
    /// of the same configuration and interfaces has it, or the folder cannot be opened.
    pub(crate) fn lock(&self) -> Option<File> {
        let folder = File::open(self.dir()).ok()?;
        folder.try_lock().ok().map(|()| folder)
    }

    /// Returns the folder, if nobody but knockd can have put a file there: commands are run and
    /// configurations taken by what lies in it.
    pub(crate) fn dir(&self) -> &Path {
        match is_trusted(&self.root, &self.dir) {
            true => &self.dir,
            false => Path::new(NOWHERE),
        }
    }

    pub(super) fn last_good_path(&self) -> PathBuf {
        self.dir().join("last-good")
    }

    /// Returns the bytes of the last configuration that this daemon ran with, if any.
    pub(crate) fn last_good(&self) -> Option<FileBytes> {
        // A folder of ours that somebody has opened to others since is no reason to have no guard.
        let _ = private_folder::shut(&self.root, is_state_folder);
        fs::read(self.last_good_path()).ok().map(FileBytes::from)
    }

    /// Keeps the bytes of a configuration that is now running.
    pub(super) fn keep_last_good(&self, bytes: &[u8]) -> io::Result<()> {
        if self.last_good().as_deref() == Some(bytes) {
            return Ok(());
        }
        replace(&self.last_good_path(), bytes)
    }
}

/// Makes the folder for locks and the control socket, for its owner alone.
pub(crate) fn prepare_run_dir(dir: &Path) -> io::Result<()> {
    private_folder::prepare(dir, is_run_file)
}

/// Returns a warning if others than its owner can read this folder for locks and the control socket,
/// which has been prepared.
pub(crate) fn doubt_of_run_dir(dir: &Path) -> Option<String> {
    is_shared(dir).then(|| {
        format!(
            "{} is not knockd's alone and stays open to others, who see that knockd runs: give it a \
             --run-dir of its own",
            dir.display()
        )
    })
}

/// Returns whether nothing can be written at a place at all, as in a container. Anything else, such as a
/// full disk, is a fault that somebody has to know of.
pub(crate) fn is_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    [
        NotADirectory,
        NotFound,
        PermissionDenied,
        ReadOnlyFilesystem,
    ]
    .contains(&error.kind())
}

/// Returns a path as a file name, in the manner of systemd-escape(1): `/` becomes `-`, and a byte that
/// is no letter, digit, `_` or `.` becomes `\xNN`.
pub(crate) fn escape(mut path: &[u8]) -> String {
    while let [b'/', inner @ ..] | [inner @ .., b'/'] = path {
        path = inner;
    }
    let mut name = String::new();
    for byte in path {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => name.push(char::from(*byte)),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    name
}

/// Shortens a name that is too long (NAME_MAX is 255 bytes): it keeps its end, which says most,
/// behind a hash of the whole. So paths that differ far from their end do not share a folder. (`~`
/// is escaped in every other name.)
fn fitting(name: String) -> String {
    match name.len().checked_sub(LONGEST) {
        None | Some(0) => name,
        Some(surplus) => {
            let hash = SipHasher13::new().hash(name.as_bytes());
            let end = name.chars().skip(surplus + HASH_LENGTH);
            format!("{hash:016x}~{}", end.collect::<String>())
        }
    }
}

/// The longest name of a folder.
const LONGEST: usize = 200;

/// The length of the hash in a shortened name: sixteen digits and a mark.
const HASH_LENGTH: usize = 17;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_configuration_has_a_folder_of_its_own() {
        let root = Path::new("/var/lib/knockd");
        let of = |c: &str, i: &[&str]| {
            let interfaces: Vec<_> = i.iter().map(ToString::to_string).collect();
            StateDir::of(root, Path::new(c), &interfaces).dir
        };
        assert_eq!(of("/etc/knockd.toml", &[]), root.join("etc-knockd.toml"));
        assert_eq!(
            of("/etc/knockd.conf", &["eth0"]),
            root.join("etc-knockd.conf@eth0")
        );
        assert_ne!(of("/etc/a-b", &[]), of("/etc/a/b", &[]));
        assert!(!of("/../../x", &[]).to_string_lossy().contains("/../"));
        // Names of the greatest length, and longer by one or by many. Only their beginnings differ.
        let long = |first: &str, n| format!("/{first}{}", "x".repeat(n));
        assert_eq!(of(&long("a", 199), &[]), root.join(&long("a", 199)[1..]));
        for n in [200, 300, 3000] {
            let folders = [of(&long("a", n), &[]), of(&long("b", n), &[])];
            assert_ne!(folders[0], folders[1]);
            for folder in folders {
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                assert_eq!(name.len(), 200);
                assert!(name[17..].chars().all(|c| c == 'x'), "{name}");
            }
        }
        // This name must never change: stops may be pending in the folder.
        let folder = of(&format!("/{}", "a-".repeat(60)), &[]);
        let folder = folder.to_string_lossy().into_owned();
        assert!(
            folder.starts_with("/var/lib/knockd/18552bdb82d562b0~"),
            "{folder}"
        );
    }

    #[test]
    fn one_daemon_has_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let of = |interface: &str| {
            let interfaces = [interface.to_owned()];
            StateDir::of(root.path(), Path::new("/etc/knockd.conf"), &interfaces)
        };
        assert!(of("eth0").lock().is_none(), "there is no folder");
        of("eth0").prepare().unwrap();
        of("lo").prepare().unwrap();
        let first = of("eth0").lock();
        assert!(first.is_some() && of("eth0").lock().is_none());
        assert!(of("lo").lock().is_some());
        drop(first);
        assert!(of("eth0").lock().is_some());
    }

    #[test]
    fn what_is_not_utf_8_tells_names_apart_too() {
        let of = |path: &[u8]| {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            StateDir::of(Path::new("/"), path, &[]).dir
        };
        assert_ne!(of(b"/k\xe4.conf"), of(b"/k\xf6.conf"));
        assert_eq!(of("/kä".as_bytes()), Path::new("/k\\xc3\\xa4"));
    }

    #[test]
    fn the_last_good_text_is_kept_whole_and_private() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path(), Path::new("/etc/knockd.toml"), &[]);
        assert_eq!(state.last_good(), None);
        state.prepare().unwrap();
        for text in [b"one", b"two"] {
            state.keep_last_good(text).unwrap();
            assert_eq!(state.last_good().as_deref(), Some(&text[..]));
        }
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.dir()), 0o700);
        assert_eq!(mode(&state.last_good_path()), 0o600);
    }
}
