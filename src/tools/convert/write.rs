//! TOML text.

use std::fmt::Display;
use std::time::Duration;

use crate::model::Lifetime;

/// A string: between single quotes, where TOML changes nothing, if it can stand there and
/// has double quotes or backslashes in it; shell commands do.
pub(super) fn string(text: &str) -> String {
    let plain = |c: char| !c.is_control() || c == '\t';
    if text.contains(['"', '\\']) && !text.contains('\'') && text.chars().all(plain) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `"syn,!ack"`.
pub(super) fn quoted(item: impl Display) -> String {
    string(&item.to_string())
}

/// `["22/tcp", "80/tcp"]`.
pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let all: Vec<_> = items.into_iter().map(quoted).collect();
    format!("[{}]", all.join(", "))
}

/// `"1m 30s"`.
pub(super) fn duration(duration: Duration) -> String {
    string(&humantime::format_duration(duration).to_string())
}

/// A duration, or `"until closed"`.
pub(super) fn lifetime(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::For(time) => duration(time),
        Lifetime::UntilClosed => string("until closed"),
    }
}

/// A table's name in a header: bare unless it has a dot.
pub(super) fn key(name: &str) -> String {
    if name.contains('.') {
        string(name)
    } else {
        name.to_owned()
    }
}

/// A comment of the old file; control characters, which TOML forbids, become blanks.
pub(super) fn comment(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_back() {
        for text in [
            "",
            "a",
            "echo \"x\"",
            "a'b\"c\\d",
            "\u{1b}\t\n\u{7f}",
            "日本",
            "'",
            "\\",
        ] {
            let document = format!("x = {}", string(text));
            let table = ::toml::de::DeTable::parse(&document).expect("TOML");
            let value = table.get_ref().get("x").expect("x");
            assert_eq!(value.get_ref().as_str(), Some(text), "{document}");
        }
    }
}
