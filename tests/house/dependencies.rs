//! The crates that the programs are built on: each is wanted, known, and under a licence that allows it.
//! What `cargo deny` says of the same without a network; see contrib/deny.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::rooms::room;
use super::tree::{Tree, root};

/// A crate as `cargo tree` shows it.
struct Listed {
    /// How far below the package.
    depth: usize,
    name: String,
    version: String,
    licence: String,
}

/// Every crate that the programs are built from, in the order of the tree, as often as it is named.
fn listed() -> Vec<Listed> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges=normal,build"])
        .args(["--prefix=depth", "--no-dedupe", "--format=|{p}|{l}"])
        .current_dir(root())
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    let listed = text.lines().map(|line| {
        let [depth, package, licence] = line.splitn(3, '|').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (name, rest) = package.split_once(" v").expect("name and version");
        Listed {
            depth: depth.parse().expect("a number"),
            name: name.to_owned(),
            version: rest.split(' ').next().expect("a version").to_owned(),
            licence: licence.to_owned(),
        }
    });
    listed.collect()
}

/// How many crates each dependency of ours brings.
fn brought(listed: &[Listed]) -> BTreeMap<&str, usize> {
    let ours = listed.split_first().expect("knockd itself").1;
    let each = ours.chunk_by(|_, next| next.depth > 1);
    let each = each.map(|tree| {
        let (first, below) = tree.split_first().expect("not empty");
        let below: BTreeSet<_> = below.iter().map(|c| (&c.name, &c.version)).collect();
        (first.name.as_str(), below.len())
    });
    each.collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The cells of each row of the tables below a heading of contrib/DEPENDENCIES.md.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = read("contrib/DEPENDENCIES.md");
    let (_, part) = page.split_once(&format!("## {heading}\n")).expect(heading);
    let part = part.split("\n## ").next().unwrap_or(part);
    let rows = part.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let row = row.trim_matches('|').split('|');
        row.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// The rooms that name each crate.
fn users() -> BTreeMap<String, BTreeSet<String>> {
    let mut users = BTreeMap::<_, BTreeSet<_>>::new();
    for (file, name) in Tree::of_the_program().crates() {
        users.entry(name.to_owned()).or_default().insert(room(file));
    }
    users
}

/// The names in a section of Cargo.toml.
fn named(section: &str) -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let (_, part) = manifest
        .split_once(&format!("\n[{section}]\n"))
        .expect(section);
    let lines = part.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = "));
    names
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with('#'))
        .collect()
}

/// The quoted words of a list in contrib/deny.toml.
fn allowed(list: &str, before: &str) -> BTreeSet<String> {
    let text = read("contrib/deny.toml");
    let (_, list) = text.split_once(&format!("\n{list} = [\n")).expect(list);
    let lines = list.lines().take_while(|line| *line != "]");
    let words = lines.filter_map(|line| line.split_once(before)?.1.split('"').next());
    words.map(str::to_owned).collect()
}

/// Whether a licence in SPDX's words is one of these. An older form has a slash for `OR`.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let licence = licence
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<_> = licence.split_whitespace().collect();
    let mut rest = words.as_slice();
    let found = either(&mut rest, allowed);
    found && rest.is_empty() && !words.is_empty()
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut found = both(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        found |= both(words, allowed);
    }
    found
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut found = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        found &= one(words, allowed);
    }
    found
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let found = either(words, allowed);
            *words = words.strip_prefix(&[")"]).unwrap_or(words);
            found
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.contains(*name)
        }
        [] => false,
    }
}

#[test]
fn a_licence_is_allowed_if_one_of_a_choice_is_and_all_of_a_sum_are() {
    let allowed = ["MIT", "ISC"].map(str::to_owned).into();
    for good in [
        "MIT",
        "X OR MIT",
        "X/MIT",
        "(MIT OR X) AND ISC",
        "X WITH E OR X OR MIT",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "X",
        "X OR Y",
        "MIT AND X",
        "(MIT OR X) AND Y",
        "MIT WITH E",
        "MIT MIT",
    ] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_crate_has_a_licence_that_deny_toml_allows() {
    let allowed = allowed("allow", "\"");
    assert!(allowed.contains("MIT"), "{allowed:?}");
    for Listed { name, licence, .. } in listed() {
        assert!(
            is_allowed(&licence, &allowed),
            "{name} is under {licence:?}"
        );
    }
}

#[test]
fn every_crate_has_one_version_but_those_that_deny_toml_names() {
    let named = allowed("skip", "crate = \"");
    assert!(named.iter().all(|name| name.contains('@')), "{named:?}");
    let listed = listed();
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    for Listed { name, version, .. } in &listed {
        versions.entry(name).or_default().insert(version);
    }
    let mut twice = BTreeSet::new();
    for (name, mut versions) in versions {
        versions.retain(|version| !named.contains(&format!("{name}@{version}")));
        if versions.len() > 1 {
            twice.insert((name, versions));
        }
    }
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn every_crate_comes_from_crates_io_as_it_was_locked() {
    let lock = read("Cargo.lock");
    let packages: Vec<_> = lock.split("\n[[package]]\n").skip(1).collect();
    assert!(packages.len() > 50);
    for package in packages {
        let ours = package.starts_with("name = \"knockd\"\n");
        let source =
            "\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"";
        assert!(ours || package.contains(source), "{package}");
    }
    let path = ["path = ", "git = ", "registry = "];
    for section in ["dependencies", "dev-dependencies"] {
        let manifest = read("Cargo.toml");
        let (_, part) = manifest
            .split_once(&format!("\n[{section}]\n"))
            .expect(section);
        let mut lines = part.lines().take_while(|line| !line.starts_with('['));
        assert!(lines.all(|line| !path.iter().any(|word| line.contains(word)) && !line.contains("\"*\"")));
    }
}

#[test]
fn dependencies_md_says_of_each_crate_why_it_is_there_what_it_brings_and_who_uses_it() {
    let listed = listed();
    let brought = brought(&listed);
    let users = users();
    let mut known = BTreeSet::new();
    for row in rows("In the programs") {
        let [name, brings, rooms, why, unsafety] = &row[..] else {
            panic!("{row:?}");
        };
        let used = users.get(&name.replace('-', "_"));
        let used = used.unwrap_or_else(|| panic!("{name} is not used"));
        let used: Vec<_> = used.iter().map(String::as_str).collect();
        assert_eq!(rooms, &used.join(", "), "the rooms of {name}");
        assert_eq!(
            brings.parse().ok(),
            brought.get(name.as_str()).copied(),
            "{name} brings"
        );
        assert!(why.ends_with('.') && !unsafety.is_empty(), "{row:?}");
        known.insert(name.clone());
    }
    assert_eq!(known, named("dependencies"));
    let tests = rows("In tests alone");
    assert!(
        tests
            .iter()
            .all(|row| row.len() == 2 && row[1].ends_with('.')),
        "{tests:?}"
    );
    let tests: BTreeSet<_> = tests.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(tests, named("dev-dependencies"));
}
