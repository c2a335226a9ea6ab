//! Reads configuration files: the only I/O of this room.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::diagnostic::{Diagnostic, Severity};
use super::file_bytes::FileBytes;
use super::host::Host;
use super::parse::{ConfigReport, Format, judge};
use super::text::ConfigText;

/// The knockd.toml that is read if nobody names another file.
pub(crate) const DEFAULT_TOML: &str = "/etc/knockd.toml";
/// The knockd.conf that is read if nobody names another file.
pub(crate) const DEFAULT_CONF: &str = "/etc/knockd.conf";

/// The size of the biggest file that is read, in bytes. A bigger file is no configuration: 65,535 doors
/// fit in this size.
const SIZE_MAX: u64 = 32 << 20;

/// A file that has been read and judged.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The file's bytes, to be kept or handed on: a pipe cannot be read twice. [`judge_bytes`] returns
    /// the same report of them.
    pub(crate) bytes: FileBytes,
    /// The configuration and its faults.
    pub(crate) report: ConfigReport,
}

/// Why a file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The user may not read the file.
    #[error("run as root: {} is for root alone (or chgrp knockd and chmod 640, for a daemon of that user)", .0.display())]
    NotAllowed(PathBuf),
    /// The file cannot be opened or read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is bigger than any configuration.
    #[error("{} is bigger than 32 MiB: that is no configuration", .0.display())]
    TooBig(PathBuf),
}

/// Reads a file and judges it, also by this host's ephemeral ports and by the file's mode. Relative
/// names in it begin in `folder`.
///
/// # Errors
///
/// If the file cannot be read. The faults in it stand in [`Loaded::report`].
pub(crate) fn load(path: &Path, folder: &Path) -> Result<Loaded, LoadError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        let denied = source.kind() == io::ErrorKind::PermissionDenied;
        if denied && !nix::unistd::geteuid().is_root() {
            LoadError::NotAllowed(path)
        } else {
            LoadError::Read { path, source }
        }
    };
    let mut file = open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode();
    let bytes = FileBytes::read(&mut file, meta.len(), SIZE_MAX + 1).map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(LoadError::TooBig(path.to_owned()));
    }
    let mut report = judge_bytes(path, &bytes, folder);
    let secret = |config: &crate::model::Config| config.doors.iter().any(|d| d.one_time.is_none());
    let open_to_all = if mode & 0o002 != 0 {
        Some("every user of this host can write this file, and have root run commands")
    } else if mode & 0o004 != 0 && report.config.as_ref().is_none_or(secret) {
        Some("every user of this host can read the sequences")
    } else {
        None
    };
    if let Some(what) = open_to_all {
        let message = format!("{what} (mode {:04o})", mode & 0o7777);
        let name = path.to_string_lossy().into();
        let mut warning = Diagnostic::whole(Severity::Warning, &name, message);
        warning.help = Some(format!("chmod 0600 {}", path.display()));
        report.diagnostics.insert(0, warning);
    }
    Ok(Loaded { bytes, report })
}

/// Judges bytes that were read from the file at `path` before, as [`load`] does.
pub(crate) fn judge_bytes(path: &Path, bytes: &[u8], folder: &Path) -> ConfigReport {
    let source = ConfigText::from_bytes(&path.to_string_lossy(), bytes);
    let format = Format::of(path, source.text());
    judge(&source, format, &Host::read(folder))
}

/// Opens a file without waiting. A reload must not hang on a pipe whose writer is gone, as that of
/// `-c <(…)` is by then. A pipe whose writer is there is read to its end.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

/// The file that is read when nobody names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) path: PathBuf,
    /// A remark for its owner about the choice.
    pub(crate) note: Option<String>,
}

