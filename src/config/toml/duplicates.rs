//! Headers and keys that stand in a file twice. TOML's parser reports each of them, and every key under
//! a second header as well; here the second header alone is reported.

use std::collections::HashSet;

use super::keys::bare;
use crate::config::diagnostic::Faults;
use crate::config::text::{ConfigText, Span};

/// The duplicates of one file.
pub(super) struct Duplicates<'a> {
    source: &'a ConfigText,
    /// The lines of headers that have been reported.
    told: HashSet<usize>,
}

impl<'a> Duplicates<'a> {
    pub(super) fn new(source: &'a ConfigText) -> Self {
        let told = HashSet::new();
        Self { source, told }
    }

    /// Reports the second of two headers or keys, which the parser rejected at `span`, with the lines
    /// of both. A header is reported once, however many of its keys the parser rejects.
    pub(super) fn report(&mut self, span: &Span, faults: &mut Faults) {
        let here = self.source.line_index(span.start);
        let above = |index: &usize| header(self.source.line(*index).1).is_some();
        let Some(section) = (0..=here).rev().find(above) else {
            return self.key(span, 0, here, faults);
        };
        let own = self.header_at(section);
        let Some(first) = (0..section).find(|index| self.header_at(*index) == own) else {
            return self.key(span, section, here, faults);
        };
        if !self.told.insert(section) {
            return;
        }
        let own = own.unwrap_or_default();
        let lines = format!("(lines {} and {})", first + 1, section + 1);
        let place = self.name_in(section);
        match own.strip_prefix("door.") {
            Some(name) => {
                let other = bare(&format!("{}-2", name.trim_matches(['"', '\''])));
                faults
                    .error(
                        &place,
                        format!("two doors are called {name} {lines}: rename one"),
                    )
                    .help(format!("such as [door.{other}]"));
            }
            None => {
                faults
                    .error(&place, format!("`[{own}]` stands here twice {lines}"))
                    .help("put all its keys under one header");
            }
        }
    }

    fn header_at(&self, index: usize) -> Option<String> {
        header(self.source.line(index).1)
    }

    /// Returns the place of the last part of a header's name.
    fn name_in(&self, index: usize) -> Span {
        let (begin, line) = self.source.line(index);
        let end = line.find(']').unwrap_or(line.len());
        let inner = line.get(..end).unwrap_or_default();
        let start = inner.rfind(['.', '[']).map_or(0, |at| at + 1);
        begin + start..begin + end
    }

    /// Reports a key that stands twice below one header.
    fn key(&self, span: &Span, section: usize, here: usize, faults: &mut Faults) {
        let name = self.source.text().get(span.clone()).unwrap_or_default();
        let is_same = |index: &usize| {
            let (key, _) = self
                .source
                .line(*index)
                .1
                .split_once('=')
                .unwrap_or_default();
            key.trim() == name
        };
        let lines = match (section..here).find(is_same) {
            Some(first) => format!(" (lines {} and {})", first + 1, here + 1),
            None => String::new(),
        };
        let name = name.escape_debug();
        faults
            .error(span, format!("`{name}` stands here twice{lines}"))
            .help("leave one of them out")
            .quiet_help(
                format!("a key stands here twice{lines}"),
                "leave one of them out",
            );
    }
}

/// Returns a header's name, without blanks and quotes; `None` if the line is no header.
fn header(line: &str) -> Option<String> {
    let inner = line.trim_start().strip_prefix('[')?;
    let (name, _) = inner.split_once(']')?;
    let plain = |c: &char| !c.is_whitespace() && !"\"'[".contains(*c);
    Some(name.chars().filter(plain).collect())
}
