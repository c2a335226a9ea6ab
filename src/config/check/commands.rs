//! The check of a door's commands.

use std::time::Duration;

use super::super::diagnostic::Faults;
use super::super::draft::{DraftDoor, Field};
use super::fields::time;
use crate::model::Commands;

/// The time from start to stop if the file gives none, as in knock 0.8.
const CMD_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the commands of a door, and returns them if it has any.
pub(super) fn commands(draft: &DraftDoor, faults: &mut Faults) -> Option<Commands> {
    let [start, stop, start_6, stop_6] =
        [&draft.start, &draft.stop, &draft.start_6, &draft.stop_6].map(|c| command(c, faults));
    if let Some(timeout) = draft.cmd_timeout.given() {
        time(&timeout.span, timeout.value, "cmd_timeout", faults);
        if draft.stop.is_absent() && draft.stop_6.is_absent() {
            faults.warn(
                &timeout.span,
                "`cmd_timeout` means nothing here: there is no `stop_command`",
            );
        }
    }
    // An empty string means something only for an IPv6 source, if there is another string to
    // fall back on. Elsewhere it is the same as none.
    let some = |text: Option<String>| text.filter(|t| !t.is_empty());
    let (start, stop) = (some(start), some(stop));
    if let (None, Some(_), Some(given)) = (&start, &stop, draft.stop.given()) {
        faults
            .warn(
                &given.span,
                "this is never run: there is no `start_command`",
            )
            .help("what was not started is not stopped; `true` is a start");
    }
    let six = |six: Option<String>, four: &Option<String>| match four {
        Some(_) => six,
        None => some(six),
    };
    let commands = Commands {
        start_6: six(start_6, &start),
        stop_6: six(stop_6, &stop),
        start,
        stop,
        timeout: draft.cmd_timeout.or(CMD_TIMEOUT),
    };
    let runs = [
        &commands.start,
        &commands.stop,
        &commands.start_6,
        &commands.stop_6,
    ];
    runs.iter().any(|c| c.is_some()).then_some(commands)
}

fn command(field: &Field<String>, faults: &mut Faults) -> Option<String> {
    let given = field.given()?;
    let text = &given.value;
    if text.contains('\0') {
        faults.error(&given.span, "a command must not contain NUL");
    }
    let placeholder = text.to_ascii_lowercase().matches("%ip%").count();
    if placeholder > text.matches("%IP%").count() {
        faults
            .warn(&given.span, "`%IP%` is replaced in capitals alone")
            .help("write %IP% where the knocker's address must stand");
    }
    from_a_page(field, text, faults);
    Some(text.clone())
}

/// Warns of dashes and quotes as web pages and text processors write them. To the shell they are
/// letters, so that the command fails when somebody knocks.
fn from_a_page(field: &Field<String>, text: &str, faults: &mut Faults) {
    let Some(given) = field.given() else { return };
    let plain = |c: char| match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => Some("--"),
        '\u{201c}'..='\u{201f}' => Some("\""),
        '\u{2018}'..='\u{201b}' => Some("'"),
        '\u{a0}' | '\u{202f}' => Some("a blank"),
        _ => None,
    };
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let begins = before.is_whitespace();
        before = c;
        let Some(meant) = plain(c) else { continue };
        // Within a word or by itself a dash is a dash, as in a message.
        let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
        if meant == "--" && !(begins && rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        {
            continue;
        }
        let word = rest
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .next();
        let word = word.unwrap_or_default();
        let (shown, meant) = match (c.is_whitespace(), meant) {
            (true, _) => ("a no-break space".to_owned(), "a blank".to_owned()),
            (false, "--") => {
                let name = word.trim_start_matches('-');
                let dashes = if name.len() > 1 { "--" } else { "-" };
                (
                    format!("the dash of `{c}{word}`"),
                    format!("`{dashes}{name}`"),
                )
            }
            // The place of a string of TOML has its quotes, and another quote would end it.
            (false, plain) if given.span.len() > text.len() => (
                format!("`{c}`"),
                format!("`{plain}`, and put the command between `'''` and `'''`"),
            ),
            (false, plain) => (format!("`{c}`"), format!("`{plain}`")),
        };
        faults
            .warn(
                &given.span,
                format!(
                    "the shell takes {shown} (U+{:04X}) for a letter: the command fails",
                    u32::from(c)
                ),
            )
            .help(format!("it comes of copying from a page: type {meant}"));
        return;
    }
}
