//! knockd(8) explains every line that the daemon writes to the log. The lines are taken
//! from the source: the texts in `tracing::info!`, `warn!` and `error!` and, in the files
//! that make only lines, in `format!` or `write!`.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

use super::manuals::directory;
use super::tree::sources;

/// Files whose `format!` makes lines.
const WORDS: [&str; 1] = ["log/log_lines.rs"];

/// Adds the texts of the macros in `tokens` to `found`, at any depth.
fn texts(tokens: TokenStream, macros: &[&str], found: &mut Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (i, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let before = |n: usize| i.checked_sub(n).and_then(|i| tokens.get(i));
        let name = before(2).map(ToString::to_string).unwrap_or_default();
        let is_macro = before(1).is_some_and(|t| t.to_string() == "!");
        if is_macro && macros.contains(&name.as_str()) {
            // `write!` has the destination and a comma before the text.
            let skipped = if name == "write" { 2 } else { 0 };
            let first = group.stream().into_iter().nth(skipped);
            found.extend(first.and_then(|t| literal(&t.to_string())));
        }
        texts(group.stream(), macros, found);
    }
}

/// Returns the text between the quotes. A backslash at the end of a line joins it to the next.
fn literal(token: &str) -> Option<String> {
    let text = token.strip_prefix('"')?.strip_suffix('"')?;
    let joined: Vec<_> = text
        .split("\\\n")
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { part.trim_start() })
        .collect();
    Some(joined.concat())
}

/// Returns the fixed parts of a format string, in order, with blanks folded.
fn fixed(format: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in format.chars() {
        match c {
            '{' if depth == 0 => {
                parts.push(String::new());
                depth = 1;
            }
            '}' if depth == 1 => depth = 0,
            _ if depth == 1 => {}
            other => parts.last_mut().expect("one at least").push(other),
        }
    }
    let fold = |part: &String| part.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().map(fold).filter(|p| !p.is_empty()).collect()
}

/// Whether `line` has all parts, one after the other.
fn has(line: &str, parts: &[String]) -> bool {
    let mut rest = line;
    parts
        .iter()
        .all(|part| match rest.split_once(part.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
}

/// The lines of knockd(8) as a reader sees them, none of them folded.
fn manual() -> Vec<String> {
    let output = Command::new("mandoc")
        .args(["-T", "utf8", "-O", "width=1000"])
        .arg(directory().join("knockd.8"))
        .output()
        .expect("mandoc (package mandoc)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(struck_once).collect()
}

/// mandoc prints bold as `x\bx`, underlined as `_\bx`.
fn struck_once(line: &str) -> String {
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '\u{8}' => drop(out.pop()),
            other => out.push(other),
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn knockd_8_explains_every_line_of_the_log() {
    needs!(Tool("mandoc"));
    let manual = manual();
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon");
    let mut said = Vec::new();
    for file in sources(&daemon) {
        let source = std::fs::read_to_string(&file).expect("source");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let tokens = TokenStream::from_str(source).expect("Rust");
        let mut macros = vec!["info", "warn", "error"];
        if WORDS.iter().any(|name| file.ends_with(name)) {
            macros.push("format");
        }
        texts(tokens, &macros, &mut said);
    }
    let notices = daemon.with_file_name("firewall").join("notice.rs");
    let source = std::fs::read_to_string(notices).expect("source");
    let tokens = TokenStream::from_str(&source).expect("Rust");
    texts(tokens, &["write"], &mut said);
    // Written as macros, so that they are read in the same way.
    let errors = daemon.with_file_name("firewall").join("error.rs");
    let source = std::fs::read_to_string(errors).expect("source");
    let tokens = TokenStream::from_str(&source.replace("#[error(", "#[error!(")).expect("Rust");
    texts(tokens, &["error"], &mut said);
    assert!(said.len() > 20, "the lines are not found: {said:?}");
    let unexplained: Vec<_> = said
        .iter()
        .filter(|text| {
            let parts = fixed(text);
            let says = parts.iter().any(|p| p.contains(char::is_alphabetic));
            says && !manual.iter().any(|line| has(line, &parts))
        })
        .collect();
    assert!(
        unexplained.is_empty(),
        "knockd(8), DIAGNOSTICS, lacks: {unexplained:#?}"
    );
}

#[test]
fn the_lines_are_read_as_they_are_written() {
    let source = r#"
        fn f() {
            tracing::info!("{who}: {door}: Stage {stage}");
            if x { tracing::warn!(target: "t", "not this"); tracing::error!("a \
                b {}", c.to_string()); }
            tracing::debug!("not this");
        }
    "#;
    let mut found = Vec::new();
    let tokens = TokenStream::from_str(source).expect("Rust");
    texts(tokens, &["info", "warn", "error"], &mut found);
    assert_eq!(found, ["{who}: {door}: Stage {stage}", "a b {}"]);
    assert_eq!(fixed(&found[0]), [":", ": Stage"]);
    assert!(has("IP: door: Stage N", &fixed(&found[0])));
    assert!(!has("IP: door: OPEN SESAME", &fixed(&found[0])));
    assert_eq!(struck_once("  _\u{8}Ix\u{8}x  a"), "Ix a");
}
