//! Interface names with wildcards.

use std::fmt;

/// An interface name, in which `*` stands for any run of characters and `?` for one:
/// `eth0`, `ppp*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; every text is one. `any` is every interface, as for tcpdump: knock 0.8
    /// takes the word too, and then hears nothing.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(if text == "any" { "*" } else { text }.to_owned())
    }

    /// As written, but for `any`, which is `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one interface and no more.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether the interface called `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Recursion is as deep as the name is long: 15 bytes (IFNAMSIZ), an alternative one 127.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|n| glob(rest, &name[n..])),
        (Some((p, rest)), Some((c, tail))) => (*p == b'?' || p == c) && glob(rest, tail),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        assert!(Pattern::new("eth0").matches("eth0"));
        assert!(!Pattern::new("eth0").matches("eth00"));
        assert!(Pattern::new("ppp*").matches("ppp0") && Pattern::new("ppp*").matches("ppp"));
        assert!(Pattern::new("*.1?").matches("eth0.10"));
        assert!(!Pattern::new("*.1?").matches("eth0.1"));
        assert!(Pattern::new("*").matches("") && Pattern::new("any").matches("eth0"));
        assert!(Pattern::new("eth0").is_literal() && !Pattern::new("e*").is_literal());
    }
}
