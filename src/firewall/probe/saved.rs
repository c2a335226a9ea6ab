//! A ruleset kept in a file, read at boot.

/// Whether a saved ruleset (the text of an nftables.conf) has the table of that name in it.
/// An old copy of ours would then be put into the kernel at boot.
#[must_use]
pub fn names_table(saved: &str, table: &str) -> bool {
    let code = saved
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut statements = code.flat_map(|code| code.split(';'));
    statements.any(|statement| {
        let words: Vec<_> = statement
            .split(|c: char| c.is_whitespace() || "{}".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        // `flush`, `delete` and `destroy` of it put nothing there.
        let makes = !["flush", "delete", "destroy"].contains(words.first().unwrap_or(&""));
        makes && words.windows(3).any(|w| w == ["table", "inet", table])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_where_it_is_made() {
        for there in [
            "table inet knockd {",
            "flush ruleset; table inet knockd{",
            "\tadd table inet knockd",
        ] {
            assert!(names_table(there, "knockd"), "{there}");
        }
        for not in [
            "# table inet knockd {",
            "table inet knockd2 {",
            "table ip knockd {",
            "delete table inet knockd; flush ruleset",
        ] {
            assert!(!names_table(not, "knockd"), "{not}");
        }
    }
}
