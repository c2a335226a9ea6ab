//! `--native`: command strings that plainly let %IP% in at a port, or keep it out, become
//! what knockd does by itself. Whatever says more than that is left alone: a wrong guess
//! would open a host or shut it.

mod firewalld;
mod iptables;
mod nft;
mod shell;
mod ufw;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{
    Commands, Door, Lifetime, PortRange, Prefix, Protocol, SetElement, SetPath, Step,
};

/// The program a command calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tool {
    /// iptables, ip6tables, and the helper script that Debian ships.
    Iptables,
    /// A rule in `family table chain`.
    Nft(String),
    /// An element of a set: nothing else need accept it.
    NftSet,
    Ufw,
    Firewalld,
}

/// Which addresses the program takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Both,
}

/// What a command does for %IP%.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
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

/// A command understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Understood {
    tool: Tool,
    family: Family,
    deed: Deed,
    /// When the program itself undoes it.
    lifetime: Option<Duration>,
}

/// What a door does in place of its commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Native {
    pub(super) tool: Tool,
    pub(super) act: Act,
    /// IPv6 sources were told to do nothing.
    pub(super) only_v4: bool,
}

/// The keys it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Open(Vec<PortRange>, Lifetime),
    Close(Vec<PortRange>),
    Add(Vec<SetElement>),
    Remove(Vec<SetElement>),
}

/// For each door: what it does natively, or why its commands stay; `None` if it has none.
pub(super) fn turn(doors: &[Door]) -> Vec<Option<Result<Native, String>>> {
    let steps: BTreeSet<Step> = doors.iter().flat_map(|d| d.sequence.clone()).collect();
    let one = |door: &Door| {
        let commands = door.commands.as_ref()?;
        Some(turn_one(door, commands, &steps))
    };
    let mut turned: Vec<_> = doors.iter().map(one).collect();
    // A door that closes what a command has opened must stay a command too.
    let opened: Vec<PortRange> = turned
        .iter()
        .filter_map(|t| match t {
            Some(Ok(Native {
                act: Act::Open(ports, _),
                ..
            })) => Some(ports.clone()),
            Some(Ok(_) | Err(_)) | None => None,
        })
        .flatten()
        .collect();
    for turned in &mut turned {
        if let Some(Ok(Native {
            act: Act::Close(ports),
            ..
        })) = turned
            && let Some(lost) = ports.iter().find(|p| !opened.contains(p))
        {
            *turned = Some(Err(format!(
                "`{lost}` is opened by no `open` that it could close"
            )));
        }
    }
    turned
}

fn turn_one(door: &Door, commands: &Commands, steps: &BTreeSet<Step>) -> Result<Native, String> {
    let start = commands
        .start
        .as_deref()
        .ok_or("it acts for IPv6 sources alone")?;
    let four = both(
        start,
        commands.stop.as_deref(),
        commands.timeout,
        Family::V6,
    )?;
    let mut native = Native {
        tool: four.0,
        act: four.1,
        only_v4: false,
    };
    match (commands.start_6.as_deref(), commands.stop_6.as_deref()) {
        (None, None) => {}
        (Some(""), None | Some("")) => native.only_v4 = true,
        (Some(""), Some(_)) => return Err("for IPv6 it stops what it never started".into()),
        (start_6, stop_6) => {
            let stop_6 = match stop_6 {
                Some("") => None,
                Some(six) => Some(six),
                None => commands.stop.as_deref(),
            };
            let start_6 = start_6.unwrap_or(start);
            let (_, six) = both(start_6, stop_6, commands.timeout, Family::V4)?;
            native.act = merged(native.act, six)?;
        }
    }
    if let Act::Open(ports, _) = &native.act {
        if door.target.is_some() {
            return Err("the door has a target: `open` is for this host".into());
        }
        let inside = |s: &&Step| ports.iter().any(|p| p.contains(**s));
        if let Some(step) = steps.iter().find(inside) {
            return Err(format!("`{step}` is a step too, and cannot be guarded"));
        }
    }
    Ok(native)
}

/// IPv4 and IPv6 doing the same is one thing; elements of two sets are two.
fn merged(four: Act, six: Act) -> Result<Act, String> {
    match (four, six) {
        (four, six) if four == six => Ok(four),
        (Act::Add(four), Act::Add(six)) => Ok(Act::Add([four, six].concat())),
        (Act::Remove(four), Act::Remove(six)) => Ok(Act::Remove([four, six].concat())),
        (Act::Open(..) | Act::Close(_) | Act::Add(_) | Act::Remove(_), _) => {
            Err("it does one thing for IPv4 and another for IPv6".into())
        }
    }
}

