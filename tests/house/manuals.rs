//! The manual pages: mandoc finds nothing wrong, and they know every flag the programs
//! know, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use knockd::cli;

/// Where the pages lie.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

/// The source of a page.
pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).expect("a manual page")
}

#[test]
fn mandoc_finds_nothing_wrong() {
    needs!(Tool("mandoc"));
    for entry in std::fs::read_dir(directory()).expect("man/") {
        let path = entry.expect("an entry").path();
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "style"])
            .arg(&path)
            .output()
            .expect("mandoc (package mandoc)");
        let said = String::from_utf8_lossy(&output.stdout);
        // Pages that this one refers to need not be installed here.
        let faults: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// The flags that a page lists: `.It Fl d , Fl -delay Ar milliseconds` is `-d` and
/// `--delay`.
fn listed(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .flat_map(|item| {
            let mut words = item.split_whitespace();
            let mut flags = Vec::new();
            while let Some(word) = words.next() {
                if word == "Fl" {
                    flags.extend(words.next().map(|flag| format!("-{flag}")));
                }
            }
            flags
        })
        .collect()
}

/// Returns the flags that a program knows, those of its subcommands included. Hidden flags are
/// for the program itself.
fn known(command: &clap::Command) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
        flags.extend(argument.get_short().map(|c| format!("-{c}")));
        flags.extend(argument.get_long().map(|word| format!("--{word}")));
    }
    for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        flags.extend(known(subcommand));
    }
    flags
}

fn built(mut command: clap::Command) -> clap::Command {
    command.build();
    command
}

#[test]
fn knock_1_lists_every_flag_and_no_other() {
    let command = built(cli::knock::Args::command());
    assert_eq!(listed(&page("knock.1")), known(&command));
}

#[test]
fn knock_1_shows_every_flag_in_its_synopsis() {
    let page = page("knock.1");
    let synopsis: String = page
        .lines()
        .skip_while(|line| *line != ".Sh SYNOPSIS")
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh"))
        .filter_map(|line| line.strip_prefix(".Op Fl "))
        .map(|flags| flags.split_whitespace().next().unwrap_or_default())
        .collect();
    let mut shown: Vec<char> = synopsis.chars().collect();
    let command = built(cli::knock::Args::command());
    let mut known: Vec<char> = command
        .get_arguments()
        .filter_map(|a| a.get_short())
        .collect();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
}

#[cfg(feature = "daemon")]
#[test]
fn knockd_8_lists_every_flag_and_no_other() {
    let command = built(cli::knockd::command());
    assert_eq!(listed(&page("knockd.8")), known(&command));
}

/// The page lists a subcommand as `.It Cm open Ar door address`.
#[cfg(feature = "daemon")]
#[test]
fn knockd_8_lists_every_subcommand_and_no_other() {
    let page = page("knockd.8");
    let listed: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .filter_map(|item| item.split_whitespace().next())
        .collect();
    let command = cli::knockd::command();
    let known: BTreeSet<_> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    assert_eq!(listed, known);
    for name in known {
        let synopsis = page.split(".Sh DESCRIPTION").next().unwrap_or_default();
        let shown = format!(".Cm {name}");
        assert!(synopsis.lines().any(|line| line == shown), "{name}");
    }
}
