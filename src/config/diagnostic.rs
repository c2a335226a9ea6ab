//! Diagnostics: the faults of a configuration, each with its place.
//!
//! Lines of a configuration hold secrets, the sequences, and messages quote them. So each is
//! shown in one of several ways, by who reads it: see [`Audience`].

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use unicode_width::UnicodeWidthChar;

use super::audience::{Audience, is_harmless};
use super::text::{ConfigText, Span};

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but its owner hardly wants it so.
    Warning,
}

/// One fault of a configuration. Its `Display` is the text for a terminal, which has everything:
/// `file:line:column: message`, the line, a caret under the place, and a help where the message does
/// not say what to do. [`Diagnostic::shown_to`] returns less for other audiences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The name of the file, as the user gave it.
    pub file: Arc<str>,
    /// The line, from 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// The column, from 1, in characters; 0 if the file as a whole is meant.
    pub column: usize,
    /// The length of the place, in characters.
    pub length: usize,
    /// The fault, in words.
    pub message: String,
    /// The advice, if the message alone does not make clear what to do.
    pub help: Option<String>,
    /// The line, and the marks under it.
    excerpt: Option<[String; 2]>,
    /// True if the line may hold a secret.
    is_secret: bool,
    /// The message and the help for a log, if the others quote a secret.
    quiet: Option<Quiet>,
}

/// The message and the help for a log. They replace a message and a help that quote a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quiet {
    message: String,
    help: Option<String>,
}

/// A line longer than this is shown only around the place.
const SHOWN: usize = 160;

impl Diagnostic {
    /// Returns a diagnostic about the file as a whole.
    pub(super) fn whole(severity: Severity, file: &Arc<str>, message: String) -> Self {
        Self {
            severity,
            file: Arc::clone(file),
            line: 0,
            column: 0,
            length: 0,
            message,
            help: None,
            excerpt: None,
            is_secret: false,
            quiet: None,
        }
    }

    fn at(source: &ConfigText, fault: SpannedFault) -> Self {
        let place = source.place(fault.span.start);
        Self {
            severity: fault.severity,
            file: Arc::clone(source.name()),
            line: place.line,
            column: place.column,
            length: length(source, &fault.span),
            message: fault.message,
            help: fault.help,
            excerpt: Some(excerpt(source, &fault.span)),
            is_secret: !is_harmless(source, &fault.span),
            quiet: fault.quiet,
        }
    }

    /// Returns the text for an audience: the place, the message and the help. [`Audience`] says how much
    /// of a secret each may see.
    #[must_use]
    pub fn shown_to(&self, audience: Audience) -> String {
        let mut shown = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut shown, audience);
        shown
    }

    fn write(&self, f: &mut impl fmt::Write, audience: Audience) -> fmt::Result {
        let (message, help) = match (audience, &self.quiet) {
            (Audience::Log, Some(Quiet { message, help })) => (message, help),
            (Audience::Terminal | Audience::Pipe, _) | (Audience::Log, None) => {
                (&self.message, &self.help)
            }
        };
        // A line without a secret gets one by a message such as that a port of it is a step.
        let tells = audience == Audience::Log && self.quiet.is_some();
        let excerpt = match (audience, self.is_secret || tells) {
            (Audience::Terminal, _) | (_, false) => self.excerpt.as_ref(),
            (Audience::Pipe | Audience::Log, true) => None,
        };
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        match self.severity {
            Severity::Error => write!(f, " {message}")?,
            Severity::Warning => write!(f, " warning: {message}")?,
        }
        for line in excerpt.into_iter().flatten() {
            write!(f, "\n{line}")?;
        }
        if let Some(help) = help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Audience::Terminal)
    }
}

/// Returns the number of characters that `span` has in its first line.
fn length(source: &ConfigText, span: &Span) -> usize {
    let (begin, line) = source.line(source.line_index(span.start));
    let end = span.end.min(begin + line.len());
    let text = source.text().get(span.start..end);
    text.map_or(0, |text| text.chars().count())
}

