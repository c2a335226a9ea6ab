//! A file that is edited as a help says.

use std::path::Path;

use knockd::config::{Diagnostic, Format, Host, parse};

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
        }
    }

    pub(super) fn faults(&self) -> Vec<Diagnostic> {
        let format = Format::of(Path::new(&self.name), &self.text);
        parse(&self.name, &self.text, format, &Host::default()).diagnostics
    }

    pub(super) fn is_toml(&self) -> bool {
        self.name.ends_with(".toml")
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.text.split('\n').map(str::to_owned).collect()
    }

    pub(super) fn of_lines(&self, lines: &[String]) -> Self {
        Self::new(&self.name, lines.join("\n"))
    }

    /// The line before the place, the place and the rest.
    pub(super) fn parts(&self, at: &Diagnostic) -> [String; 3] {
        let line: Vec<char> = self.lines()[at.line - 1].chars().collect();
        let (from, to) = (at.column - 1, at.column - 1 + at.length);
        [&line[..from], &line[from..to], &line[to..]].map(|part| part.iter().collect())
    }

    /// Returns the file with `new` in the place.
    pub(super) fn put(&self, at: &Diagnostic, new: &str) -> Self {
        let [before, _, after] = self.parts(at);
        self.with_line(at.line - 1, &format!("{before}{new}{after}"))
    }

    /// Returns the file with a string in the place; TOML has it in quotes.
    pub(super) fn put_text(&self, at: &Diagnostic, new: &str) -> Self {
        match self.is_toml() {
            true => self.put(at, &format!("\"{new}\"")),
            false => self.put(at, new),
        }
    }

    pub(super) fn with_line(&self, index: usize, new: &str) -> Self {
        let mut lines = self.lines();
        new.clone_into(&mut lines[index]);
        self.of_lines(&lines)
    }

    pub(super) fn without_line(&self, index: usize) -> Self {
        let mut lines = self.lines();
        lines.remove(index);
        self.of_lines(&lines)
    }

    /// Returns the file without the key in the place, and the key with its value.
    pub(super) fn taken_out(&self, at: &Diagnostic) -> (Self, String) {
        let [before, place, after] = self.parts(at);
        let line = self.lines()[at.line - 1].clone();
        if !before.contains('{') {
            return (self.without_line(at.line - 1), line);
        }
        // It stands in an inline table.
        let end = after.find([',', '}']).expect("the end of the entry");
        let (value, rest) = after.split_at(end);
        let before = before.trim_end();
        let left = match before.strip_suffix(',') {
            Some(before) => format!("{before} {rest}"),
            None => format!("{before}{}", rest.trim_start_matches(',')),
        };
        (
            self.with_line(at.line - 1, &left),
            format!("{place}{}", value.trim_end()),
        )
    }

    /// Returns the file with new lines before the line `index`.
    pub(super) fn inserted(&self, index: usize, new: &str) -> Self {
        let mut lines = self.lines();
        lines.insert(index, new.to_owned());
        self.of_lines(&lines)
    }

    /// Returns the file with a line under a header, which is added if there is none.
    pub(super) fn under(&self, header: &str, new: &str) -> Self {
        let mut lines = self.lines();
        match lines.iter().position(|line| line.trim() == header) {
            Some(index) => lines.insert(index + 1, new.to_owned()),
            None => lines.extend([header.to_owned(), new.to_owned(), String::new()]),
        }
        self.of_lines(&lines)
    }

    /// Returns the lines of each section: its header, and the first line that is no longer its.
    pub(super) fn sections(&self) -> Vec<(usize, usize)> {
        let lines = self.lines();
        let headers = (0..lines.len()).filter(|i| lines[*i].trim_start().starts_with('['));
        let mut ends: Vec<usize> = headers.collect();
        ends.push(lines.len());
        ends.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

/// Returns the text between the first two marks.
pub(super) fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}

/// Returns the key of a line.
pub(super) fn key(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}
