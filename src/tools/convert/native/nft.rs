//! nft(8): elements of a set, and rules.

use std::time::Duration;

use super::parsed::{
    AddressFamilies, ParsedCommand, RuleChange, Tool, is_source, ports, protocol, unusual,
};
use crate::model::{PortRange, SetPath};

const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];

/// The words after `nft`. The shell may have handed them on one by one or as one.
pub(super) fn read(words: &[String]) -> Result<ParsedCommand, String> {
    let mut text = words.join(" ");
    for mark in ["{", "}", ",", ";"] {
        text = text.replace(mark, &format!(" {mark} "));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["add" | "create", "element", rest @ ..] => element(rest, true),
        ["delete" | "destroy", "element", rest @ ..] => element(rest, false),
        ["add" | "insert", "rule", rest @ ..] => rule(rest),
        ["delete", "rule", ..] => Err("a rule is deleted by a number that changes".into()),
        _ => Err("it neither adds nor deletes an element or a rule".into()),
    }
}

/// `[family] table name`; without a family nft means `ip`.
fn path<'a>(words: &[&'a str]) -> Option<([&'a str; 3], usize)> {
    match words {
        [family, table, name, ..] if FAMILIES.contains(family) => Some(([family, table, name], 3)),
        [table, name, ..] => Some((["ip", table, name], 2)),
        _ => None,
    }
}

/// `inet filter knocked { %IP% . tcp . 22 timeout 1h }`.
fn element(words: &[&str], added: bool) -> Result<ParsedCommand, String> {
    let ([family, table, set], taken) = path(words).ok_or("it names no set")?;
    let inner = match words.get(taken..) {
        Some(["{", inner @ .., "}"]) => inner,
        _ => return Err("it is not for one element".into()),
    };
    let path = SetPath {
        family: family.to_owned(),
        table: table.to_owned(),
        set: set.to_owned(),
    };
    if !crate::config::is_set_path(&path) {
        return Err(format!("`{family} {table} {set}` cannot be named"));
    }
    let [source, rest @ ..] = inner else {
        return Err("it is not for one element".into());
    };
    if !is_source(source) {
        return Err(unusual(source));
    }
    let (list, rest): (Vec<PortRange>, _) = match rest {
        [".", name, ".", port, rest @ ..] => {
            let protocol = protocol(name).ok_or_else(|| unusual(name))?;
            (ports(port, '-', protocol)?, rest)
        }
        rest => (Vec::new(), rest),
    };
    let lifetime = match rest {
        [] => None,
        ["timeout", time] => Some(duration(time)?),
        [other, ..] => return Err(unusual(other)),
    };
    let change = if added {
        RuleChange::Add(path, list)
    } else {
        RuleChange::Remove(path, list)
    };
    Ok(ParsedCommand {
        tool: Tool::NftSet,
        family: AddressFamilies::Both,
        change,
        lifetime,
    })
}

/// nft writes `1h30m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let read = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|_| unusual(text))?,
    };
    if read < Duration::from_secs(1) {
        return Err(unusual(text));
    }
    Ok(read)
}

/// `inet filter input ip saddr %IP% tcp dport 22 accept`.
fn rule(words: &[&str]) -> Result<ParsedCommand, String> {
    let ([family, table, chain], taken) = path(words).ok_or("it names no chain")?;
    if !chain.eq_ignore_ascii_case("input") {
        return Err(unusual(chain));
    }
    let mut rest = words.get(taken..).unwrap_or_default();
    let mut addresses = None;
    let mut list = None;
    let change: fn(Vec<PortRange>) -> RuleChange = loop {
        rest = match rest {
            ["position" | "index", _, rest @ ..] | ["counter", rest @ ..] => rest,
            ["ip", "saddr", source, rest @ ..] if is_source(source) => {
                addresses = Some(AddressFamilies::V4);
                rest
            }
            ["ip6", "saddr", source, rest @ ..] if is_source(source) => {
                addresses = Some(AddressFamilies::V6);
                rest
            }
            ["ct", "state", "new", rest @ ..] => rest,
            [name @ ("tcp" | "udp"), "dport", rest @ ..] if list.is_none() => {
                let protocol = protocol(name).ok_or_else(|| unusual(name))?;
                let (text, rest) = set_or_one(rest)?;
                list = Some(ports(&text, '-', protocol)?);
                rest
            }
            ["accept", rest @ ..] if is_comment(rest)? => break RuleChange::Accept,
            ["drop" | "reject", rest @ ..] if is_comment(rest)? => break RuleChange::Refuse,
            [other, ..] => return Err(unusual(other)),
            [] => return Err("it neither accepts nor refuses".into()),
        };
    };
    Ok(ParsedCommand {
        tool: Tool::Nft(format!("{family} {table} {chain}")),
        family: addresses.ok_or("it is not for %IP%")?,
        change: change(list.ok_or("it is not for a port")?),
        lifetime: None,
    })
}

/// Returns true if nothing or only a comment follows, else an error.
fn is_comment(rest: &[&str]) -> Result<bool, String> {
    match rest {
        [] | ["comment", _] => Ok(true),
        // The shell has taken the quotes away.
        ["comment", ..] => Err("its comment is not one word".into()),
        [other, ..] => Err(unusual(other)),
    }
}

/// Reads `22`, or `{ 22, 80 }` with the commas as words. Returns the ports and the words behind them.
fn set_or_one<'a, 'b>(words: &'b [&'a str]) -> Result<(String, &'b [&'a str]), String> {
    match words {
        ["{", rest @ ..] => {
            let end = rest.iter().position(|w| *w == "}");
            let end = end.ok_or("a brace is not closed")?;
            let (inner, rest) = rest.split_at(end);
            Ok((inner.concat(), rest.get(1..).unwrap_or_default()))
        }
        [one, rest @ ..] => Ok(((*one).to_owned(), rest)),
        [] => Err("it is not for a port".into()),
    }
}
