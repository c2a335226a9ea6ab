//! A table whose keys are asked for one by one; what nobody asked for is unknown.

use ::toml::de::{DeTable, DeValue};

use super::values::{Value, kind};
use crate::config::diagnostic::Faults;
use crate::config::draft::Field;
use crate::config::source::{Span, Spanned};
use crate::config::suggest::nearest;

pub(super) struct Keys<'a> {
    /// What stands before a key in a message: `log.`.
    prefix: &'static str,
    entries: Vec<(&'a str, Span, Value<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(table: &'a DeTable<'_>, prefix: &'static str) -> Self {
        let entry = |(key, value): (
            &'a ::toml::Spanned<::toml::de::DeString<'_>>,
            &'a ::toml::Spanned<DeValue<'_>>,
        )| { (key.get_ref().as_ref(), key.span(), Value::new(value)) };
        Self {
            prefix,
            entries: table.iter().map(entry).collect(),
            asked: Vec::new(),
        }
    }

    /// The value of a key and where the key stands.
    pub(super) fn take(&mut self, key: &'static str) -> Option<(Span, Value<'a>)> {
        self.asked.push(key);
        let index = self.entries.iter().position(|(k, _, _)| *k == key)?;
        let (_, span, value) = self.entries.swap_remove(index);
        Some((span, value))
    }

    /// A key's value as `read` understands it; `read` reports what it does not.
    pub(super) fn field<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Value<'a>, &mut Faults) -> Option<T>,
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

    /// A table under this one: `[key]` or `key = { … }`.
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

    /// Reports what has not been asked for.
    pub(super) fn finish(&mut self, faults: &mut Faults) {
        for (key, span, _) in self.entries.drain(..) {
            let noted = faults.error(&span, format!("unknown key `{}`", key.escape_debug()));
            if let Some(near) = nearest(key, self.asked.iter().copied()) {
                noted.help(format!("did you mean `{near}`?"));
            } else {
                let known: Vec<_> = self.asked.iter().map(|k| format!("`{k}`")).collect();
                let here = match self.prefix.trim_end_matches('.') {
                    "" => "at the top".to_owned(),
                    table => format!("in `{table}`"),
                };
                noted.help(format!("{here} there are {}", known.join(", ")));
            }
        }
    }
}
