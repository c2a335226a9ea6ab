//! A ruleset kept in files, read at boot.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::Pattern;

/// The directory in which nft looks for files included by a relative path (nft(8), *-I*).
const INCLUDED: &str = "/etc";

/// A file of a saved ruleset that has our table in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTable {
    pub file: PathBuf,
    /// The first and last line of each statement about our table, both included, from 1.
    pub lines: Vec<(usize, usize)>,
}

impl fmt::Display for SavedTable {
    /// `/etc/nftables.conf, lines 3 to 41 and 50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(first, last): &(usize, usize)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        };
        let all: Vec<_> = self.lines.iter().map(one).collect();
        let word = match self.lines.as_slice() {
            [(first, last)] if first == last => "line",
            _ => "lines",
        };
        write!(f, "{}, {word} {}", self.file.display(), all.join(" and "))
    }
}

/// Returns the files of a saved ruleset that have the table of that name in them, and the lines: an
/// nftables.conf, and the files that it includes. nft reads all of them in one transaction, and nobody
/// but its owner may change an owned table. So, as long as the table is in a file, nothing of the
/// ruleset can be loaded beside a running daemon. A file that cannot be read counts as empty.
#[must_use]
pub fn saved_in(ruleset: &Path, table: &str) -> Vec<SavedTable> {
    let mut seen = BTreeSet::new();
    let mut rest = vec![ruleset.to_owned()];
    let mut found = Vec::new();
    while let Some(file) = rest.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let Ok(bytes) = std::fs::read(&file) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        rest.extend(text.lines().filter_map(included).flat_map(files));
        let lines = lines_of(&text, table);
        if !lines.is_empty() {
            found.push(SavedTable { file, lines });
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

/// Returns the path that a line includes, if it includes one.
fn included(line: &str) -> Option<PathBuf> {
    let rest = line.trim_start().strip_prefix("include")?.trim_start();
    let (path, _) = rest.strip_prefix('"')?.split_once('"')?;
    Some(Path::new(INCLUDED).join(path))
}

/// Returns the files that a path stands for: its last part may be a pattern.
fn files(path: PathBuf) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
    else {
        return Vec::new();
    };
    let pattern = Pattern::new(name);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name.to_str().is_some_and(|name| pattern.matches(name)))
        .map(|name| directory.join(name))
        .collect()
}

/// A statement of nft at the top level of a file, while it is read.
#[derive(Default)]
struct Statement {
    /// The words before its block, or all if it has none.
    words: Vec<String>,
    word: String,
    first: usize,
    depth: usize,
}

impl Statement {
    fn push(&mut self, c: char, line: usize) {
        if self.depth > 0 {
            return;
        }
        if self.words.is_empty() && self.word.is_empty() {
            self.first = line;
        }
        self.word.push(c);
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        self.words.extend(Some(word).filter(|w| !w.is_empty()));
    }

    /// Returns whether the statement makes, fills, empties or deletes the table or something in it.
    fn is_about(&self, table: &str) -> bool {
        let at = self.words.iter().position(|w| w == "inet");
        let named = at.and_then(|at| self.words.get(at + 1));
        at.is_some_and(|at| (1..=2).contains(&at)) && named.is_some_and(|name| name == table)
    }
}

/// Returns the lines of the statements about the table of that name.
fn lines_of(saved: &str, table: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut statement = Statement::default();
    let mut finish = |statement: &mut Statement, line: usize| {
        statement.end_word();
        let Statement { first, .. } = *statement;
        if statement.is_about(table) {
            match found.last_mut() {
                Some((_, last)) if first <= *last + 1 => *last = line,
                _ => found.push((first, line)),
            }
        }
        *statement = Statement::default();
    };
    for (line, text) in (1..).zip(saved.lines()) {
        let mut quoted = false;
        let mut goes_on = false;
        for c in text.chars() {
            goes_on = c == '\\';
            match c {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '#' => break,
                '{' => {
                    statement.end_word();
                    statement.depth += 1;
                }
                '}' => {
                    statement.depth = statement.depth.saturating_sub(1);
                    if statement.depth == 0 {
                        finish(&mut statement, line);
                    }
                }
                ';' if statement.depth == 0 => finish(&mut statement, line),
                c if c.is_whitespace() => {
                    if statement.depth == 0 {
                        statement.end_word();
                    }
                }
                '\\' => {}
                c => statement.push(c, line),
            }
        }
        if statement.depth == 0 && !goes_on {
            finish(&mut statement, line);
        }
    }
    // A block that is not closed: nft will not have it either.
    finish(&mut statement, saved.lines().count());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_in_what_is_included() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &[u8]| std::fs::write(at(name), text).expect("a file");
        let main = format!("flush ruleset\n include \"{}\"\n", at("*.nft").display());
        write("main.conf", main.as_bytes());
        write("a.nft", main.as_bytes());
        write("b.nft", b"# caf\xe9\ntable inet knockd {\n}\n");
        write("c.off", b"table inet other {\n}\n");
        let found = |table| saved_in(&at("main.conf"), table);
        let there = SavedTable {
            file: at("b.nft"),
            lines: vec![(2, 3)],
        };
        assert_eq!(
            there.to_string(),
            format!("{}, lines 2 to 3", at("b.nft").display())
        );
        assert_eq!(found("knockd"), [there]);
        assert_eq!(found("other"), []);
    }

    #[test]
    fn a_table_is_found_where_it_is_made() {
        let found = |text: &str| lines_of(text, "knockd");
        for there in [
            "table inet knockd {",
            "flush ruleset; table inet knockd{",
            "\tadd table inet knockd",
            "add rule inet knockd guard accept",
            "delete table inet knockd; flush ruleset",
            "table inet \\\nknockd { }",
        ] {
            assert!(!found(there).is_empty(), "{there}");
        }
        for not in [
            "# table inet knockd {",
            "table inet knockd2 {",
            "table ip knockd {",
            "table inet filter {\n chain inet { comment \"table inet knockd {\"\n }\n}",
            "include \"inet knockd\"",
        ] {
            assert!(found(not).is_empty(), "{not}");
        }
    }

    #[test]
    fn the_lines_to_take_out_are_those_of_the_table() {
        let saved = "#!/usr/sbin/nft -f\n\
                     flush ruleset\n\
                     table inet knockd { # progname knockd\n\
                     \tflags owner,persist\n\
                     \tset s {\n\
                     \t\ttype ipv4_addr\n\
                     \t\telements = { 192.0.2.7 comment \"a } b\" }\n\
                     \t}\n\
                     }\n\
                     table inet filter {\n\
                     \tchain input { type filter hook input priority 0; }\n\
                     }\n\
                     add element inet knockd s { 192.0.2.8 }\n";
        assert_eq!(lines_of(saved, "knockd"), [(3, 9), (13, 13)]);
        assert_eq!(lines_of(saved, "filter"), [(10, 12)]);
    }
}
