//! The ruleset and its changes in nft's words, as nft 1.0.6 reads them.

use std::fmt::Write as _;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::time::Duration;

use super::ruleset::{
    CAPACITY, GuardChain, GuardRule, Hook, IpFamily, KeyKind, Match, RuleVerdict, Ruleset, Set,
    SetContent,
};
use super::transaction::{Element, ElementKey, SetChange, Transaction};
use crate::model::{Close, Door, Lifetime, PortRange, SetPath, Step};

/// Returns the table as text, ready for `nft -f`: the text makes the very ruleset that netlink
/// makes, but for the table's flags.
#[must_use]
pub fn nft(ruleset: &Ruleset) -> String {
    let mut out = format!("table inet {} {{\n", ruleset.table);
    line(&mut out, 1, &format!("comment \"{}\"", ruleset.comment()));
    for set in &ruleset.sets {
        render_set(&mut out, set);
    }
    for chain in &ruleset.chains {
        render_chain(&mut out, chain);
    }
    out.push_str("}\n");
    out
}

/// Returns the elements that a completed knock at `door` would add to sets, and delete from them if
/// they are there, a line each, with `SOURCE` in place of the address.
#[must_use]
pub fn door(ruleset: &Ruleset, door: &Door) -> Vec<String> {
    let add = |set: &SetPath, key: &str, lifetime| {
        let tail = options(timeout(lifetime), &door.name);
        format!("add element {} {{ {key}{tail} }}", path(set))
    };
    let delete = |set: &SetPath, key: &str| format!("delete element {} {{ {key} }}", path(set));
    let closes = |ports: &PortRange| match &door.close {
        Close::Nothing => false,
        Close::Ports(list) => list.iter().any(|closed| closed.overlaps(ports)),
        Close::All => true,
    };
    let mut lines = Vec::new();
    for family in IpFamily::BOTH {
        for ports in &door.open {
            if let Some(set) = ruleset.openings(ports, family) {
                lines.push(add(set, &opening_key(ports), door.open_for));
            }
        }
        for ports in ruleset.opened().into_iter().filter(closes) {
            if let Some(set) = ruleset.openings(&ports, family) {
                lines.push(delete(set, &opening_key(&ports)));
            }
        }
    }
    for wish in &door.add {
        let keys = element_keys(&wish.ports);
        lines.extend(keys.map(|key| add(&wish.path, &key, wish.lifetime)));
    }
    for wish in &door.remove {
        lines.extend(element_keys(&wish.ports).map(|key| delete(&wish.path, &key)));
    }
    lines
}

/// Returns the key of an opening of ours.
fn opening_key(ports: &PortRange) -> String {
    if ports.is_single() {
        format!("SOURCE . {} . {}", ports.protocol, ports.first)
    } else {
        "SOURCE".to_owned()
    }
}

/// Returns the keys of elements of an administrator's set.
fn element_keys(ports: &[PortRange]) -> impl Iterator<Item = String> {
    let alone = ports.is_empty().then(|| "SOURCE".to_owned());
    let with = ports.iter();
    let with = with.map(|ports| format!("SOURCE . {} . {}", ports.protocol, span(ports)));
    alone.into_iter().chain(with)
}

impl Display for Transaction {
    /// Writes a line for each change, as `nft -f` would take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            let (verb, element, tail) = match change {
                SetChange::Add(e) => ("add", e, options(e.timeout, &e.comment)),
                SetChange::Delete(e) => ("delete", e, String::new()),
            };
            let Element { set, key, .. } = element;
            writeln!(f, "{verb} element {} {{ {key}{tail} }}", path(set))?;
        }
        Ok(())
    }
}

impl Display for ElementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::AddressPort(a, Step { protocol, port }) => {
                write!(f, "{a} . {protocol} . {port}")
            }
        }
    }
}

/// Returns a path in nft's words: `inet filter knocked`.
pub(super) fn path(path: &SetPath) -> String {
    let SetPath { family, table, set } = path;
    format!("{family} {table} {set}")
}

fn timeout(lifetime: Lifetime) -> Option<Duration> {
    match lifetime {
        Lifetime::For(time) => Some(time),
        Lifetime::UntilClosed => None,
    }
}

