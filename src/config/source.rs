//! A text with its name, and places in it.

use std::ops::Range;
use std::sync::Arc;

/// A stretch of a [`Source`]'s text, in bytes.
pub(super) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> Spanned<T> {
    pub(super) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A configuration text, without its byte order mark.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: Arc<str>,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// Where bytes stood that are not UTF-8; each is U+FFFD in the text.
    foreign: Vec<usize>,
}

/// A place as people count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Source {
    /// A text; `name` is what diagnostics call it.
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self::assemble(name, text.to_owned(), Vec::new())
    }

    /// Bytes of a file. Those that are not UTF-8 are replaced and remembered: in a
    /// comment of an old file they do no harm.
    pub(super) fn from_bytes(name: &str, bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut foreign = Vec::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                foreign.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Self::assemble(name, text, foreign)
    }

    fn assemble(name: &str, mut text: String, mut foreign: Vec<usize>) -> Self {
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
            for offset in &mut foreign {
                *offset -= '\u{feff}'.len_utf8();
            }
        }
        let begins = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(begins).collect();
        Self {
            name: name.into(),
            text,
            lines,
            foreign,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn foreign(&self) -> &[usize] {
        &self.foreign
    }

    /// The index of the line that `offset` lies in, from 0.
    pub(super) fn line_index(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|begin| *begin <= offset)
            .saturating_sub(1)
    }

    /// A line's text without its end, and where it begins.
    pub(super) fn line(&self, index: usize) -> (usize, &str) {
        let begin = self.lines.get(index).copied().unwrap_or(self.text.len());
        let rest = self.text.get(begin..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        (begin, line.strip_suffix('\r').unwrap_or(line))
    }

    /// Every line's text without its end, and where it begins.
    pub(super) fn each_line(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.lines.len()).map(|index| self.line(index))
    }

    /// Where `offset` stands, as people count.
    pub(super) fn place(&self, offset: usize) -> Place {
        let index = self.line_index(offset);
        let (begin, line) = self.line(index);
        let before = line.char_indices().take_while(|(i, _)| begin + i < offset);
        Place {
            line: index + 1,
            column: before.count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_and_a_byte_order_mark_is_none() {
        let source = Source::new("x", "\u{feff}a = é日x\r\nb\n");
        assert_eq!(source.text().find('x'), Some(9));
        assert_eq!(source.place(9), Place { line: 1, column: 7 });
        assert_eq!(source.line(0), (0, "a = é日x"));
        assert_eq!(source.place(12), Place { line: 2, column: 1 });
        assert_eq!(source.place(14), Place { line: 3, column: 1 });
        assert_eq!(source.place(99), Place { line: 3, column: 1 });
    }

    #[test]
    fn foreign_bytes_are_remembered() {
        let source = Source::from_bytes("x", b"\xef\xbb\xbf# caf\xe9\nb");
        assert_eq!(source.text(), "# caf\u{fffd}\nb");
        assert_eq!(source.foreign(), [5]);
    }
}
