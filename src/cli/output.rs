//! The output of subcommands.

use std::io::{self, Write as _};

use crate::daemon::Fault;
use crate::tools::check::SavedTable;

/// Prints to stdout. A reader that has enough (`| head`) is no fault.
pub(super) fn print(text: &str) -> Result<(), Fault> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Fault::output(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Prints lines to stdout.
pub(super) fn print_all(lines: &[String]) -> Result<(), Fault> {
    lines
        .iter()
        .try_for_each(|line| print(&format!("{line}\n")))
}

/// Returns the loud warning of a saved ruleset that has our table in it.
pub(super) fn spoils(saved: &SavedTable, table: &str) -> String {
    format!(
        "TAKE OUT OF THE SAVED RULESET: {saved}: that is table inet {table}, which knockd makes by \
         itself. As long as it is there, `systemctl restart nftables` fails whole where the \
         running daemon owns its table, and NONE OF YOUR OWN RULES are loaded; elsewhere, and at \
         boot, an old copy comes back"
    )
}