fn options(timeout: Option<Duration>, comment: &str) -> String {
    let timeout = timeout.map_or_else(String::new, |t| format!(" timeout {}", time(t)));
    format!("{timeout} comment \"{comment}\"")
}

/// Returns a time as nft writes it: `1h30m`, `29s992ms`.
fn time(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [
        (ms / 86_400_000, "d"),
        (ms / 3_600_000 % 24, "h"),
        (ms / 60_000 % 60, "m"),
        (ms / 1000 % 60, "s"),
        (ms % 1000, "ms"),
    ];
    let mut out = String::new();
    for (n, unit) in units.into_iter().filter(|(n, _)| *n > 0) {
        let _ = write!(out, "{n}{unit}");
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

fn line(out: &mut String, depth: usize, text: &str) {
    let _ = writeln!(out, "{}{text}", "\t".repeat(depth));
}

fn render_set(out: &mut String, set: &Set) {
    line(out, 1, &format!("set {} {{", set.name));
    line(out, 2, &format!("type {}", key_type(set.key)));
    match &set.content {
        SetContent::Openings => {
            line(out, 2, &format!("size {CAPACITY}"));
            line(out, 2, "flags timeout");
        }
        SetContent::Ports(ports) => elements(
            out,
            ports.iter().map(|p| format!("{} . {}", p.protocol, p.port)),
        ),
    }
    line(out, 1, "}");
}

fn elements(out: &mut String, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    if !elements.is_empty() {
        line(out, 2, &format!("elements = {{ {} }}", elements.join(", ")));
    }
}

fn key_type(key: KeyKind) -> String {
    match key {
        KeyKind::Address(f) => address_type(f).to_owned(),
        KeyKind::AddressPort(f) => format!("{} . inet_proto . inet_service", address_type(f)),
        KeyKind::Port => "inet_proto . inet_service".to_owned(),
    }
}

fn address_type(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ipv4_addr",
        IpFamily::V6 => "ipv6_addr",
    }
}

fn render_chain(out: &mut String, chain: &GuardChain) {
    line(out, 1, &format!("chain {} {{", chain.name));
    if let Some(hook) = chain.hook {
        let hook = match hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
        };
        let text = format!("type filter hook {hook} priority mangle; policy accept;");
        line(out, 2, &text);
    }
    for r in &chain.rules {
        line(out, 2, &rule(r));
    }
    line(out, 1, "}");
}

pub(super) fn rule(rule: &GuardRule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(render_match).collect();
    if rule.counter {
        words.push("counter".to_owned());
    }
    if let Some(mark) = rule.mark {
        words.push(format!("meta mark set {mark:#010x}"));
    }
    words.push(match rule.verdict {
        RuleVerdict::Accept => "accept".to_owned(),
        RuleVerdict::Drop => "drop".to_owned(),
        RuleVerdict::Reset => "reject with tcp reset".to_owned(),
        RuleVerdict::Unreachable => "reject with icmpx port-unreachable".to_owned(),
        RuleVerdict::Goto(chain) => format!("goto {chain}"),
    });
    words.join(" ")
}

fn render_match(m: &Match) -> String {
    match m {
        Match::Loopback => "meta iiftype loopback".to_owned(),
        Match::OfSession => "tcp flags & (rst | ack) != 0".to_owned(),
        Match::Protocol(p) => format!("meta l4proto {p}"),
        Match::PortIn(set) => format!("meta l4proto . th dport @{set}"),
        Match::PortRange(r) => format!("{} dport {}", r.protocol, span(r)),
        Match::ForOthers => "fib daddr type unicast".to_owned(),
        Match::Established => "ct state established".to_owned(),
        // The prefix holds every address of a family: nft would write it so itself.
        Match::SourceWithin(p) if p.length() == 0 => match p.address() {
            IpAddr::V4(_) => "meta nfproto ipv4".to_owned(),
            IpAddr::V6(_) => "meta nfproto ipv6".to_owned(),
        },
        Match::SourceWithin(p) => format!("{} saddr {p}", header(IpFamily::of(p.address()))),
        Match::SourceIn(f, set) => format!("{} saddr @{set}", header(*f)),
        Match::SourcePortIn(f, set) => {
            format!("{} saddr . meta l4proto . th dport @{set}", header(*f))
        }
    }
}

fn header(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

fn span(range: &PortRange) -> String {
    if range.is_single() {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}
