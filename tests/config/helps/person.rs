//! What no machine can decide: the helps of that kind, and what somebody might choose.

use knockd::config::Diagnostic;

use super::file::{File, between, key};
use super::follow::Chance;

/// The helps that no machine can follow, each by some words of it, with the reason. A help that is neither
/// followed nor listed here fails the test.
pub(super) const LISTED: [(&str, &str); 13] = [
    (
        "a letter or `_`, then letters",
        "only the owner knows the name",
    ),
    ("nft takes it for no ", "only the owner knows the name"),
    (
        "a table is named with its family: ",
        "only the owner knows the family",
    ),
    (
        "0 is what unmarked packets have",
        "only the owner knows the marks of his firewall",
    ),
    (
        "set `mark`, and let your own firewall",
        "the firewall is not in this file",
    ),
    (
        "names are not looked up: ",
        "only the owner knows the address",
    ),
    (" = …`", "only the owner knows the value of the key"),
    (
        " there are `",
        "no known key is near: the owner chooses one, or takes it out",
    ),
    (
        "use a command, or `add` ",
        "the set and its rules are not in this file",
    ),
    (
        "to stop guarding, stop knockd",
        "the doors are lost: it is no change of the file",
    ),
    (
        "programs get such ports for calls",
        "it says what the kernel does; a warning",
    ),
    (
        "both doors act on one knock",
        "it may be meant so; a warning",
    ),
    (
        "whoever knocks here opens `",
        "it may be meant so; a warning",
    ),
];

/// Returns whether a help is of the kind that an entry of the list names.
pub(super) fn is_of(help: &str, (words, _): &(&str, &str)) -> bool {
    help.contains(words)
}

/// Returns the file after somebody has made up his mind about a fault that no machine can mend. Most of
/// these have no help, since the message says what may stand there.
pub(super) fn decide(file: &File, at: &Diagnostic, chance: &mut Chance) -> Option<File> {
    let (message, help) = (&*at.message, at.help.as_deref().unwrap_or_default());
    let has = |words: &str| message.contains(words);
    if has("this is no text") {
        let door = "[door.a]\nsequence = [\"21301/tcp\", \"42001/tcp\", \"9034/udp\"]";
        return Some(File::new(
            &file.name,
            format!("{door}\nopen = [\"22/tcp\"]\n"),
        ));
    }
    let index = at.line.checked_sub(1)?;
    let line = file.lines()[index].clone();
    let text = |new: &str| Some(file.put_text(at, new));
    let put = |new: &str| Some(file.put(at, new));
    if has("there is no door") {
        let (header, open) = match file.is_toml() {
            true => ("[door.a]", "open = [\"22/tcp\"]"),
            false => ("[a]", "command = true"),
        };
        let steps = format!("sequence = {}", chance.sequence(file));
        return Some(file.under(header, open).under(header, &steps));
    }
    // The message says what is meant.
    if let Some(meant) = between(message, "did you mean `", "`?") {
        return text(meant);
    }
    if has("is no port: ") || has("unknown protocol") || has("is a range: ") || has("overlaps") {
        return put(&chance.step(file));
    }
    if has("is opened and closed by one door") {
        return put(&chance.step(file));
    }
    if has("a sequence has at ") {
        return put(&chance.sequence(file));
    }
    if has("one of \"") {
        return put(&format!("\"{}\"", between(message, "\"", "\"")?));
    }
    let [_, place, _] = file.parts(at);
    if place.starts_with('{') {
        let name = chance.port();
        return put(&format!(
            "{{ table = \"inet filter\", set = \"name-{name}\" }}"
        ));
    }
    if has("this is no name of a ") || has("is a word of nft's language") {
        return text(&format!("name-{}", chance.port()));
    }
    if has("unknown key") {
        return Some(file.taken_out(at).0);
    }
    if has("a door with a `target` cannot `open`") {
        let (header, end) = *file
            .sections()
            .iter()
            .rfind(|(header, _)| *header < index)?;
        let lines = file.lines();
        let open = (header..end).find(|index| key(&lines[*index]) == "open")?;
        return Some(file.with_line(open, "start_command = \"true\""));
    }
    if has("cannot open ports and close them") {
        return Some(file.without_line(index));
    }
    if help.ends_with(" = …`") {
        return Some(file.with_line(index, &format!("{} = /bin/true", line.trim())));
    }
    if has("header ends with `]`") || has("a section's name must not be empty") {
        return Some(file.with_line(index, &format!("[name-{}]", chance.port())));
    }
    // The parser's own messages.
    if has("missing comma") || has("unclosed table") {
        let [before, place, after] = file.parts(at);
        let mark = if has("comma") { "," } else { "]" };
        return Some(file.with_line(index, &format!("{before}{mark}{place}{after}")));
    }
    if has("string values must be quoted") {
        return text(if place.trim().is_empty() { "1" } else { &place });
    }
    let values = [
        ("an interface's name has at most", "eth0"),
        ("is neither an address nor a prefix", "192.0.2.0/24"),
        ("cannot be both set and clear", "syn"),
        ("unknown TCP flag", "syn"),
        ("is no address", "192.0.2.1"),
        ("a door's name is one word", "one-word"),
        ("a duration, such as", "1h"),
        ("must not be more than ten years", "1h"),
    ];
    if let Some((_, new)) = values.iter().find(|(words, _)| has(words)) {
        return text(new);
    }
    if has("must not be 0 (") {
        return text(if file.is_toml() { "1s" } else { "1" });
    }
    if has("nobody here can knock at the target") {
        return put("[\"192.0.2.0/24\"]");
    }
    for number in [
        "`strays` is a number",
        "`max_open` is a number",
        "a mark is a number",
        "whole seconds",
    ] {
        if has(number) {
            return put("10");
        }
    }
    None
}
