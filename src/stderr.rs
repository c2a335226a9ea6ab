//! Messages on stderr for the user of a command.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line to stderr. If that fails there is nobody to tell, but the program must still do its
/// work and end with the right code: `eprintln!` would panic.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(as_error(&line.to_string(), is_journal()).as_bytes());
}

/// Returns the lines of an error for stderr. For the journal, each line has the priority of an error
/// (sd-daemon(3)).
pub(crate) fn as_error(text: &str, is_journal: bool) -> String {
    let priority = if is_journal { "<3>" } else { "" };
    let lines = text.lines().map(|line| format!("{priority}{line}\n"));
    lines.collect()
}

/// Returns whether stderr is the journal: `JOURNAL_STREAM` names device and inode of the journal's
/// stream (systemd.exec(5)).
pub(crate) fn is_journal() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let stated = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    match (stated, stderr) {
        (Some(stated), Some(meta)) => stated == format!("{}:{}", meta.dev(), meta.ino()),
        _ => false,
    }
}
