//! Finds the word for "did you mean …?".

/// Returns the one of `known` that `word` is most likely a slip of the keyboard for.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is no slip, and need not be compared.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let most = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .map(|k| (strsim::levenshtein(&word, k), k))
        .filter(|(d, _)| *d <= most)
        .min()
        .map(|(_, k)| k)
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
}
