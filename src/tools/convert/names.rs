//! Door names: knock 0.8 takes any text between brackets, knockd.toml takes one word.

use std::collections::HashSet;

/// How many characters of an old name are kept; a number may follow.
const KEPT: usize = 56;

/// Returns a name for each door: the old one wherever it can be, and no name twice.
pub(super) fn words(old: &[&str]) -> Vec<String> {
    let fits = |name: &str| name == word(name);
    let mut taken: HashSet<String> = old
        .iter()
        .filter(|name| fits(name))
        .map(|name| (*name).to_owned())
        .collect();
    let mut choose = |name: &&str| {
        if fits(name) {
            return (*name).to_owned();
        }
        let base = word(name);
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        let mut tries = std::iter::once(base.clone()).chain(numbered);
        // The second iterator has no end, so there is always one.
        let free = tries.find(|t| !taken.contains(t)).unwrap_or(base);
        taken.insert(free.clone());
        free
    };
    old.iter().map(&mut choose).collect()
}

fn word(name: &str) -> String {
    let one = |c: char| {
        if c.is_ascii_alphanumeric() || "_-.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let word: String = name.chars().map(one).take(KEPT).collect();
    match word.trim_matches('-') {
        "" => "door".to_owned(),
        inner if inner.len() < name.len() => inner.to_owned(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_and_the_rest_made_words() {
        let old = [
            "openSSH",
            " open SSH ",
            "a]b",
            "日本",
            "open-SSH",
            "a-b-2",
            "a b",
        ];
        let new = words(&old);
        assert_eq!(
            new,
            [
                "openSSH",
                "open-SSH-2",
                "a-b",
                "door",
                "open-SSH",
                "a-b-2",
                "a-b-3"
            ]
        );
        let long = "x".repeat(100);
        assert!(words(&[&long]).iter().all(|w| w.len() <= 64));
    }
}
