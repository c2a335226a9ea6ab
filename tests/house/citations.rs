//! What comments and pages point to is there: rules of matching, documents and their sections,
//! manuals, files, tests.

use std::path::{Path, PathBuf};

use regex_lite::{Captures, Regex};

use super::tree::{root, sources};

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The comments of a file of Rust. Lines that follow one another are one text.
fn comments(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        match line.trim_start().split_once("//") {
            Some((_, comment)) => {
                text.push_str(comment.trim_start_matches(['/', '!']));
                text.push(' ');
            }
            None => text.push('\n'),
        }
    }
    text
}

/// The pages for people: README.md and what lies in contrib/.
fn pages() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("contrib")).expect("contrib/");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<_> = files
        .filter(|f| f.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.push(root().join("README.md"));
    assert!(pages.len() > 6, "the pages are not found");
    pages
}

/// The text with one blank where it has several: a citation may go over the end of a line, and the
/// next line be indented.
fn folded(text: &str) -> String {
    pattern(" {2,}").replace_all(text, " ").into_owned()
}

/// All that cites: where it stands, and its text with every line end a blank.
fn citing() -> Vec<(PathBuf, String)> {
    let rust = ["src", "tests"]
        .map(|folder| sources(&root().join(folder)))
        .concat();
    let comments = rust.into_iter().map(|file| {
        let text = folded(&comments(&read(&file)));
        (file, text)
    });
    let pages = pages().into_iter().map(|file| {
        let text = folded(&read(&file).replace('\n', " "));
        (file, text)
    });
    comments.chain(pages).collect()
}

/// What is wrong with the citations that `pattern` finds, by `fault`.
fn faults(pattern: &str, fault: impl Fn(&Path, &Captures<'_>) -> Option<String>) -> Vec<String> {
    let pattern = self::pattern(pattern);
    let mut seen = 0;
    let mut faults = Vec::new();
    for (file, text) in citing() {
        for found in pattern.captures_iter(&text) {
            seen += 1;
            let fault = fault(&file, &found);
            faults.extend(fault.map(|fault| format!("{}: {fault}", file.display())));
        }
    }
    assert!(seen > 2, "nothing cites");
    faults
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The page of that name, as `file` sees it.
fn document(file: &Path, name: &str) -> Option<PathBuf> {
    let beside = file.parent().map(|folder| folder.join(name));
    let at = [root().join(name), root().join("contrib").join(name)];
    beside.into_iter().chain(at).find(|page| page.is_file())
}

#[test]
fn every_rule_of_matching_that_is_cited_exists() {
    let page = read(&root().join("contrib/ARCHITECTURE.md"));
    let matching = page
        .split("\n## ")
        .find(|part| part.starts_with("Matching\n"));
    let listed = pattern(r"(?m)^(\d+)\. ");
    let listed: Vec<_> = listed
        .captures_iter(matching.expect("a section on matching"))
        .map(|rule| rule[1].to_owned())
        .collect();
    assert_eq!(listed, ["0", "1", "2", "3", "4", "5", "6"]);
    none(faults(
        r"\b[Rr]ules? (\d+)(?: (?:to|and|or) (\d+))?",
        |_, found| {
            let mut cited = found.iter().skip(1).flatten();
            let unknown = cited.find(|rule| !listed.iter().any(|known| known == rule.as_str()));
            unknown.map(|rule| format!("there is no rule {}", rule.as_str()))
        },
    ));
}

#[test]
fn every_document_and_section_that_is_cited_exists() {
    none(faults(
        r"([\w./-]*\w\.md)\b`?(?:\]\([^)]*\))?(?:, \*([^*]+)\*)?",
        |file, found| {
            let name = &found[1];
            let Some(page) = document(file, name) else {
                return Some(format!("there is no {name}"));
            };
            let section = found.get(2)?.as_str();
            let headings = read(&page);
            let mut headings = headings.lines().filter(|line| line.starts_with('#'));
            let is_there = headings.any(|line| line.trim_start_matches('#').trim() == section);
            (!is_there).then(|| format!("{name} has no section {section}"))
        },
    ));
}

#[test]
fn every_manual_and_section_that_is_cited_exists() {
    none(faults(
        r"\b(knock|knockd|knockd\.conf|knockd\.toml)\((\d)\)(?:\]\([^)]*\))?(?:, (?:\*([^*]+)\*|([A-Z][A-Z ]+[A-Z])))?",
        |_, found| {
            let page = format!("{}.{}", &found[1], &found[2]);
            // That of knock 0.8.
            if page == "knockd.1" {
                return None;
            }
            let Ok(text) = std::fs::read_to_string(root().join("man").join(&page)) else {
                return Some(format!("there is no manual {page}"));
            };
            let section = found.get(3).or(found.get(4))?.as_str();
            let heading = [format!(".Sh {section}"), format!(".Ss {section}")];
            let is_there = text.lines().any(|line| heading.iter().any(|h| h == line));
            (!is_there).then(|| format!("{page} has no section {section}"))
        },
    ));
}

#[test]
fn every_file_that_is_cited_exists() {
    let at_root = r"(?:^|[\s`(])((?:src|tests|contrib|man|examples)/[\w./-]*)";
    none(faults(at_root, |_, found| {
        let path = found[1].trim_end_matches('.');
        (!root().join(path).exists()).then(|| format!("there is no {path}"))
    }));
}

/// The pages name files as they lie in src/, too: `matcher/rules.rs`.
#[test]
fn every_file_of_src_that_a_page_names_exists() {
    let src = root().join("src");
    let quoted = pattern(r"`([\w./-]+)`");
    let mut seen = 0;
    let mut faults = Vec::new();
    for page in pages() {
        for found in quoted.captures_iter(&read(&page)) {
            let path = &found[1];
            let first = path.split('/').next().unwrap_or_default();
            let is_in_a_room = path.contains('/') && !first.is_empty() && src.join(first).is_dir();
            if is_in_a_room || (path.ends_with(".rs") && !path.starts_with("tests/")) {
                seen += 1;
                if !src.join(path).exists() && !root().join(path).exists() {
                    faults.push(format!("{}: there is no {path}", page.display()));
                }
            }
        }
    }
    assert!(seen > 20, "no file is named");
    none(faults);
}

/// The rows of tables end with tests: first the file, then the names of functions in it. A folder
/// or a command may stand there, too.
#[test]
fn every_test_that_a_page_names_exists() {
    let word = pattern(r"`([^`]+)`");
    let mut named = 0;
    for page in ["contrib/COMPATIBILITY.md", "contrib/SECURITY.md"] {
        let text = read(&root().join(page));
        for row in text.lines().filter(|line| line.starts_with("| ")) {
            let last = row.trim().trim_matches('|').rsplit('|').next();
            let mut source = String::new();
            for found in word.captures_iter(last.unwrap_or_default()) {
                let word = &found[1];
                if word.ends_with(".rs") {
                    source = read(&root().join(word));
                } else if !word.contains(['/', ' ']) {
                    let function = format!("fn {word}(");
                    assert!(source.contains(&function), "there is no test {word}: {row}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 20, "the tests are not found");
}

#[test]
fn a_citation_is_read_across_lines() {
    let text =
        "x();\n    /// See rule\n    /// 9 and knockd(8),\n    ///   *DIAGNOSTICS*.\nfn f() {}\n";
    let cited = "See rule 9 and knockd(8), *DIAGNOSTICS*.";
    assert_eq!(folded(&comments(text)).trim(), cited);
}
