//! The TOML text while it is written, and notes for its owner.

use super::write;
use crate::config::{ConfLine, ConfSection, ConfigText};

/// A note about a line that could not be carried over as it was, or about work that is left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversionNote {
    /// The line of the knockd.conf, from 1; 0 if none is meant.
    pub line: usize,
    pub message: String,
}

/// The text and the notes as far as they are written.
pub(super) struct TomlOutput<'a> {
    pub(super) source: &'a ConfigText,
    pub(super) toml: String,
    pub(super) notes: Vec<ConversionNote>,
}

impl<'a> TomlOutput<'a> {
    pub(super) fn new(source: &'a ConfigText) -> Self {
        Self {
            source,
            toml: String::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        self.toml.push_str(text);
        self.toml.push('\n');
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    /// Writes an empty line, but never two, nor one at the beginning.
    pub(super) fn gap(&mut self) {
        if !self.toml.is_empty() && !self.toml.ends_with("\n\n") {
            self.toml.push('\n');
        }
    }

    /// Notes something for the owner, and writes it into the text as well.
    pub(super) fn note(&mut self, place: Option<usize>, message: String) {
        self.line(&format!("# {}", write::comment(&message)));
        self.silent_note(place, message);
    }

    pub(super) fn silent_note(&mut self, place: Option<usize>, message: String) {
        let line = place.map_or(0, |offset| self.source.place(offset).line);
        self.notes.push(ConversionNote { line, message });
    }

    pub(super) fn remark(&mut self, line: &ConfLine<'_>) {
        match line {
            ConfLine::Blank => self.gap(),
            ConfLine::Comment(text) => self.line(&write::comment(text)),
            ConfLine::Directive { .. } => {}
        }
    }

    /// Writes the remarks behind a section's last key: they belong to the next section.
    pub(super) fn tail(&mut self, section: &ConfSection<'_>) {
        let (_, tail) = section.split();
        if !tail.is_empty() {
            self.gap();
        }
        for line in tail {
            self.remark(line);
        }
    }
}
