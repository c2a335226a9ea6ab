//! A `[door.NAME]` table.

use ::toml::de::DeValue;

use super::keys::Keys;
use super::values::{
    Items, PORTS, PREFIXES, STEPS, TomlValue, address, duration, flags, integer, lifetime, list,
    path, ports, prefix, spelled, step, text,
};
use crate::config::diagnostic::Faults;
use crate::config::draft::{DraftClose, DraftDoor, DraftElement, Field, SpannedList};
use crate::config::text::Spanned;
use crate::model::SetPath;

/// The greatest length of a name: it stands in nft comments (128 bytes) and log lines.
const NAME_MAX: usize = 64;

pub(super) fn read(name: Spanned<String>, keys: &mut Keys<'_>, faults: &mut Faults) -> DraftDoor {
    check_name(&name, faults);
    DraftDoor {
        name,
        misread: false,
        sequence: keys.field("sequence", faults, |v, f| list(v, f, STEPS, step)),
        one_time: keys.field("one_time_sequences", faults, path),
        seq_timeout: keys.field("seq_timeout", faults, duration),
        seq_cooldown: keys.field("seq_cooldown", faults, duration),
        tcp_flags: keys.field("tcp_flags", faults, flags),
        from: keys.field("from", faults, |v, f| list(v, f, PREFIXES, prefix)),
        target: keys.field("target", faults, address),
        strays: keys.field("strays", faults, integer),
        open: keys.field("open", faults, |v, f| list(v, f, PORTS, ports)),
        open_for: keys.field("open_for", faults, lifetime),
        max_open: keys.field("max_open", faults, integer),
        close: keys.field("close", faults, close),
        add: keys.field("add", faults, |v, f| elements(v, f, true)),
        remove: keys.field("remove", faults, |v, f| elements(v, f, false)),
        start: keys.field("start_command", faults, text),
        stop: keys.field("stop_command", faults, text),
        start_6: keys.field("start_command_6", faults, text),
        stop_6: keys.field("stop_command_6", faults, text),
        cmd_timeout: keys.field("cmd_timeout", faults, duration),
    }
}

/// Reports a name that is not one word of letters, digits, `_`, `-` and `.`. It must survive in an
/// nft comment, in a log line that a script takes apart, and in a command line.
fn check_name(name: &Spanned<String>, faults: &mut Faults) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let message = if name.value.is_empty() {
        "a door's name must not be empty"
    } else if !name.value.chars().all(plain) {
        "a door's name is one word of letters (a-z, A-Z), digits, `_`, `-` and `.`"
    } else if name.value.len() > NAME_MAX {
        "a door's name has at most 64 characters"
    } else {
        return;
    };
    faults.error(&name.span, message);
}

/// Reads `"all"`, or a list of ports.
fn close(value: TomlValue<'_>, faults: &mut Faults) -> Option<DraftClose> {
    let Some(word) = value.value.as_str() else {
        return list(value, faults, PORTS, ports).map(DraftClose::Ports);
    };
    if word == "all" {
        return Some(DraftClose::All);
    }
    let inner = spelled(word, PORTS.spell);
    let help = match inner.as_str() {
        _ if ["all", "any", "everything", "*"]
            .contains(&word.trim().to_ascii_lowercase().as_str()) =>
        {
            "did you mean \"all\"?".to_owned()
        }
        "" => format!("such as [{}]", PORTS.example),
        inner => format!("put it in brackets: [{inner}]"),
    };
    faults
        .error(&value.span, "a list of ports or \"all\" must stand here")
        .help(help);
    None
}

/// Reads one `{ table = …, set = … }`, or a list of them.
fn elements(
    value: TomlValue<'_>,
    faults: &mut Faults,
    timed: bool,
) -> Option<SpannedList<DraftElement>> {
    if value.value.is_table() {
        let span = value.span.clone();
        let one = element(value, faults, timed)?;
        return Some(vec![Spanned::new(one, span)]);
    }
    if !value.value.is_array() {
        element(value, faults, timed);
        return None;
    }
    let items = Items {
        example: "{ table = \"inet filter\", set = \"knocked\" }",
        spell: str::to_owned,
        is_secret: false,
    };
    list(value, faults, items, |v, f| element(v, f, timed))
}

fn element(value: TomlValue<'_>, faults: &mut Faults, timed: bool) -> Option<DraftElement> {
    let DeValue::Table(table) = value.value else {
        faults
            .error(&value.span, "an element of a set must stand here")
            .help("such as { table = \"inet filter\", set = \"knocked\" }");
        return None;
    };
    let mut keys = Keys::new(table, if timed { "add." } else { "remove." });
    let path = keys.field("table", faults, table_path);
    let set = keys.field("set", faults, text);
    let lifetime = if timed {
        keys.field("for", faults, lifetime)
    } else {
        Field::Absent
    };
    let ports = keys.field("ports", faults, |v, f| list(v, f, PORTS, ports));
    keys.finish(faults);
    for (field, example) in [
        (path.is_absent(), "table = \"inet filter\""),
        (set.is_absent(), "set = \"knocked\""),
    ] {
        if field {
            faults.error(&value.span, format!("there is no {example} or the like"));
        }
    }
    let (family, table) = path.given()?.value.clone();
    Some(DraftElement {
        path: SetPath {
            family,
            table,
            set: set.given()?.value.clone(),
        },
        lifetime,
        ports,
    })
}

/// Reads `inet filter`: family and table, as nft names them.
fn table_path(value: TomlValue<'_>, faults: &mut Faults) -> Option<(String, String)> {
    let span = value.span.clone();
    let path = text(value, faults)?;
    if let Some((family, table)) = path.split_once(' ') {
        return Some((family.to_owned(), table.trim_start().to_owned()));
    }
    faults
        .error(&span, "a table is named with its family")
        .help(format!(
            "such as \"inet {}\"; `nft list tables` shows them",
            path.escape_debug()
        ));
    None
}