/// Start and stop together. A program for the `other` family has no business here.
fn both(
    start: &str,
    stop: Option<&str>,
    timeout: Duration,
    other: Family,
) -> Result<(Tool, Act), String> {
    let start = understand(start)?;
    let stop = stop.map(understand).transpose()?;
    if start.family == other || stop.as_ref().is_some_and(|s| s.family == other) {
        return Err("the program is for the other family of addresses".into());
    }
    let ends = |given: Option<Duration>| match (given, &stop) {
        (Some(own), Some(_)) => Lifetime::For(own.min(timeout)),
        (Some(own), None) => Lifetime::For(own),
        (None, Some(_)) => Lifetime::For(timeout),
        (None, None) => Lifetime::UntilClosed,
    };
    let lifetime = ends(start.lifetime);
    let element = |path, lifetime, ports| {
        vec![SetElement {
            path,
            lifetime,
            ports,
        }]
    };
    let act = match (start.deed, stop.map(|s| s.deed)) {
        (Deed::Accept(ports), None) => Act::Open(ports, lifetime),
        (Deed::Accept(ports), Some(Deed::Unaccept(stop))) if ports == stop => {
            Act::Open(ports, lifetime)
        }
        (Deed::Unaccept(ports) | Deed::Refuse(ports), None) => Act::Close(ports),
        (Deed::Add(path, ports), None) => Act::Add(element(path, lifetime, ports)),
        (Deed::Add(path, ports), Some(Deed::Remove(from, stop)))
            if path == from && ports == stop =>
        {
            Act::Add(element(path, lifetime, ports))
        }
        // The model's element has a lifetime, if only an `add` makes use of it.
        (Deed::Remove(path, ports), None) => {
            let unused = Lifetime::For(Duration::from_secs(30));
            Act::Remove(element(path, unused, ports))
        }
        (
            Deed::Accept(_)
            | Deed::Unaccept(_)
            | Deed::Refuse(_)
            | Deed::Add(..)
            | Deed::Remove(..),
            Some(_),
        ) => return Err("the stop does not undo the start".into()),
    };
    Ok((start.tool, act))
}

fn understand(command: &str) -> Result<Understood, String> {
    let words = shell::words(command)?;
    let mut words: &[String] = &words;
    while let [first, rest @ ..] = words
        && matches!(base(first), "sudo" | "exec")
    {
        words = rest;
    }
    let Some((program, words)) = words.split_first() else {
        return Err("there is no command".into());
    };
    match base(program) {
        "iptables" | "iptables-nft" | "iptables-legacy" => iptables::read(words, Family::V4),
        "ip6tables" | "ip6tables-nft" | "ip6tables-legacy" => iptables::read(words, Family::V6),
        "knock_helper_ipt.sh" | "knock_add" => iptables::read_helper(words),
        "nft" => nft::read(words),
        "ufw" => ufw::read(words),
        "firewall-cmd" => firewalld::read(words),
        other => Err(format!(
            "`{}` is no firewall's program",
            other.escape_debug()
        )),
    }
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// `%IP%`, alone or as a network of one address.
fn is_source(word: &str) -> bool {
    matches!(
        word,
        "%IP%" | "%IP%/32" | "%IP%/128" | "%IP%/255.255.255.255"
    )
}

/// `tcp`, `udp`, or their numbers.
fn protocol(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

/// `22`, `22,80`, `60000:61000`; `between` divides the ends of a range.
fn ports(text: &str, between: char, protocol: Protocol) -> Result<Vec<PortRange>, String> {
    let one = |word: &str| {
        let word = word.trim();
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

/// What follows an option, which does not go without.
fn value_of<'a>(option: &str, next: Option<&'a str>) -> Result<&'a str, String> {
    next.ok_or_else(|| format!("`{option}` lacks its value"))
}

/// What is said of a word that makes a rule more than an opening.
fn unusual(word: &str) -> String {
    format!("`{}` is more than an opening can say", word.escape_debug())
}

/// Every IPv4 address: for doors that do nothing for IPv6.
pub(super) fn every_v4() -> Option<Prefix> {
    Prefix::new(IpAddr::from([0, 0, 0, 0]), 0)
}

#[cfg(test)]
mod tests;
