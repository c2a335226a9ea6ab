//! The file of the log, in knock 0.8's line format.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// The open file.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    /// Lines that could not be written, to be told when one can.
    lost: u64,
}

impl LogFile {
    /// Opens or makes it. It may be a named pipe, or /dev/stdout that is one: no packet waits
    /// for its reader, neither here nor in a write. (`O_NONBLOCK` is this open file's alone,
    /// and means nothing for a plain one.)
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|p| p.ends_with("knockd")) {
            // /var/log/knockd is ours to make; another folder's absence is a mistake to report.
            let _ = std::fs::create_dir(parent);
        }
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(flags.bits())
            .open(path)?;
        Ok(Self { file, lost: 0 })
    }

    /// Writes a line, `time` before it. A full disk or pipe must not stop the daemon: what
    /// cannot be written is counted.
    pub(crate) fn write(&mut self, time: &str, text: &str) {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("{time}{lost} lines are lost: they could not be written\n"),
        };
        let lines = format!("{lost}{time}{text}\n");
        match self.file.write_all(lines.as_bytes()) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_named_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let none = LogFile::open(&path).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(nix::libc::ENXIO));

        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        let mut file = LogFile::open(&path).unwrap();
        let mut tried = 0;
        while file.lost < 2 {
            file.write("[now] ", &"x".repeat(4000));
            tried += 1;
        }
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert_eq!(text.lines().count(), tried - 2);
        file.write("[then] ", "at last");
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert_eq!(
            text,
            "[then] 2 lines are lost: they could not be written\n[then] at last\n"
        );
    }
}
