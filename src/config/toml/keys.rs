//! A table whose keys are asked for one by one. A key that nobody has asked for is unknown.

use ::toml::de::{DeTable, DeValue};

use super::values::{TomlValue, kind};
use crate::config::diagnostic::Faults;
use crate::config::draft::Field;
use crate::config::keys::{Header, Key};
use crate::config::suggest::nearest;
use crate::config::text::{Span, Spanned};

pub(super) struct Keys<'a> {
    /// The table's name before a key in a message: `log.`.
    prefix: &'static str,
    entries: Vec<(&'a str, Span, TomlValue<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(table: &'a DeTable<'_>, prefix: &'static str) -> Self {
        let entry = |(key, value): (
            &'a ::toml::Spanned<::toml::de::DeString<'_>>,
            &'a ::toml::Spanned<DeValue<'_>>,
        )| { (key.get_ref().as_ref(), key.span(), TomlValue::new(value)) };
        Self {
            prefix,
            entries: table.iter().map(entry).collect(),
            asked: Vec::new(),
        }
    }

    /// Returns the value of a key, and the key's place.
    pub(super) fn take(&mut self, key: &'static str) -> Option<(Span, TomlValue<'a>)> {
        self.asked.push(key);
        let index = self.entries.iter().position(|(k, _, _)| *k == key)?;
        let (_, span, value) = self.entries.swap_remove(index);
        Some((span, value))
    }

    /// Returns a key's value as `read` understands it; `read` reports its faults.
    pub(super) fn field<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(TomlValue<'a>, &mut Faults) -> Option<T>,
    ) -> Field<T> {
        let Some((_, value)) = self.take(key) else {
            return Field::Absent;
        };
        let span = value.span.clone();
        match read(value, faults) {
            Some(value) => Field::Given(Spanned::new(value, span)),
            None => Field::Faulty,
        }
    }

    /// Reads a table under this one: `[key]` or `key = { … }`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Span, &mut Keys<'a>, &mut Faults) -> T,
    ) -> Option<T> {
        let (span, value) = self.take(key)?;
        let DeValue::Table(table) = value.value else {
            faults
                .error(
                    &value.span,
                    format!("`{key}` is a table, not {}", kind(value.value)),
                )
                .help(format!("write its keys under `[{key}]`"));
            return None;
        };
        let prefix = match key {
            "log" => "log.",
            "firewall" => "firewall.",
            _ => "",
        };
        let mut keys = Keys::new(table, prefix);
        let made = read(span, &mut keys, faults);
        keys.finish(faults);
        Some(made)
    }

    /// Reports the keys that nobody has asked for. Returns whether there are any.
    pub(super) fn finish(&mut self, faults: &mut Faults) -> bool {
        let unknown = !self.entries.is_empty();
        for (key, span, value) in std::mem::take(&mut self.entries) {
            let help = self.help(key, value.value);
            let noted = faults.error(&span, format!("unknown key `{}`", key.escape_debug()));
            let noted = noted.help(help.clone());
            if !is_word(key) {
                noted.quiet_help("unknown key", help);
            }
        }
        unknown
    }

    /// Returns the advice on a key that nobody has asked for.
    fn help(&self, key: &str, value: &DeValue<'_>) -> String {
        let lower = key.to_ascii_lowercase().replace('-', "_");
        let is_top = self.prefix.is_empty();
        if let (true, DeValue::Table(table)) = (is_top, value) {
            if lower == "options" {
                return "write [log]: here it has the keys that `[options]` has in a knockd.conf"
                    .into();
            }
            let of_door = |key: &str| Key::of_either(key).is_some_and(Key::is_of_door);
            let is_door = table.iter().any(|(key, _)| of_door(key.get_ref()));
            if is_door || nearest(key, ["log", "firewall", "door"]).is_none() {
                return format!(
                    "write [door.{}]: a door's header says that it is one",
                    bare(key)
                );
            }
        }
        // `timeout` is another key of a door.
        if self.asks_for("for") && ["timeout", "open_for", "lifetime"].contains(&&*lower) {
            return "did you mean `for`?".to_owned();
        }
        let alias = alias(&lower);
        if let Some(meant) = alias.filter(|new| self.asked.contains(new)) {
            return format!("did you mean `{meant}`?");
        }
        if let Some(place) = retired(&lower) {
            return place.to_owned();
        }
        let name = alias.unwrap_or(&lower);
        if let Some(place) = place(name).filter(|_| !self.asks_for(&lower)) {
            // There it would be unknown by another name.
            return match name == key {
                true => place.to_owned(),
                false => format!("{place}, as `{name}`"),
            };
        }
        if let Some(near) = nearest(key, self.asked.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let known: Vec<_> = self.asked.iter().map(|k| format!("`{k}`")).collect();
        let here = match self.prefix.trim_end_matches('.') {
            "" => "at the top".to_owned(),
            table => format!("in `{table}`"),
        };
        format!("{here} there are {}", known.join(", "))
    }

    fn asks_for(&self, key: &str) -> bool {
        self.asked.contains(&key)
    }
}

/// Returns whether a text looks like a key. Any other text may be the rest of a value, and a secret.
fn is_word(key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphabetic() || "_-".contains(c);
    !key.is_empty() && key.chars().all(|c| word(c) || c == '6')
}

/// Returns a name as it is written in a header.
pub(super) fn bare(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.escape_debug())
    }
}

/// Names that people have for a key and neither format has.
const ALIASES: [(&str, &str); 3] = [
    ("port", "open"),
    ("cooldown", "seq_cooldown"),
    ("source", "from"),
];

/// Returns the name in a knockd.toml of a key of knock 0.8, or of a key by another name.
fn alias(key: &str) -> Option<&'static str> {
    let other = ALIASES.iter().find(|(other, _)| *other == key);
    let conf = || Key::of_conf(key)?.toml;
    other.map(|(_, name)| *name).or_else(conf)
}

/// Returns the right place of a key that stands below the wrong header.
fn place(key: &str) -> Option<&'static str> {
    let place = match Key::of_toml(key)?.header {
        Header::Top if key == "log" => {
            "it belongs at the top of the file, or under a header of its own, `[log]`"
        }
        Header::Top | Header::Options => {
            "it belongs at the top of the file, above the first header"
        }
        Header::Log => "it belongs into `log`, such as log = { level = \"info\" }",
        Header::Firewall => "it belongs under `[firewall]`",
        Header::Door => "it belongs under the header of a door, `[door.NAME]`",
    };
    Some(place)
}

/// Returns the replacement for an option of a knockd.conf.
fn retired(key: &str) -> Option<&'static str> {
    match key {
        "logfile" => Some("here it is log = { file = \"/var/log/knockd/knockd.log\" }"),
        "usesyslog" => Some("here it is log = { syslog = true }"),
        "pidfile" => Some("here it is a flag: knockd -p FILE"),
        _ => None,
    }
}
