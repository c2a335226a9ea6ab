//! Compares the table in the kernel with the configured one, in nft's text. The same nft lists both,
//! so that two equal tables have equal text.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use similar::{Algorithm, capture_diff_slices, group_diff_ops};

use super::error::ProbeError;
use super::live_ruleset::LiveRuleset;
use super::program;
use super::replica::{Arrangement, Replica};
use crate::firewall::ruleset::{GUARDED, Ruleset, SetContent, is_set_of_guarded};

/// How many equal lines are shown around a difference.
const CONTEXT: usize = 2;

/// A reload leaves the sets that the rules no longer look into for some 100 ms: a difference that is
/// seen for so long is one.
const AFTER_A_RELOAD: Duration = Duration::from_secs(1);

/// Returns a diff from the configured table to the table in the kernel; `None` if they agree.
/// Afterwards the replica has our table and no other.
pub(super) fn drift(copy: &Replica<'_>, ruleset: &Ruleset) -> Result<Option<String>, ProbeError> {
    let list = || program::run("nft", &["-s", "list", "table", "inet", &ruleset.table], "");
    let state = Arrangement {
        ruleset: Some(ruleset),
        ..Arrangement::default()
    };
    copy.arrange(&LiveRuleset::default(), &state)?;
    let configured = normal(&copy.server.within(list)?, ruleset);
    let end = Instant::now() + AFTER_A_RELOAD;
    loop {
        let found = diff(&configured, &normal(&list()?, ruleset));
        if found.is_none() || Instant::now() >= end {
            return Ok(found);
        }
        std::thread::sleep(AFTER_A_RELOAD / 10);
    }
}

/// Returns the lines of a listing without anything that may differ: openings, the order of elements
/// and of sets, the flags that keep others away (nft 1.0.6 breaks the line if it does not know a
/// flag), the comment, and the number in the name of the set of guarded ports. A reload adds sets at
/// the end, and another set for other ports. The comment names the file that the daemon reads; a new
/// file may be checked before it takes the place of that one.
fn normal(listing: &str, ruleset: &Ruleset) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut elements: Option<String> = None;
    let mut openings = false;
    for line in listing.lines() {
        let usual = with_usual_name(line);
        let line = usual.as_str();
        if let Some(text) = &mut elements {
            // These lines continue a long list.
            if line.starts_with("\t\t\t") {
                if !openings {
                    text.push_str(line.trim());
                }
                continue;
            }
            lines.extend(sorted(text));
            elements = None;
        }
        if let Some(name) = line.strip_prefix("\tset ") {
            let name = name.trim_end_matches(" {");
            let set = ruleset.sets.iter().find(|s| s.name == name);
            openings = set.is_some_and(|s| s.content == SetContent::Openings);
        }
        if let Some(text) = line.strip_prefix("\t\telements = ") {
            elements = Some(if openings {
                String::new()
            } else {
                text.to_owned()
            });
        } else if let Some(rest) = line.strip_prefix("table ") {
            // The owner of the table stands behind the brace.
            let head = rest.split(" {").next().unwrap_or(rest);
            lines.push(format!("table {head} {{"));
        } else if line.starts_with("\tflags ") {
            // A dormant table guards nothing, whatever is in it.
            if line.contains("dormant") {
                lines.push("\tflags dormant".to_owned());
            }
        } else if !line.starts_with("\tcomment ") && !line.trim().is_empty() {
            lines.push(line.to_owned());
        }
    }
    let is_set = |line: &String| line.starts_with("\tset ");
    let first = lines.iter().position(is_set).unwrap_or(lines.len());
    let chains = lines.iter().position(|line| line.starts_with("\tchain "));
    let chains = lines.split_off(chains.unwrap_or(lines.len()).max(first));
    let mut blocks: Vec<Vec<String>> = Vec::new();
    for line in lines.split_off(first) {
        match blocks.last_mut() {
            Some(block) if !is_set(&line) => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    blocks.sort();
    lines.extend(blocks.into_iter().flatten());
    lines.extend(chains);
    lines
}

/// Returns the line with the usual name of the set of guarded ports.
fn with_usual_name(line: &str) -> String {
    let usual = |word: &str| match word.strip_prefix('@').unwrap_or(word) {
        name if is_set_of_guarded(name) => word.replace(name, GUARDED),
        _ => word.to_owned(),
    };
    let words: Vec<String> = line.split(' ').map(usual).collect();
    words.join(" ")
}

fn sorted(elements: &str) -> Vec<String> {
    let inner = elements.trim_matches(|c| "{} ".contains(c));
    let mut all: Vec<_> = inner
        .split(',')
        .map(|e| format!("\t\t{}", e.trim()))
        .collect();
    all.retain(|e| e != "\t\t");
    all.sort();
    all
}

/// Returns a unified diff without line numbers; `None` if nothing differs.
fn diff(old: &[String], new: &[String]) -> Option<String> {
    if old == new {
        return None;
    }
    let mut out = "--- configured\n+++ in the kernel\n".to_owned();
    let mut shown = 0;
    for group in group_diff_ops(capture_diff_slices(Algorithm::Myers, old, new), CONTEXT) {
        if group.first().is_some_and(|op| op.old_range().start > shown) {
            out.push_str("@@\n");
        }
        for op in group {
            shown = op.old_range().end;
            for change in op.iter_changes(old, new) {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{}{}", change.tag(), change.value());
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_differs_is_shown_with_what_is_around() {
        assert_eq!(diff(&lines("a b c"), &lines("a b c")), None);
        assert_eq!(
            diff(&lines("a b c d e f"), &lines("a b c d x f y")).as_deref(),
            Some("--- configured\n+++ in the kernel\n@@\n c\n d\n-e\n+x\n f\n+y\n")
        );
    }

    #[test]
    fn elements_are_compared_one_by_one() {
        assert_eq!(
            sorted("{ tcp . 443, udp . 53,tcp . 22 }"),
            ["\t\ttcp . 22", "\t\ttcp . 443", "\t\tudp . 53"]
        );
        assert!(sorted("").is_empty());
    }
}
