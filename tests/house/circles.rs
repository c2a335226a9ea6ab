//! No file of src/ needs, by whatever way, a file that needs it in turn: each can be read
//! without those that are built on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tree::{Need, Tree, sample};

/// The files that `from` needs, and those that they need.
fn reached<'a>(needs: &'a BTreeSet<Need>, from: &Path) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for need in needs.iter().filter(|need| need.from == file) {
            if reached.insert(need.to.as_path()) {
                open.push(&need.to);
            }
        }
    }
    reached
}

/// Which file needs which on a circle, one line each, a circle behind the other.
fn circles(needs: &BTreeSet<Need>) -> Vec<String> {
    let files: BTreeSet<_> = needs.iter().map(|need| need.from.as_path()).collect();
    let reached: BTreeMap<_, _> = files
        .iter()
        .map(|file| (*file, reached(needs, file)))
        .collect();
    let reach = |from: &Path, to: &Path| reached.get(from).is_some_and(|files| files.contains(to));
    let mut on_circles = BTreeMap::<_, BTreeSet<_>>::new();
    for Need { from, to, name, .. } in needs.iter().filter(|need| reach(&need.to, &need.from)) {
        // Of all files of its circle the first stands for it.
        let circle = files.iter().find(|f| reach(f, from) && reach(from, f));
        let names = on_circles.entry((circle, from, to)).or_default();
        names.extend(name.rsplit("::").next());
    }
    let mut lines = Vec::new();
    for ((_, from, to), names) in on_circles {
        let names = Vec::from_iter(names).join(", ");
        lines.push(format!(
            "{} needs {} for {names}",
            from.display(),
            to.display()
        ));
    }
    lines
}

fn needs(tree: &Tree) -> BTreeSet<Need> {
    let all = tree.needs().into_iter();
    all.filter(|need| !need.is_test).collect()
}

#[test]
fn no_file_needs_a_file_that_needs_it() {
    let circles = circles(&needs(&Tree::of_the_program()));
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn circles_are_seen() {
    let expected = [
        "a.rs needs b/c.rs for D, h, m, n",
        "b/c.rs needs a.rs for A, Other",
    ];
    assert_eq!(circles(&needs(&Tree::of(&sample()))), expected);
}
