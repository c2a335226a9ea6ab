//! The lines of a knockd.conf and the sections they stand in.

use crate::config::diagnostic::Faults;
use crate::config::text::{ConfigText, Span, Spanned};

/// How many bytes of a name 0.8 keeps. Anything that can stand in a log line is allowed.
const NAME_MAX: usize = 127;

/// One line of a section.
#[derive(Debug)]
pub(crate) enum ConfLine<'a> {
    /// An empty line.
    Blank,
    /// `# …`, the mark included.
    Comment(&'a str),
    /// `key` or `key = value`.
    Directive {
        key: Spanned<&'a str>,
        value: Option<Spanned<&'a str>>,
    },
}

/// `[name]` and what stands under it.
#[derive(Debug)]
pub(crate) struct ConfSection<'a> {
    /// True if the header has no faults. Its faults have been reported.
    pub(crate) sound: bool,
    /// The text between the brackets, with all blanks.
    pub(crate) name: Spanned<&'a str>,
    pub(crate) lines: Vec<ConfLine<'a>>,
}

/// A knockd.conf.
#[derive(Debug, Default)]
pub(crate) struct ConfFile<'a> {
    /// Comments and blank lines before the first section.
    pub(crate) preamble: Vec<ConfLine<'a>>,
    pub(crate) sections: Vec<ConfSection<'a>>,
}

impl<'a> ConfSection<'a> {
    /// Returns whether the section is `[options]`, in upper or lower case. There may be several.
    pub(crate) fn is_options(&self) -> bool {
        self.name.value.eq_ignore_ascii_case("options")
    }

    /// Returns the lines up to the last key, and the lines behind it.
    pub(crate) fn split(&self) -> (&[ConfLine<'a>], &[ConfLine<'a>]) {
        let key = |line: &ConfLine<'_>| matches!(line, ConfLine::Directive { .. });
        let end = self.lines.iter().rposition(key).map_or(0, |last| last + 1);
        self.lines.split_at(end)
    }

    /// Returns the section's keys and their values.
    pub(crate) fn directives(
        &self,
    ) -> impl Iterator<Item = (&Spanned<&'a str>, &Option<Spanned<&'a str>>)> {
        self.lines.iter().filter_map(|line| match line {
            ConfLine::Directive { key, value } => Some((key, value)),
            ConfLine::Blank | ConfLine::Comment(_) => None,
        })
    }
}

/// Returns whether a character is blank by isspace(3); U+00A0 in a command is not blank.
fn blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// Returns `text` without outer blanks; `begin` is the offset of `text`.
fn trimmed(text: &str, begin: usize) -> Spanned<&str> {
    let inner = text.trim_start_matches(blank);
    let start = begin + (text.len() - inner.len());
    let inner = inner.trim_end_matches(blank);
    Spanned::new(inner, start..start + inner.len())
}

/// Takes a file apart, and reports lines that a knockd.conf cannot have.
pub(crate) fn lines<'a>(source: &'a ConfigText, faults: &mut Faults) -> ConfFile<'a> {
    let mut file = ConfFile::default();
    for (begin, text) in source.each_line() {
        let Spanned { value: text, span } = trimmed(text, begin);
        let section = file.sections.last_mut();
        let is_comment = text.starts_with('#');
        if !is_comment && let Some(at) = foreign(source, &span) {
            faults
                .error(&at, "this is not UTF-8")
                .help("knock 0.8 would hand these bytes on as they are; save the file as UTF-8");
        }
        let line = if text.is_empty() {
            ConfLine::Blank
        } else if is_comment {
            ConfLine::Comment(text)
        } else if text.starts_with('[') {
            file.sections.push(header(text, &span, faults));
            continue;
        } else {
            if section.is_none() {
                faults
                    .error(&span, "this stands before the first section")
                    .help("begin with `[options]`, or with `[name]` for a door");
            }
            if text.ends_with('\\') {
                faults
                    .warn(
                        &(span.end - 1..span.end),
                        "the backslash does not join this line to the next",
                    )
                    .help("a directive is one line");
            }
            directive(text, span.start)
        };
        match section {
            Some(section) => section.lines.push(line),
            None => file.preamble.push(line),
        }
    }
    file
}

/// Returns the first byte in `span` that is not UTF-8.
fn foreign(source: &ConfigText, span: &Span) -> Option<Span> {
    let all = source.foreign();
    let next = all.get(all.partition_point(|at| *at < span.start))?;
    span.contains(next)
        .then(|| *next..*next + char::REPLACEMENT_CHARACTER.len_utf8())
}

/// Reads `[name]`: the line ends with the bracket; a bracket within the name is part of it. Lines below
/// a broken header belong to no other section.
fn header<'a>(text: &'a str, span: &Span, faults: &mut Faults) -> ConfSection<'a> {
    let inner = text.strip_prefix('[').unwrap_or(text);
    let name = inner.strip_suffix(']');
    let wrong = match name {
        None => Some("a section's header ends with `]`"),
        Some("") => Some("a section's name must not be empty"),
        Some(name) if name.chars().any(char::is_control) => {
            Some("a section's name must not contain control characters")
        }
        Some(name) if name.len() > NAME_MAX => Some("a section's name has at most 127 bytes"),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        let noted = faults.error(span, wrong);
        // Else the header would still not be closed.
        let before = text
            .split_once('#')
            .map(|(before, _)| before.trim_end_matches(blank));
        if name.is_none() && before.is_some_and(|before| before.ends_with(']')) {
            noted.help("a comment has a line of its own");
        }
    }
    let name = name.unwrap_or(inner);
    let begin = span.start + 1;
    ConfSection {
        sound: wrong.is_none(),
        name: Spanned::new(name, begin..begin + name.len()),
        lines: Vec::new(),
    }
}

/// Reads `key`, or `key = value`: the first `=` divides.
fn directive(text: &str, begin: usize) -> ConfLine<'_> {
    match text.split_once('=') {
        None => ConfLine::Directive {
            key: trimmed(text, begin),
            value: None,
        },
        Some((key, value)) => ConfLine::Directive {
            value: Some(trimmed(value, begin + key.len() + 1)),
            key: trimmed(key, begin),
        },
    }
}
