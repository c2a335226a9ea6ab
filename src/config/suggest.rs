//! Did you mean …?

/// The one of `known` that `word` is most likely a slip of the keyboard for.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is no slip, and need not be compared.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let most = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .map(|k| (distance(&word, k), k))
        .filter(|(d, _)| *d <= most)
        .min()
        .map(|(_, k)| k)
}

/// Levenshtein's distance: how many letters must be put in, taken out, or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        // The value up and to the left.
        let mut corner = i;
        let mut left = i + 1;
        for (slot, cb) in row.iter_mut().skip(1).zip(&b) {
            let here = (corner + usize::from(ca != *cb))
                .min(left + 1)
                .min(*slot + 1);
            corner = std::mem::replace(slot, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_through_and_other_words_are_not() {
        let keys = ["sequence", "seq_timeout", "open", "open_for", "strays"];
        assert_eq!(nearest("sequnce", keys), Some("sequence"));
        assert_eq!(nearest("Seq-Timeout", keys), Some("seq_timeout"));
        assert_eq!(nearest("openfor", keys), Some("open_for"));
        assert_eq!(nearest("opne", keys), Some("open"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn distances_count_insertions_deletions_and_exchanges() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
