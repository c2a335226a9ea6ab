//! Command lines of both programs: the only room besides `daemon` that sees the others.

#[cfg(feature = "daemon")]
pub mod check;
pub mod knock;
#[cfg(feature = "daemon")]
pub mod knockd;
#[cfg(feature = "daemon")]
mod tools;

use std::io::{self, Write as _};

/// Writes a line to stderr. If that fails nobody is left to tell, and the exit code must
/// still say what it has to: `eprintln!` would panic.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
