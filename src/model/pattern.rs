//! Interface names with wildcards.

use std::fmt;

/// An interface name, in which `*` stands for any run of characters and `?` for one:
/// `eth0`, `ppp*`. With a colon it is a label of addresses (ip-address(8)): `eth0:1` means the
/// addresses of `eth0` with that label. No interface has a colon in its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Returns a pattern; every text is one. `any` is every interface, as for tcpdump. (Knock 0.8
    /// takes the word too, and then captures nothing.)
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(if text == "any" { "*" } else { text }.to_owned())
    }

    /// Returns the pattern as written, except `any`, which is `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern has no wildcards, and so names one interface.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Returns whether the pattern means the interface called `name`, or addresses of it.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let device = self.0.split(':').next().unwrap_or_default();
        glob(device.as_bytes(), name.as_bytes())
    }

    /// Returns whether the pattern means only addresses with a label, not all of the interface.
    #[must_use]
    pub fn is_label(&self) -> bool {
        self.0.contains(':')
    }

    /// Returns whether the pattern is a label, and means addresses with the label `label`.
    #[must_use]
    pub fn matches_label(&self, label: &str) -> bool {
        self.is_label() && glob(self.0.as_bytes(), label.as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Matches a name. The recursion is as deep as the name is long: 15 bytes (IFNAMSIZ), or 127 for an
/// alternative name.
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
    fn stars_and_question_marks_match_names() {
        assert!(Pattern::new("eth0").matches("eth0"));
        assert!(!Pattern::new("eth0").matches("eth00"));
        assert!(Pattern::new("ppp*").matches("ppp0") && Pattern::new("ppp*").matches("ppp"));
        assert!(Pattern::new("*.1?").matches("eth0.10"));
        assert!(!Pattern::new("*.1?").matches("eth0.1"));
        assert!(Pattern::new("*").matches("") && Pattern::new("any").matches("eth0"));
        assert!(Pattern::new("eth0").is_literal() && !Pattern::new("e*").is_literal());
    }

    #[test]
    fn a_label_is_of_an_interface() {
        let label = Pattern::new("eth0:1");
        assert!(label.is_label() && label.matches("eth0") && !label.matches("eth0:1"));
        assert!(label.matches_label("eth0:1") && !label.matches_label("eth0:10"));
        assert!(Pattern::new("eth0:*").matches_label("eth0:10"));
        assert!(!Pattern::new("eth0").is_label() && !Pattern::new("eth0").matches_label("eth0"));
    }
}