/// Returns the line of `span`, and a line with `^~~~` to stand under it. Tabs stay tabs and a wide
/// character gets two columns, so that the marks stand in the right place on any terminal.
fn excerpt(source: &ConfigText, span: &Span) -> [String; 2] {
    let (begin, line) = source.line(source.line_index(span.start));
    let at = |offset: usize| {
        let byte = offset.saturating_sub(begin).min(line.len());
        line.char_indices().take_while(|(i, _)| *i < byte).count()
    };
    let (first, end) = (at(span.start), at(span.end.max(span.start)));
    // How many characters before the place are left out, so that the place is shown.
    let skipped = if line.chars().count() > SHOWN {
        first.saturating_sub(SHOWN / 2)
    } else {
        0
    };
    let mut shown = String::new();
    let mut marks = String::new();
    for (i, c) in line.chars().enumerate().skip(skipped).take(SHOWN) {
        // A file must not control the terminal on which its faults are shown.
        let c = if c.is_control() && c != '\t' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        };
        shown.push(c);
        let mark = match i {
            _ if i < first && c == '\t' => '\t',
            _ if i < first => ' ',
            _ if i == first => '^',
            _ if i < end => '~',
            _ => continue,
        };
        let columns = if mark == '\t' {
            1
        } else {
            c.width().unwrap_or(1)
        };
        match mark {
            '^' => {
                marks.push('^');
                // The rest of a wide character belongs to the mark.
                marks.extend((1..columns).map(|_| '~'));
            }
            mark => marks.extend((0..columns).map(|_| mark)),
        }
    }
    if first >= line.chars().count() {
        marks.push('^');
    }
    [shown, marks]
}

/// A fault before its place is worked out.
#[derive(Debug)]
struct SpannedFault {
    severity: Severity,
    span: Span,
    message: String,
    help: Option<String>,
    quiet: Option<Quiet>,
}

/// The faults that parsers and the check have found. After each fault they go on, so that all faults
/// are reported at once.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<SpannedFault>);

/// How many faults are shown; others are counted. A picture given as configuration has thousands.
const MOST: usize = 100;

impl Faults {
    /// Reports an error at `span`.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>) -> ReportedFault<'_> {
        self.note(Severity::Error, span, message.into())
    }

    /// Reports a warning at `span`.
    pub(super) fn warn(&mut self, span: &Span, message: impl Into<String>) -> ReportedFault<'_> {
        self.note(Severity::Warning, span, message.into())
    }

    fn note(&mut self, severity: Severity, span: &Span, message: String) -> ReportedFault<'_> {
        self.0.push(SpannedFault {
            severity,
            span: span.clone(),
            message,
            help: None,
            quiet: None,
        });
        ReportedFault(self.0.last_mut())
    }

    /// Returns whether there is an error among the faults.
    pub(super) fn any_error(&self) -> bool {
        self.0.iter().any(|f| f.severity == Severity::Error)
    }

    /// Takes over the faults of `others` on lines that have none yet. More faults on a broken line, or
    /// under a header that is not closed, mostly follow from the first.
    pub(super) fn add_elsewhere(&mut self, others: Self, source: &ConfigText) {
        let mut taken = HashSet::new();
        for fault in &self.0 {
            let index = source.line_index(fault.span.start);
            taken.insert(index);
            let is_header = |i: usize| source.line(i).1.trim_start().starts_with('[');
            if is_header(index) && !source.line(index).1.contains(']') {
                let under = index + 1..source.line_index(usize::MAX) + 1;
                taken.extend(under.take_while(|i| !is_header(*i)));
            }
        }
        let news = |f: &SpannedFault| !taken.contains(&source.line_index(f.span.start));
        self.0.extend(others.0.into_iter().filter(news));
    }

    /// Returns a diagnostic of each fault, in the order of the file and without duplicates.
    pub(super) fn into_diagnostics(mut self, source: &ConfigText) -> Vec<Diagnostic> {
        self.0.sort_by_key(|f| (f.span.start, f.severity));
        self.0
            .dedup_by(|b, a| a.span.start == b.span.start && a.message == b.message);
        let more = self.0.split_off(self.0.len().min(MOST));
        let all = self.0.into_iter().map(|f| Diagnostic::at(source, f));
        let mut all: Vec<_> = all.collect();
        if let Some(severity) = more.iter().map(|f| f.severity).min() {
            let message = format!("and {} more", more.len());
            all.push(Diagnostic::whole(severity, source.name(), message));
        }
        all
    }
}

