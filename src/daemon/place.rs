//! Where a daemon's own files lie. Several daemons may run on one host, each with its own
//! configuration; their files are kept apart by the configuration's path.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// The folder for what must outlive a reboot.
#[derive(Debug, Clone)]
pub(crate) struct State {
    dir: PathBuf,
}

impl State {
    /// The folder below `root` of the daemon that was given this configuration and these
    /// interfaces (`-i`); made by `prepare`.
    pub(crate) fn of(root: &Path, config: &Path, interfaces: &[String]) -> Self {
        let absolute = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let mut name = escape(&absolute.to_string_lossy());
        for interface in interfaces {
            name.push('@');
            name.push_str(&escape(interface));
        }
        // NAME_MAX is 255 bytes; a longer path keeps its end, which tells most.
        let cut = name.len().saturating_sub(200);
        let cut = (cut..name.len()).find(|i| name.is_char_boundary(*i));
        Self {
            dir: root.join(&name[cut.unwrap_or(0)..]),
        }
    }

    /// Makes the folder, for root's eyes only.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn last_good_path(&self) -> PathBuf {
        self.dir.join("last-good")
    }

    /// The bytes of the last configuration that this daemon ran with, if any.
    pub(crate) fn last_good(&self) -> Option<Vec<u8>> {
        fs::read(self.last_good_path()).ok()
    }

    /// Keeps the bytes of a configuration that is now running.
    fn keep_last_good(&self, bytes: &[u8]) -> io::Result<()> {
        if self.last_good().as_deref() == Some(bytes) {
            return Ok(());
        }
        replace(&self.last_good_path(), bytes)
    }
}

/// Writes down what is to outlive a reboot, beside the work: a busy disk takes seconds to
/// sync, and no packet may wait for it.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    at_work: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Keeps the bytes of a configuration that is now running, after those before them.
    pub(crate) fn keep_last_good(&mut self, state: State, bytes: Vec<u8>) {
        let before = self.at_work.take();
        let work = move || {
            if let Some(before) = before {
                let _ = before.join();
            }
            if let Err(error) = state.keep_last_good(&bytes) {
                tracing::debug!("the last good configuration is not kept: {error}");
            }
        };
        match thread::Builder::new().name("keeper".into()).spawn(work) {
            Ok(thread) => self.at_work = Some(thread),
            Err(error) => tracing::error!("cannot start a thread: {error}"),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(at_work) = self.at_work.take() {
            let _ = at_work.join();
        }
    }
}

/// Writes a file whole or not at all, synced, for root's eyes only.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A path as a file name, in the manner of systemd-escape(1): `/` becomes `-`, what is
/// neither letter, digit, `_` nor `.` becomes `\xNN`.
fn escape(text: &str) -> String {
    let mut name = String::new();
    for byte in text.trim_matches('/').bytes() {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => name.push(char::from(byte)),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configuration_has_a_folder_of_its_own() {
        let root = Path::new("/var/lib/knockd");
        let of = |c: &str, i: &[&str]| {
            let interfaces: Vec<_> = i.iter().map(ToString::to_string).collect();
            State::of(root, Path::new(c), &interfaces).dir
        };
        assert_eq!(of("/etc/knockd.toml", &[]), root.join("etc-knockd.toml"));
        assert_eq!(
            of("/etc/knockd.conf", &["eth0"]),
            root.join("etc-knockd.conf@eth0")
        );
        assert_ne!(of("/etc/a-b", &[]), of("/etc/a/b", &[]));
        assert!(!of("/../../x", &[]).to_string_lossy().contains("/../"));
        let long = format!("/{}", "ä".repeat(300));
        assert!(of(&long, &[]).file_name().unwrap().len() <= 200);
    }

    #[test]
    fn the_last_of_several_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let state = State::of(root.path(), Path::new("/etc/knockd.toml"), &[]);
        state.prepare().unwrap();
        let mut keeper = Keeper::default();
        for text in 0..20_u8 {
            keeper.keep_last_good(state.clone(), vec![text]);
        }
        drop(keeper);
        assert_eq!(state.last_good(), Some(vec![19]));
    }

    #[test]
    fn the_last_good_text_is_kept_whole_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let state = State::of(root.path(), Path::new("/etc/knockd.toml"), &[]);
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
