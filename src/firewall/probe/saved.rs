//! A ruleset kept in files, read at boot.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::model::Pattern;

/// Where nft looks for what is included by a relative path (nft(8), *-I*).
const INCLUDED: &str = "/etc";

/// Which file of a saved ruleset, an nftables.conf and what it includes, has the table of
/// that name in it: an old copy of ours would then be put into the kernel at boot. What is
/// not there, or not ours to read, has nothing in it.
#[must_use]
pub fn saved_in(ruleset: &Path, table: &str) -> Option<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut rest = vec![ruleset.to_owned()];
    while let Some(file) = rest.pop() {
        let Ok(bytes) = std::fs::read(&file) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        if names_table(&text, table) {
            return Some(file);
        }
        if seen.insert(file) {
            let new = text.lines().filter_map(included).flat_map(files);
            rest.extend(new.filter(|f| !seen.contains(f)));
        }
    }
    None
}

/// What a line includes.
fn included(line: &str) -> Option<PathBuf> {
    let rest = line.trim_start().strip_prefix("include")?.trim_start();
    let (path, _) = rest.strip_prefix('"')?.split_once('"')?;
    Some(Path::new(INCLUDED).join(path))
}

/// The files that a path means; its last part may be a pattern.
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

fn names_table(saved: &str, table: &str) -> bool {
    let code = saved
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut statements = code.flat_map(|code| code.split(';'));
    statements.any(|statement| {
        let words: Vec<_> = statement
            .split(|c: char| c.is_whitespace() || "{}".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        // `flush`, `delete` and `destroy` of it put nothing there.
        let makes = !["flush", "delete", "destroy"].contains(words.first().unwrap_or(&""));
        makes && words.windows(3).any(|w| w == ["table", "inet", table])
    })
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
        assert_eq!(found("knockd"), Some(at("b.nft")));
        assert_eq!(found("other"), None);
    }

    #[test]
    fn a_table_is_found_where_it_is_made() {
        for there in [
            "table inet knockd {",
            "flush ruleset; table inet knockd{",
            "\tadd table inet knockd",
        ] {
            assert!(names_table(there, "knockd"), "{there}");
        }
        for not in [
            "# table inet knockd {",
            "table inet knockd2 {",
            "table ip knockd {",
            "delete table inet knockd; flush ruleset",
        ] {
            assert!(!names_table(not, "knockd"), "{not}");
        }
    }
}
