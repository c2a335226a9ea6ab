//! Golden cases: a folder of `cases/` each, with `input.toml` or `input.conf` and, in
//! `expected.txt`, all that is said of it; for a knockd.conf also what it is converted to, in
//! `converted.toml` and `native.toml`. `UPDATE=1` writes what is said now.

use std::fs;
use std::path::{Path, PathBuf};

use knockd::config::{Format, Host, parse};
use knockd::tools::convert::convert;

fn judged(name: &str, text: &str) -> String {
    let format = Format::of(Path::new(name), text);
    let report = parse(name, text, format, &Host::default());
    let mut said = String::new();
    for diagnostic in &report.diagnostics {
        said.push_str(&format!("{diagnostic}\n"));
    }
    match report.config {
        Some(config) => said.push_str(&format!("{config:#?}\n")),
        None => said.push_str("refused\n"),
    }
    said
}

/// The files that the folder has, or should have: names and contents.
fn outcome(folder: &Path) -> Vec<(&'static str, String)> {
    let read = |name| fs::read_to_string(folder.join(name)).ok();
    if let Some(text) = read("input.toml") {
        return vec![("expected.txt", judged("input.toml", &text))];
    }
    let text = read("input.conf").expect("an input");
    let mut all = vec![("expected.txt", judged("input.conf", &text))];
    for (name, native) in [("converted.toml", false), ("native.toml", true)] {
        if let Ok(made) = convert("input.conf", &text, native) {
            all.push((name, made.toml));
        }
    }
    all
}

#[test]
fn each_case_is_judged_as_written() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    let mut folders: Vec<PathBuf> = fs::read_dir(&cases)
        .expect("the cases")
        .map(|entry| entry.expect("a case").path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut wrong = Vec::new();
    for folder in folders {
        for (name, said) in outcome(&folder) {
            let path = folder.join(name);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &said).expect("to write what is expected");
            } else if fs::read_to_string(&path).unwrap_or_default() != said {
                wrong.push(format!("== {}\n{said}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not as it is now (UPDATE=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}