/// Returns one of the default files: the TOML file, unless only the knockd.conf is there. If both are
/// there, the note says so.
#[must_use]
pub(crate) fn choose(toml: &Path, conf: &Path) -> Choice {
    let (has_toml, has_conf) = (toml.exists(), conf.exists());
    let both = || {
        format!(
            "{} is not read: there is {}",
            conf.display(),
            toml.display()
        )
    };
    Choice {
        path: if has_toml || !has_conf { toml } else { conf }.to_owned(),
        note: (has_toml && has_conf).then(both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    fn load(path: &Path) -> Result<Loaded, LoadError> {
        super::load(path, Path::new("/here"))
    }

    #[test]
    fn toml_is_taken_before_a_knockd_conf_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let (toml, conf) = (dir.path().join("k.toml"), dir.path().join("k.conf"));
        let chosen = || choose(&toml, &conf);
        // If neither file is there, the one that is looked for first is reported as missing.
        assert_eq!(chosen().path, toml);
        write(&conf, "").expect("a file");
        assert_eq!((chosen().path, chosen().note), (conf.clone(), None));
        write(&toml, "").expect("a file");
        assert_eq!(chosen().path, toml);
        assert!(
            chosen()
                .note
                .is_some_and(|n| n.contains("k.conf is not read"))
        );
    }

    #[test]
    fn a_file_that_is_open_to_everybody_is_warned_of() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.toml");
        let text = "[door.a]\nsequence = [\"5129/tcp\", \"48210/udp\", \"17766/tcp\"]\nopen = [\"22/tcp\"]\n";
        write(&path, text).expect("a file");
        for (mode, warnings) in [(0o644, 1), (0o642, 1), (0o640, 0), (0o600, 0)] {
            set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let loaded = load(&path).expect("a file");
            assert_eq!(&*loaded.bytes, text.as_bytes());
            let report = loaded.report;
            assert_eq!(
                report.diagnostics.len(),
                warnings,
                "{:?}",
                report.diagnostics
            );
            assert!(report.config.is_some());
        }
        for (mode, words) in [
            (0o644, "read the sequences (mode 0644)"),
            (
                0o666,
                "write this file, and have root run commands (mode 0666)",
            ),
        ] {
            set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let report = load(&path).expect("a file").report;
            let said = report.diagnostics.first().map(ToString::to_string);
            let path = path.display();
            let expected = format!(
                "{path}: warning: every user of this host can {words}\nhelp: chmod 0600 {path}"
            );
            assert_eq!(said, Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [dir.path().to_owned(), dir.path().join("none")] {
            let error = load(&path).expect_err("no file").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_read_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.conf");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let report = load(&path).expect("a pipe").report;
        assert!(report.config.is_none(), "{report:?}");
        // Opened for both, so that this does not wait either.
        let both = OpenOptions::new().read(true).write(true).open(&path);
        let mut both = both.expect("a pipe");
        std::thread::scope(|scope| {
            let loaded = scope.spawn(|| load(&path));
            io::Write::write_all(&mut both, b"[a]\nsequence = 5129,48210\n").expect("room");
            while !loaded.is_finished() {
                // The pipe is open there when somebody other than this test has it open.
                let readers = std::fs::read_dir("/proc/self/fd").expect("ours");
                let at = |entry: &io::Result<std::fs::DirEntry>| {
                    let target = entry.as_ref().ok().map(|e| std::fs::read_link(e.path()));
                    target.is_some_and(|t| t.is_ok_and(|t| t == path))
                };
                if readers.filter(at).count() == 2 {
                    break;
                }
            }
            drop(both);
            let report = loaded.join().expect("no panic").expect("a pipe").report;
            assert!(report.config.is_some(), "{report:?}");
        });
    }

    #[test]
    fn an_old_file_may_have_latin_1_in_its_comments_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.conf");
        let door = b"[a]\nsequence = 5129,48210,17766\ncommand = caf\xe9\n";
        write(
            &path,
            [b"# caf\xe9\n".as_slice(), &door[..door.len() - 2], b"e\n"].concat(),
        )
        .expect("a file");
        assert!(load(&path).expect("a file").report.config.is_some());
        write(&path, door).expect("a file");
        let report = load(&path).expect("a file").report;
        assert!(report.config.is_none());
        assert!(
            report
                .diagnostics
                .iter()
                .any(|d| (d.line, d.column) == (3, 14))
        );
    }

    #[test]
    fn relative_names_begin_in_the_folder_that_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.conf");
        let text = "[options]\nlogfile = rel.log\npidfile = ./run/pid\n[a]\n\
                    one_time_sequences = seq.txt\ncommand = true\n";
        write(&path, text).expect("a file");
        let report = load(&path).expect("a file").report;
        let config = report.config.expect("a configuration");
        assert_eq!(config.log.file.as_deref(), Some(Path::new("/here/rel.log")));
        assert_eq!(config.pid_file.as_deref(), Some(Path::new("/here/run/pid")));
        let one_time = config.doors.first().and_then(|door| door.one_time.clone());
        let file = one_time.map(|one_time| one_time.file);
        assert_eq!(file.as_deref(), Some(Path::new("/here/seq.txt")));
        let said: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
        assert!(said.join("\n").contains("`/here/seq.txt`"), "{said:?}");
    }

    #[test]
    fn a_reading_can_be_judged_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k");
        write(&path, "[door.a]\nsequence = [\"1/tcp\"]\nclose = \"all\"\n").expect("a file");
        set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        let loaded = load(&path).expect("a file");
        assert!(loaded.report.config.is_some());
        let again = judge_bytes(&path, &loaded.bytes, Path::new("/here"));
        assert_eq!(again, loaded.report);
    }

    #[test]
    fn the_format_is_told_by_the_name_or_by_a_header_only_toml_has() {
        let of = |name: &str, text: &str| Format::of(Path::new(name), text);
        assert_eq!(of("k.toml", "[a]\nsequence = 1\n"), Format::Toml);
        assert_eq!(of("k.conf", "[a]\nsequence = 1\n"), Format::Legacy);
        assert_eq!(of("k", "\u{feff}[firewall] # x\n"), Format::Toml);
        assert_eq!(of("k.cfg", "\n  [door.ssh]\n"), Format::Toml);
        assert_eq!(of("k", "# [door.ssh]\n[firewalls]\n"), Format::Legacy);
        // Doors of knock 0.8 may have any name.
        for name in ["[firewall]\n", "[door.x]\n"] {
            assert_eq!(of("k.conf", name), Format::Legacy);
            assert_eq!(of("K.CONF", name), Format::Legacy);
        }
    }
}
