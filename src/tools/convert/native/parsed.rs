//! A command of a firewall, understood: the change that it makes for one source.

use std::time::Duration;

use crate::config::services;
use crate::model::{PortRange, Protocol, SetPath};

/// The program a command calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tools::convert) enum Tool {
    /// iptables, ip6tables, and the helper script that Debian ships.
    Iptables,
    /// A rule in `family table chain`.
    Nft(String),
    /// An element of a set. No other firewall needs a rule that accepts its packets.
    NftSet,
    Ufw,
    /// A rich rule in a zone; none: the default one.
    Firewalld(Option<String>),
}

/// The families of addresses that a program takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressFamilies {
    V4,
    V6,
    Both,
}

/// The change that a command makes for %IP%.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuleChange {
    /// Puts a rule in place that accepts.
    Accept(Vec<PortRange>),
    /// Takes such a rule away.
    Unaccept(Vec<PortRange>),
    /// Puts a rule in place that drops or rejects.
    Refuse(Vec<PortRange>),
    /// Adds to a set.
    Add(SetPath, Vec<PortRange>),
    /// Removes from a set.
    Remove(SetPath, Vec<PortRange>),
}

/// A command, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedCommand {
    pub(super) tool: Tool,
    pub(super) family: AddressFamilies,
    pub(super) change: RuleChange,
    /// The time after which the program itself undoes the change, if it does.
    pub(super) lifetime: Option<Duration>,
}

/// Returns whether a word is `%IP%`, alone or as a network of one address.
pub(super) fn is_source(word: &str) -> bool {
    matches!(
        word,
        "%IP%" | "%IP%/32" | "%IP%/128" | "%IP%/255.255.255.255"
    )
}

/// Reads `tcp`, `udp`, or their numbers.
pub(super) fn protocol(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Reads `22`, `ssh`, `22,80`, `60000:61000`; `between` divides the ends of a range.
pub(super) fn ports(
    text: &str,
    between: char,
    protocol: Protocol,
) -> Result<Vec<PortRange>, String> {
    let one = |word: &str| {
        let number = services::registered(word.trim()).map(|port| port.to_string());
        let word = number.as_deref().unwrap_or(word.trim());
        format!("{}/{protocol}", word.replacen(between, "-", 1))
            .parse::<PortRange>()
            .map_err(|error| error.to_string())
    };
    let mut all = text.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    all.sort();
    let next = all.iter().skip(1);
    if all.iter().zip(next).any(|(a, b)| a.overlaps(b)) {
        return Err("a port is named twice".into());
    }
    Ok(all)
}

/// Returns the value behind an option that needs one.
pub(super) fn value_of<'a>(option: &str, next: Option<&'a str>) -> Result<&'a str, String> {
    next.ok_or_else(|| format!("`{option}` lacks its value"))
}

/// Returns the reason that a word makes a rule more than an opening.
pub(super) fn unusual(word: &str) -> String {
    format!("`{}` is more than an opening can say", word.escape_debug())
}
