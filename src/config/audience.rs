//! The audience of a diagnostic, and the lines of a configuration that may hold a secret.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use nix::sys::stat::{SFlag, fstat};

use super::keys::Key;
use super::suggest::nearest;
use super::text::{ConfigText, Span};

/// The readers of a diagnostic, or of any other text that may quote a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The user at the terminal, who may read the file.
    Terminal,
    /// A pipe or a file that the user has chosen: lines with a sequence in them are not shown.
    Pipe,
    /// A log, which others read too (the group adm may read systemd's journal): nothing of a
    /// sequence is shown.
    Log,
}

impl Audience {
    /// Returns who reads an output. A socket is the journal's (systemd-journald(8)).
    pub(crate) fn of(output: &(impl AsFd + IsTerminal)) -> Self {
        let is_socket = || {
            let about = fstat(output.as_fd());
            about.is_ok_and(|about| about.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits())
        };
        if output.is_terminal() {
            Self::Terminal
        } else if is_socket() {
            Self::Log
        } else {
            Self::Pipe
        }
    }
}

/// Returns whether the line of `span` certainly holds no secret: it is a header, or a key that is no
/// secret with its value, without a remark behind it. Other lines may hold a secret: a mistyped
/// `sequence`, or the middle of a list that runs over several lines.
pub(super) fn is_harmless(source: &ConfigText, span: &Span) -> bool {
    let (_, line) = source.line(source.line_index(span.start));
    let line = line.trim();
    if line.contains('#') {
        return false;
    }
    if let Some(header) = line.strip_prefix('[') {
        return header.strip_suffix(']').is_some_and(|h| !h.contains(','));
    }
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let key = key.trim().to_ascii_lowercase();
    if value.to_ascii_lowercase().contains("sequence =") {
        return false;
    }
    let is_public = |name: &str| Key::of_either(name).is_some_and(|key| !key.is_secret);
    // A misspelt key has the value of the key that was meant. The steps of a sequence are several.
    let slip = || !value.contains(',') && nearest(&key, Key::names()).is_some_and(is_public);
    is_public(&key) || slip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::Faults;

    /// Returns the same fault, as each reader sees it.
    fn readers(text: &str, needle: &str) -> [String; 3] {
        let source = ConfigText::new("f", text);
        let start = text.find(needle).expect("the needle");
        let mut faults = Faults::default();
        let place = start..start + needle.len();
        faults
            .error(&place, format!("`{needle}` is none"))
            .help(format!("not {needle}"))
            .quiet("none");
        let all = faults.into_diagnostics(&source);
        let one = all.first().expect("a diagnostic");
        [Audience::Terminal, Audience::Pipe, Audience::Log].map(|audience| one.shown_to(audience))
    }

    #[test]
    fn a_secret_is_shown_to_a_terminal_alone() {
        let [terminal, pipe, log] = readers("sequence = 1,x,3", "x");
        assert_eq!(
            terminal,
            "f:1:14: `x` is none\nsequence = 1,x,3\n             ^\nhelp: not x"
        );
        assert_eq!(pipe, "f:1:14: `x` is none\nhelp: not x");
        assert_eq!(log, "f:1:14: none");
    }

    #[test]
    fn only_lines_that_certainly_hold_no_secret_are_shown_to_all() {
        for (harmless, needle) in [
            ("open = [\"x\"]", "x"),
            ("  Interface = x", "x"),
            ("[door.x]", "x"),
            ("opne_for = \"x\"", "x"),
        ] {
            let [terminal, pipe, log] = readers(harmless, needle);
            assert!(terminal.contains(harmless), "{terminal}");
            assert!(pipe.contains(harmless), "{pipe}");
            // The message for a log keeps back what `x` is, and so does the line.
            assert!(!log.contains(harmless), "{log}");
        }
        for (secret, needle) in [
            ("sequence = [\"x\"]", "x"),
            ("sequnce = [\"x\"]", "x"),
            ("sequnce = \"x\"", "x"),
            ("opne = [\"7000/tcp\", \"x\"]", "x"),
            ("  \"7000/tcp\", \"x\",", "x"),
            ("7000, x", "x"),
            ("door.ssh = { sequence = [\"x\"] }", "x"),
            ("open = [\"x\"] # 7000", "x"),
            ("start_command = \"x secret\"", "x"),
            ("[door.x] # 7000", "x"),
            ("[1, x]", "x"),
        ] {
            let [terminal, pipe, log] = readers(secret, needle);
            assert!(terminal.contains(secret), "{terminal}");
            assert!(!pipe.contains(secret) && !log.contains(secret), "{pipe}");
        }
    }
}
