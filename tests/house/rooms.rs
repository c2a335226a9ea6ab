//! The one rule between rooms: a room imports `model` and itself; only `daemon`, `tools` and
//! `cli` see more than one, and only `cli` sees `tools`. And what else DESIGN.md promises of the source tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Which room alone may name a crate.
const TENANTS: [(&str, &str); 8] = [
    ("pcap", "capture"),
    ("netlink_sys", "capture"),
    ("netlink_packet_core", "capture"),
    ("etherparse", "decode"),
    ("toml", "config"),
    ("rustables", "firewall"),
    ("nftnl", "firewall"),
    ("nftnl_sys", "firewall"),
];

/// What may lie at the top, besides files whose name begins with a dot.
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `directory`.
pub(crate) fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("a readable tree").path()) {
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The room a file of src/ belongs to: `matcher` for src/matcher/table.rs and
/// src/matcher.rs, `bin` and `lib` for those.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("below src");
    let first = inside.iter().next().expect("a name");
    Path::new(first).with_extension("").display().to_string()
}

/// What a file of source says, as far as the rules ask.
#[derive(Default, Debug, PartialEq)]
struct Mentions {
    /// Names behind `crate::`.
    inside: BTreeSet<String>,
    /// Names behind a chain of `super::`: modules of the room, or a way out of it.
    above: BTreeSet<String>,
    /// Names that begin a path: other crates, or modules in scope.
    outside: BTreeSet<String>,
    /// Whether the word `unsafe` is used.
    is_unsafe: bool,
}

impl Mentions {
    fn of(source: &str) -> Self {
        let mut mentions = Self::default();
        let tokens = TokenStream::from_str(source).expect("Rust");
        mentions.read(tokens);
        mentions
    }

    fn read(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut i = 0;
        while let Some(token) = tokens.get(i) {
            match token {
                TokenTree::Group(group) => self.read(group.stream()),
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    self.is_unsafe |= word == "unsafe";
                    if is_path_separator(&tokens, i + 1) && !follows_separator(&tokens, i) {
                        let names = match word.as_str() {
                            "crate" => &mut self.inside,
                            "super" => &mut self.above,
                            _ => &mut self.outside,
                        };
                        if word == "crate" || word == "super" {
                            i += 3;
                            while is_word(&tokens, i, "super") {
                                i += 3;
                            }
                            names.extend(first_names(tokens.get(i)));
                        } else {
                            names.insert(word);
                        }
                    } else if i > 0 && is_word(&tokens, i - 1, "use") {
                        self.outside.insert(word);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            i += 1;
        }
    }
}

fn is_word(tokens: &[TokenTree], i: usize, word: &str) -> bool {
    matches!(tokens.get(i), Some(TokenTree::Ident(ident)) if *ident == word)
}

fn is_path_separator(tokens: &[TokenTree], i: usize) -> bool {
    let colon = |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(i) && colon(i + 1)
}

fn follows_separator(tokens: &[TokenTree], i: usize) -> bool {
    i >= 2 && is_path_separator(tokens, i - 2)
}

/// What a path goes on with: one name, or those that begin the branches of `{…}`.
fn first_names(next: Option<&TokenTree>) -> Vec<String> {
    match next {
        Some(TokenTree::Ident(name)) => vec![name.to_string()],
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let tokens: Vec<_> = group.stream().into_iter().collect();
            tokens
                .split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ','))
                .flat_map(|branch| first_names(branch.first()))
                .collect()
        }
        Some(TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) | None => vec![],
    }
}

fn each_source() -> impl Iterator<Item = (PathBuf, String, Mentions)> {
    sources(&root().join("src")).into_iter().map(|file| {
        let source = std::fs::read_to_string(&file).expect("a readable file");
        let (room, mentions) = (room(&file), Mentions::of(&source));
        (file, room, mentions)
    })
}

#[test]
fn a_room_imports_model_and_itself() {
    let rooms: BTreeSet<String> = each_source().map(|(_, room, _)| room).collect();
    let mut faults = Vec::new();
    for (file, room, mentions) in each_source() {
        let sees = |other: &str| match room.as_str() {
            "cli" | "bin" | "lib" => true,
            "daemon" => other != "tools",
            "tools" => ["config", "firewall"].contains(&other),
            _ => false,
        };
        // A module of the room's own may bear the name of another room: model::config.
        let own = |name: &String| file.with_file_name(format!("{name}.rs")).exists();
        let above = mentions.above.iter().filter(|name| !own(name));
        for other in mentions.inside.iter().chain(above) {
            let allowed = sees(other) || *other == room || other == "model";
            if rooms.contains(other) && !allowed {
                faults.push(format!("{} imports crate::{other}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn model_knows_the_standard_library_alone() {
    let allowed = ["std", "core", "thiserror", "Self"];
    for (file, _, mentions) in each_source().filter(|(_, room, _)| room == "model") {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
        for name in &mentions.outside {
            let package = name.replace('_', "-");
            let depends = manifest.contains(&format!("\n{package} = "));
            assert!(
                !depends || allowed.contains(&name.as_str()),
                "{} uses {name}",
                file.display()
            );
        }
    }
}

#[test]
fn a_crate_stays_in_its_room() {
    let mut faults = Vec::new();
    for (file, room, mentions) in each_source() {
        for (tenant, home) in TENANTS {
            if room != home && mentions.outside.contains(tenant) {
                faults.push(format!("{} uses {tenant}, of {home}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_stands_in_one_file_of_netlink_and_one_of_the_daemon() {
    let mut files: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for (file, _, mentions) in each_source() {
        if mentions.is_unsafe {
            let place = ["firewall/netlink", "daemon"]
                .into_iter()
                .find(|place| file.starts_with(root().join("src").join(place)));
            let place = place.unwrap_or_else(|| panic!("unsafe in {}", file.display()));
            files.entry(place).or_default().push(file);
        }
    }
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
        assert!(known, "{name} does not belong at the top");
    }
}

#[test]
fn the_reader_of_imports_sees_what_it_should() {
    let mentions = Mentions::of(
        "use crate::{a, b::{c, d}}; use super::super::e::f; use pcap; fn x() { crate::g::h(); \
         mnl::i(); j.k(); l::m::toml::n() } // crate::o\n /** crate::p */ const Q: &str = \"unsafe crate::q\";",
    );
    let names = |list: &[&str]| {
        list.iter()
            .map(|n| (*n).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(mentions.inside, names(&["a", "b", "g"]));
    assert_eq!(mentions.above, names(&["e"]));
    assert_eq!(mentions.outside, names(&["pcap", "mnl", "l"]));
    assert!(!mentions.is_unsafe);
    assert!(Mentions::of("fn a() { b! { unsafe { c } } }").is_unsafe);
}
