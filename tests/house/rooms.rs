//! The one rule between rooms: a room imports `model`, `netlink` and itself; only `daemon`, `tools` and
//! `cli` see more than one, and only `cli` sees `tools`. And what else contrib/ARCHITECTURE.md
//! promises of the source tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tree::{Tree, has_unsafe, root, sources};

/// Which room alone may name a crate.
const TENANTS: [(&str, &str); 5] = [
    ("pcap", "capture"),
    ("etherparse", "decode"),
    ("toml", "config"),
    ("rustables", "firewall"),
    ("nftnl", "firewall"),
];

/// The rooms that every room may import.
const GROUND: [&str; 2] = ["model", "netlink"];

/// What lies at the top, besides files whose name begins with a dot. Documents are in contrib/.
const TOP: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "contrib",
    "examples",
    "man",
    "src",
    "tests",
];

/// The room a file of src/ belongs to: `matcher` for matcher/rules.rs, `lib` for lib.rs.
pub(crate) fn room(file: &Path) -> String {
    let first = file.iter().next().expect("a name");
    Path::new(first).with_extension("").display().to_string()
}

/// Whether a room may see another.
fn sees(room: &str, other: &str) -> bool {
    match room {
        // What is asked of each reader by fuzzing is no part of the program.
        "cli" | "bin" | "lib" | "fuzz" => true,
        "daemon" => other != "tools",
        "tools" => ["config", "firewall"].contains(&other),
        _ => false,
    }
}

#[test]
fn a_room_imports_the_ground_floor_and_itself() {
    let needs = Tree::of_the_program().needs();
    assert!(needs.len() > 500, "the imports are not found");
    let faults: BTreeSet<_> = needs
        .iter()
        .filter(|need| {
            let (from, to) = (room(&need.from), room(&need.to));
            to != from && !GROUND.contains(&to.as_str()) && !sees(&from, &to)
        })
        .map(|need| format!("{} imports {}", need.from.display(), need.to.display()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn model_knows_the_standard_library_alone() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let tree = Tree::of_the_program();
    for (file, name) in tree.crates() {
        let package = name.replace('_', "-");
        let depends = manifest.contains(&format!("\n{package} = ")) && name != "thiserror";
        assert!(
            room(file) != "model" || !depends,
            "{} uses {name}",
            file.display()
        );
    }
}

#[test]
fn a_crate_stays_in_its_room() {
    let tree = Tree::of_the_program();
    let crates = tree.crates();
    for (tenant, home) in TENANTS {
        let users = crates.iter().filter(|(_, name)| *name == tenant);
        let homes: BTreeSet<_> = users.map(|(file, _)| room(file)).collect();
        assert!(homes.iter().all(|room| room == home), "{tenant}: {homes:?}");
    }
    assert!(
        crates.iter().any(|(_, name)| *name == "pcap"),
        "no crate is found"
    );
}

#[test]
fn unsafe_stands_in_four_files() {
    let src = root().join("src");
    let mut files = BTreeMap::<_, Vec<_>>::new();
    for file in sources(&src) {
        let code = std::fs::read_to_string(&file).expect("a readable file");
        if has_unsafe(code.parse().expect("Rust")) {
            let place = [
                "firewall/netlink",
                "daemon",
                "sandbox/process.rs",
                "sandbox/refused.rs",
            ]
            .into_iter()
            .find(|place| file.starts_with(src.join(place)));
            let place = place.unwrap_or_else(|| panic!("unsafe in {}", file.display()));
            files.entry(place).or_default().push(file);
        }
    }
    assert!(!files.is_empty(), "it is not found");
    assert!(files.values().all(|files| files.len() == 1), "{files:#?}");
}

#[test]
fn the_top_level_is_what_it_should_be() {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).expect(".gitignore");
    for entry in std::fs::read_dir(root()).expect("the root") {
        let name = entry.expect("an entry").file_name().into_string();
        let name = name.expect("a plain name");
        let known = TOP.contains(&name.as_str())
            || name.starts_with('.')
            || ignored.lines().any(|line| line == format!("/{name}"));
        assert!(
            known,
            "{name} does not belong at the top: documents go to contrib/"
        );
    }
}
