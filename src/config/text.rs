//! A text with its name, and places in it.

use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A stretch of a [`ConfigText`]'s text, in bytes.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> Spanned<T> {
    pub(crate) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A configuration text, without its byte order mark.
#[derive(Debug, Clone)]
pub(crate) struct ConfigText {
    name: Arc<str>,
    /// Overwritten at the end: sequences are in it.
    text: Zeroizing<String>,
    /// The offsets at which lines begin.
    lines: Vec<usize>,
    /// The offsets of bytes that are not UTF-8; each is U+FFFD in the text.
    foreign: Vec<usize>,
    /// If the bytes are no text at all: the reason.
    no_text: Option<String>,
}

/// A position as people count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextPosition {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl ConfigText {
    /// Takes a text. Diagnostics call it `name`.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            no_text: no_text(text.as_bytes()),
            ..Self::assemble(name, text.to_owned(), Vec::new())
        }
    }

    /// Takes the bytes of a file. Bytes that are not UTF-8 are replaced and remembered: in a comment
    /// of an old file they do no harm.
    pub(crate) fn from_bytes(name: &str, bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut foreign = Vec::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                foreign.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Self {
            no_text: no_text(bytes),
            ..Self::assemble(name, text, foreign)
        }
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
            text: Zeroizing::new(text),
            lines,
            foreign,
            no_text: None,
        }
    }

    /// Returns why this is no text but an archive, a picture or the like; `None` if it is a text.
    pub(crate) fn no_text(&self) -> Option<String> {
        self.no_text.clone()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn foreign(&self) -> &[usize] {
        &self.foreign
    }

    /// Returns the index, from 0, of the line that `offset` lies in.
    pub(crate) fn line_index(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|begin| *begin <= offset)
            .saturating_sub(1)
    }

    /// Returns the offset of a line, and its text without the line end.
    pub(crate) fn line(&self, index: usize) -> (usize, &str) {
        let begin = self.lines.get(index).copied().unwrap_or(self.text.len());
        let rest = self.text.get(begin..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        (begin, line.strip_suffix('\r').unwrap_or(line))
    }

    /// Returns the offset of each line, and its text without the line end.
    pub(crate) fn each_line(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.lines.len()).map(|index| self.line(index))
    }

    /// Returns the position of `offset`, as people count.
    pub(crate) fn place(&self, offset: usize) -> TextPosition {
        let index = self.line_index(offset);
        let (begin, line) = self.line(index);
        let before = line.char_indices().take_while(|(i, _)| begin + i < offset);
        TextPosition {
            line: index + 1,
            column: before.count() + 1,
        }
    }
}

/// How many bytes of a file are looked at to find out whether it is a text.
const LOOKED_AT: usize = 8192;

/// Returns why these bytes are no text: they begin with a control character, or have a NUL in them as a
/// text in UTF-16 does, or more than an eighth of them are control characters or not UTF-8.
fn no_text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("this is UTF-16: save the file as UTF-8".to_owned());
    }
    let is_odd = |byte: &u8| {
        let blank = byte.is_ascii_whitespace() || matches!(byte, 0x08 | 0x0b | 0x1b);
        byte.is_ascii_control() && !blank
    };
    let told = |at: usize, byte: u8| {
        let line = bytes.iter().take(at).filter(|b| **b == b'\n').count() + 1;
        let place = match at {
            0 => "at the start".to_owned(),
            _ => format!("in line {line}"),
        };
        Some(format!("this is no text (byte {byte:#04x} {place})"))
    };
    match bytes.first() {
        Some(first) if is_odd(first) => return told(0, *first),
        Some(_) | None => {}
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return told(at, 0);
    }
    // The end may be in the middle of a character.
    let foreign = bytes.utf8_chunks().map(|chunk| chunk.invalid().len());
    let many = foreign.sum::<usize>() + bytes.iter().filter(|byte| is_odd(byte)).count();
    let stray = |byte: &u8| is_odd(byte) || !byte.is_ascii();
    match bytes.iter().position(stray) {
        Some(at) if many > 8 && many > bytes.len() / 8 => told(at, *bytes.get(at)?),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_known_by_its_bytes() {
        let said = |bytes: &[u8]| ConfigText::from_bytes("x", bytes).no_text();
        for text in [
            &b""[..],
            b"[a]\nsequence = 1\n",
            b"\xef\xbb\xbf[a]\n",
            b"# caf\xe9\n",
            "日本語日本語日本語日本語".as_bytes(),
            b"command = \x01\n",
        ] {
            assert_eq!(said(text), None, "{text:?}");
        }
        let start = "this is no text (byte 0x7f at the start)";
        assert_eq!(said(b"\x7fELF\x02\x01\x01\0\0").as_deref(), Some(start));
        assert_eq!(
            said(b"[a]\nb = \0\n").as_deref(),
            Some("this is no text (byte 0x00 in line 2)")
        );
        assert!(said(b"\xff\xfe[\0a\0]\0").is_some_and(|s| s.contains("UTF-16")));
        assert!(said(b"PK\x03\x04\x14\x02\x08\x01\x81\x92\x8c\x9d\xfa\xc3\xd1").is_some());
        let picture: Vec<u8> = (0..=255).rev().cycle().skip(118).take(4000).collect();
        assert!(said(&picture).is_some());
    }

    #[test]
    fn places_are_counted_in_characters_and_a_byte_order_mark_is_none() {
        let source = ConfigText::new("x", "\u{feff}a = é日x\r\nb\n");
        assert_eq!(source.text().find('x'), Some(9));
        assert_eq!(source.place(9), TextPosition { line: 1, column: 7 });
        assert_eq!(source.line(0), (0, "a = é日x"));
        assert_eq!(source.place(12), TextPosition { line: 2, column: 1 });
        assert_eq!(source.place(14), TextPosition { line: 3, column: 1 });
        assert_eq!(source.place(99), TextPosition { line: 3, column: 1 });
    }

    #[test]
    fn foreign_bytes_are_remembered() {
        let source = ConfigText::from_bytes("x", b"\xef\xbb\xbf# caf\xe9\nb");
        assert_eq!(source.text(), "# caf\u{fffd}\nb");
        assert_eq!(source.foreign(), [5]);
    }
}
