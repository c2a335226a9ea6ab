//! What whoever typed a command is told beside its output.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line to stderr. If that fails nobody is left to tell, and the program must still
/// do what it has to, and end with the right code: `eprintln!` would panic.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
