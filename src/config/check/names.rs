//! Names of tables and sets, as nft reads them.

use super::super::diagnostic::Faults;
use super::super::source::Span;
use crate::model::SetPath;

/// NFT_NAME_MAXLEN without the NUL (linux/netfilter/nf_tables.h).
const NAME_MAX: usize = 255;

const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];

/// Reports a name that nft could not read back: what `--dry-run` prints must load.
pub(super) fn name(span: &Span, name: &str, what: &str, faults: &mut Faults) {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if !name.starts_with(begins) || !name.chars().all(goes_on) {
        faults
            .error(span, format!("this is no name of a {what}"))
            .help("a letter or `_`, then letters, digits, `_`, `-` and `.`");
    } else if name.len() > NAME_MAX {
        let message = format!("the name of a {what} has at most {NAME_MAX} characters");
        faults.error(span, message);
    } else if RESERVED.contains(&name) {
        faults
            .error(span, format!("`{name}` is a word of nft's language"))
            .help(format!("nft takes it for no {what}'s name: choose another"));
    }
}

/// The same for a set of the administrator's own.
pub(super) fn set_path(span: &Span, path: &SetPath, faults: &mut Faults) {
    if !FAMILIES.contains(&path.family.as_str()) {
        faults
            .error(
                span,
                format!("`{}` is no family", path.family.escape_debug()),
            )
            .help(format!(
                "a table is named with its family: {}",
                FAMILIES.join(", ")
            ));
    }
    name(span, &path.table, "table", faults);
    name(span, &path.set, "set", faults);
}

/// What nft 1.0.6 refuses as a table's name: a test asks nft.
#[rustfmt::skip]
const RESERVED: [&str; 0] = [];
