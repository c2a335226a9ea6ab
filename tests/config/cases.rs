//! Golden cases: a folder of `cases/` each, with `input.toml` or `input.conf` and, in
//! `expected.txt`, all that is said of it. `UPDATE=1` writes what is said now.

use std::fs;
use std::path::{Path, PathBuf};

use knockd::config::{Format, Host, parse};

fn judged(input: &Path) -> String {
    let text = fs::read_to_string(input).expect("the input");
    let name = input.file_name().expect("a name").to_string_lossy();
    let report = parse(&name, &text, Format::of(input, &text), &Host::default());
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
        let inputs = ["input.toml", "input.conf"].map(|name| folder.join(name));
        let input = inputs.iter().find(|path| path.exists()).expect("an input");
        let said = judged(input);
        let expected = folder.join("expected.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &said).expect("to write what is expected");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("== {}\n{said}", folder.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "not as in expected.txt (UPDATE=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}
