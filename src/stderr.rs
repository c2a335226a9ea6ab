//! What whoever typed a command is told beside its output.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line to stderr. If that fails nobody is left to tell, and the program must still
/// do what it has to, and end with the right code: `eprintln!` would panic.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(as_error(&line.to_string(), is_journal()).as_bytes());
}

/// The lines of an error as stderr is to have them: the journal is told how bad it is
/// (sd-daemon(3)), line by line.
pub(crate) fn as_error(text: &str, is_journal: bool) -> String {
    let priority = if is_journal { "<3>" } else { "" };
    let lines = text.lines().map(|line| format!("{priority}{line}\n"));
    lines.collect()
}

/// sd-daemon(3): `JOURNAL_STREAM` names device and inode of the journal's stream.
pub(crate) fn is_journal() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let stated = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    match (stated, stderr) {
        (Some(stated), Some(meta)) => stated == format!("{}:{}", meta.dev(), meta.ino()),
        _ => false,
    }
}