/// A fault just reported, to which help may be added.
pub(super) struct ReportedFault<'a>(Option<&'a mut SpannedFault>);

impl ReportedFault<'_> {
    /// Adds advice.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        let help = Some(help.into());
        self.map(|fault| fault.help = help)
    }

    /// Adds advice, if there is any.
    pub(super) fn help_if(self, help: Option<String>) -> Self {
        self.map(|fault| fault.help = help)
    }

    /// Sets the message for a log. The message and the help so far quote a secret.
    pub(super) fn quiet(self, message: impl Into<String>) -> Self {
        let message = message.into();
        let help = None;
        self.map(|fault| fault.quiet = Some(Quiet { message, help }))
    }

    /// Sets the message and the help for a log.
    pub(super) fn quiet_help(self, message: impl Into<String>, help: impl Into<String>) -> Self {
        let (message, help) = (message.into(), Some(help.into()));
        self.map(|fault| fault.quiet = Some(Quiet { message, help }))
    }

    fn map(self, change: impl FnOnce(&mut SpannedFault)) -> Self {
        let Self(mut fault) = self;
        if let Some(fault) = fault.as_deref_mut() {
            change(fault);
        }
        Self(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, needle: &str) -> String {
        let source = ConfigText::new("f", text);
        let start = text.find(needle).expect("the needle");
        let mut faults = Faults::default();
        let _ = faults.error(&(start..start + needle.len()), "no");
        let all = faults.into_diagnostics(&source);
        all.first().expect("a diagnostic").to_string()
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        assert_eq!(
            shown("a = 1\nbb = 23\n", "23"),
            "f:2:6: no\nbb = 23\n     ^~"
        );
        assert_eq!(
            shown("\ta\tb = 2\r\n", "2"),
            "f:1:8: no\n\ta\tb = 2\n\t \t    ^"
        );
        assert_eq!(shown("日本 = é", "é"), "f:1:6: no\n日本 = é\n       ^");
        assert_eq!(shown("x = 日", "日"), "f:1:5: no\nx = 日\n    ^~");
    }

    #[test]
    fn an_end_of_line_has_a_caret_and_a_second_line_none() {
        let source = ConfigText::new("f", "a =\nb");
        let mut faults = Faults::default();
        faults.error(&(3..3), "no").help("yes");
        faults.warn(&(0..5), "both");
        let all: Vec<_> = faults.into_diagnostics(&source);
        let all: Vec<_> = all.iter().map(Diagnostic::to_string).collect();
        assert_eq!(
            all,
            [
                "f:1:1: warning: both\na =\n^~~",
                "f:1:4: no\na =\n   ^\nhelp: yes"
            ]
        );
    }

    #[test]
    fn a_file_does_not_steer_the_terminal() {
        assert!(!shown("\x1b[2J = 1", "1").contains('\x1b'));
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("{}#{}", "a".repeat(5000), "b".repeat(5000));
        let shown = shown(&text, "#");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.first(), Some(&"f:1:5001: no"));
        assert_eq!(lines.get(1).and_then(|l| l.find('#')), Some(80));
        assert_eq!(lines.get(2).and_then(|l| l.find('^')), Some(80));
    }

    #[test]
    fn thousands_are_counted() {
        let source = ConfigText::new("f", &"x".repeat(500));
        let mut faults = Faults::default();
        for at in 0..500 {
            faults.error(&(at..at + 1), "no");
        }
        let all = faults.into_diagnostics(&source);
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(
            all.last().map(Diagnostic::to_string),
            Some("f: and 400 more".into())
        );
    }
}
