//! knockd.toml.
//!
//! The document is walked by hand, with the place of each value at hand, and not by way of
//! serde: serde stops at the first fault, an administrator wants them all.

mod door;
mod duplicates;
mod keys;
mod values;

use ::toml::de::{DeTable, DeValue};

use self::duplicates::Duplicates;
use self::keys::Keys;
use self::values::{
    NAMES, PORTS, PREFIXES, TomlValue, boolean, integer, list, path, ports, prefix, text, word,
};
use super::diagnostic::Faults;
use super::draft::{ConfigDraft, Defaults, DraftFirewall, DraftLog};
use super::text::{ConfigText, Spanned};
use crate::model::{Door, Guard, Level, OnStop, Sandbox, TcpFlags, TripwireMode};

const DEFAULTS: Defaults = Defaults {
    seq_timeout: Door::SEQ_TIMEOUT,
    tcp_flags: TcpFlags::SYN,
};

/// Reads the text. Returns `None` if it is no TOML: then the rest of it has been searched for faults,
/// but the file as a whole cannot be judged.
pub(super) fn read(source: &ConfigText, faults: &mut Faults) -> Option<ConfigDraft> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    if errors.is_empty() {
        return Some(draft(document.get_ref(), faults));
    }
    let mut duplicates = Duplicates::new(source);
    for error in errors {
        let end = source.text().len();
        let span = error.span().unwrap_or(end..end);
        if error.message() == "duplicate key" {
            duplicates.report(&span, faults);
            continue;
        }
        // Some of the parser's messages run over several lines.
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        faults.error(&span, message);
    }
    let mut later = Faults::default();
    draft(document.get_ref(), &mut later);
    faults.add_elsewhere(later, source);
    None
}

/// Returns whether a text is plainly a knockd.toml, whatever the name of its file: it is TOML, and has
/// a door whose sequence is a list or lies in a file, which no knockd.conf has.
pub(super) fn is_ours(text: &str) -> bool {
    let Ok(document) = DeTable::parse(text) else {
        return false;
    };
    let Some(DeValue::Table(doors)) = document.get_ref().get("door").map(|d| d.get_ref()) else {
        return false;
    };
    let typed = |table: &DeTable<'_>| {
        let list = table
            .get("sequence")
            .is_some_and(|v| v.get_ref().is_array());
        let file = table.get("one_time_sequences");
        list || file.is_some_and(|v| v.get_ref().is_str())
    };
    let mut doors = doors
        .iter()
        .filter_map(|(_, door)| door.get_ref().as_table());
    doors.any(typed)
}

fn draft(document: &DeTable<'_>, faults: &mut Faults) -> ConfigDraft {
    let mut keys = Keys::new(document, "");
    let draft = ConfigDraft {
        is_legacy: false,
        defaults: DEFAULTS,
        interfaces: keys.field("interfaces", faults, |v, f| list(v, f, NAMES, text)),
        ignore: keys.field("ignore", faults, |v, f| list(v, f, PORTS, ports)),
        tripwires: keys.field("tripwires", faults, tripwires),
        sandbox: keys.field("sandbox", faults, |value, faults| {
            let sandbox = |is_on| if is_on { Sandbox::On } else { Sandbox::Off };
            boolean(value, faults).map(sandbox)
        }),
        log: keys
            .table("log", faults, |_, keys, faults| log(keys, faults))
            .unwrap_or_default(),
        pid_file: super::draft::Field::Absent,
        firewall: keys.table("firewall", faults, firewall),
        doors: keys
            .take("door")
            .map(|(_, value)| doors(value, faults))
            .unwrap_or_default(),
    };
    keys.finish(faults);
    draft
}

fn tripwires(value: TomlValue<'_>, faults: &mut Faults) -> Option<TripwireMode> {
    if let Some(old @ ("sampled" | "all")) = value.value.as_str() {
        faults
            .warn(
                &value.span,
                format!("`tripwires = \"{old}\"` is now \"on\": every port is a tripwire"),
            )
            .help("write \"on\", or leave the key out");
        return Some(TripwireMode::On);
    }
    let modes = [("on", TripwireMode::On), ("off", TripwireMode::Off)];
    word(value, faults, &modes)
}

fn log(keys: &mut Keys<'_>, faults: &mut Faults) -> DraftLog {
    DraftLog {
        level: keys.field("level", faults, |v, f| {
            let levels = [
                ("error", Level::Error),
                ("warn", Level::Warn),
                ("info", Level::Info),
                ("debug", Level::Debug),
                ("trace", Level::Trace),
            ];
            word(v, f, &levels)
        }),
        file: keys.field("file", faults, path),
        syslog: keys.field("syslog", faults, boolean),
    }
}

fn firewall(span: super::text::Span, keys: &mut Keys<'_>, faults: &mut Faults) -> DraftFirewall {
    DraftFirewall {
        span,
        table: keys.field("table", faults, text),
        guard: keys.field("guard", faults, |v, f| {
            use Guard::{Drop, Off, Reject};
            word(v, f, &[("drop", Drop), ("reject", Reject), ("off", Off)])
        }),
        on_stop: keys.field("on_stop", faults, |v, f| {
            word(v, f, &[("keep", OnStop::Keep), ("remove", OnStop::Remove)])
        }),
        trusted: keys.field("trusted", faults, |v, f| list(v, f, PREFIXES, prefix)),
        mark: keys.field("mark", faults, integer),
    }
}

/// `[door.NAME]` tables, in the order of the file (the parser sorts them by name).
fn doors(value: TomlValue<'_>, faults: &mut Faults) -> Vec<super::draft::DraftDoor> {
    let DeValue::Table(table) = value.value else {
        faults
            .error(&value.span, "a door has a name")
            .help("begin it with `[door.NAME]`");
        return Vec::new();
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut doors = Vec::with_capacity(entries.len());
    let mut nameless = false;
    for (name, value) in entries {
        let name = Spanned::new(name.get_ref().to_string(), name.span());
        let DeValue::Table(table) = value.get_ref() else {
            // This is reported once: all keys below a header without a name lack that name.
            if !std::mem::replace(&mut nameless, true) {
                faults
                    .error(&name.span, "a door has a name, and its keys stand under it")
                    .help("begin it with `[door.NAME]`");
            }
            continue;
        };
        let mut keys = Keys::new(table, "door.");
        let mut door = door::read(name, &mut keys, faults);
        door.misread = keys.finish(faults);
        doors.push(door);
    }
    doors
}
